"""AlgoPerf's tuning trials as budgetflow's records, and what is known of them on the way."""

from __future__ import annotations

import collections
import dataclasses
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection, TrialRecord

METRIC = "validation_metric"
# A trial that ends before this share of its study's longest is censored: it is left out.
COMPLETE = 0.9
# A trial counts at a fraction of the run if it has been evaluated this often by then.
MIN_EVALUATIONS = 4
FAMILIES = ("criteo1tb", "fastmri", "imagenet_resnet", "imagenet_vit", "librispeech", "ogbg")


@dataclasses.dataclass(frozen=True)
class Study:
    """The trials of one submission on one workload that compete with each other.

    Attributes:
        submission: the training algorithm.
        repetition: 0 to 4: the same points with other seeds.
        workload: its name and framework.
        selection: its metric.
        length: the steps of its longest trial.
        trials: those that are complete.
        censored: how many are left out.
    """

    submission: str
    repetition: int
    workload: str
    selection: Selection
    length: int
    trials: Sequence[TrialRecord]
    censored: int

    @property
    def pool(self) -> tuple[str, str]:
        """What its repetitions have in common."""
        return self.submission, self.workload

    @property
    def family(self) -> str:
        """The workload without its variants: those are too alike to learn from each other."""
        return next((f for f in FAMILIES if self.workload.startswith(f)), self.workload)

    def log_errors(self, fraction: float) -> dict[int, float]:
        """The lowest error by a fraction of the run, as a logarithm, by trial.

        The error is 1 minus the metric where higher is better. Trials that were not evaluated often
        enough by then are left out.
        """
        found = {}
        for trial in self.trials:
            rows = [row for row in trial.rows if row["step"] <= fraction * self.length]
            best = self.selection.best(rows)
            logged = sum(math.isfinite(row[METRIC]) for row in rows)
            if best is not None and logged >= MIN_EVALUATIONS:
                value = best[METRIC]
                error = 1 - value if self.selection.higher_is_better else value
                found[trial.trial] = math.log(max(error, 1e-6))
        return found


def read_studies(path: str) -> list[Study]:
    """All studies of a file of trials, one JSON object a line, gzipped."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = collections.defaultdict(list)
    with gzip.open(path, "rt") as lines:
        for line in lines:
            trial = json.loads(line)
            key = [trial[k] for k in ("submission", "study", "workload", "framework")]
            groups[tuple(key)].append(trial)
    return [_study(*key, trials) for key, trials in groups.items()]


def _study(
    submission: str, repetition: int, workload: str, framework: str, trials: Sequence[Any]
) -> Study:
    length = max(trial["curve"][-1][0] for trial in trials)
    complete = [t for t in trials if t["curve"][-1][0] >= COMPLETE * length]
    return Study(
        submission=submission,
        repetition=repetition,
        workload=f"{workload} ({framework})",
        selection=Selection(METRIC, higher_is_better=not trials[0]["lower_is_better"]),
        length=length,
        trials=[_record(trial, length) for trial in complete],
        censored=len(trials) - len(complete),
    )


def _record(trial: Mapping[str, Any], length: int) -> TrialRecord:
    """A trial as a record. Its schedule is not in the file: a constant stands for it."""
    rows = [
        {"step": step, METRIC: math.nan if value is None else value}
        for step, value, *_ in trial["curve"]
    ]
    return TrialRecord(
        trial=trial["trial"],
        hyperparameters=trial["hyperparameters"],
        schedule=Schedule(1.0, 0, length),
        seed=trial["study"],
        max_train_steps=length,
        status="complete",
        step=rows[-1]["step"],
        rows=tuple(rows),
    )
