"""What the report shows of a study's trials, as JSON values: their groups, settings and curves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from budgetflow.base.files import read_json
from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import TrialRecord
from budgetflow.playbook.common.outcomes import RoundOutcome
from budgetflow.results.kind_views import is_race
from budgetflow.results.reading import StudyResult, TrialResult

# In the order in which they are drawn, the last on top, and what they are called.
GROUPS = {
    "failed": "could not be trained",
    "diverged": "diverged",
    "other": "does not compete for the best result",
    "competes": "competes for the best result",
    "best": "best trial",
}
GROUPS_OF_A_RACE = GROUPS | {
    "other": "not fitted up to here, where the race ended",
    "competes": "fitted the training set",
    "best": "the answer",
}
# So many numbers hold all curves of a report; of more evaluations, every second or third is kept.
MOST_NUMBERS = 125_000


@dataclasses.dataclass(frozen=True)
class PageData:
    """A study with what all panels ask of it.

    Attributes:
        study: as it was read.
        records: its trials, those that are drawn last at the end.
        groups: trial number to a key of :data:`GROUPS`.
        varied: the hyperparameters that differ between trials.
        is_race: whether its trials race to a fit, instead of being selected by validation.
    """

    study: StudyResult
    records: Sequence[TrialRecord]
    groups: dict[int, str]
    varied: tuple[str, ...]
    is_race: bool

    @property
    def group_names(self) -> dict[str, str]:
        """The groups that occur, by key, and what they are called."""
        names = GROUPS_OF_A_RACE if self.is_race else GROUPS
        return {key: name for key, name in names.items() if key in self.groups.values()}

    @property
    def best(self) -> TrialRecord | None:
        """The best trial, of a study under way the best one so far."""
        return next((r for r in self.records if self.groups[r.trial] == "best"), None)

    @property
    def metric_values(self) -> list[float | None]:
        """The selection metric of each trial at its best step."""
        key = self.study.selection.key
        return [number((r.best_row or {}).get(key)) for r in self.records]

    @property
    def metrics(self) -> list[str]:
        """The keys of what was measured, those of the selection metric first."""
        keys = {key for r in self.records for row in r.rows for key in row}
        selecting = self.study.selection.key.removeprefix("validation_")

        def order(key: str) -> tuple[bool, str, str]:
            metric = key.partition("_")[2]
            return metric != selecting, metric, key

        return sorted((k for k in keys if k.startswith(("train_", "validation_"))), key=order)

    @property
    def stride(self) -> int:
        """Every how many evaluations curves keep."""
        numbers = sum(len(r.rows) for r in self.records) * (len(self.metrics) + 2)
        return math.ceil(numbers / MOST_NUMBERS) or 1


def page_data(study: StudyResult) -> PageData:
    """A study, its trials in groups."""
    records, outcome, races = [t.record for t in study.trials], study.found, is_race(study)
    groups = {r.trial: "diverged" if r.diverged else "other" for r in records}
    groups |= {r.trial: "failed" for r in records if r.failed}
    best = outcome.best_trial if outcome else None
    if races:
        competing = [r.trial for r in records if r.fitted_at_step is not None]
    elif isinstance(outcome, RoundOutcome) and outcome.best_step_diagnosis.competing_trials:
        competing = list(outcome.best_step_diagnosis.competing_trials)
    else:
        competing = [trial.trial for trial, _ in compete(records, study.selection).competing]
        if outcome is None:
            best = next(iter(competing), None)
    groups |= dict.fromkeys(competing, "competes")
    if best is not None:
        groups[best] = "best"
    order = list(GROUPS)
    ordered = sorted(records, key=lambda r: (order.index(groups[r.trial]), r.trial))
    names = dict.fromkeys(name for r in records for name in r.hyperparameters)
    varied = [n for n in names if len({str(setting(study, r, n)) for r in records}) > 1]
    return PageData(study, ordered, groups, tuple(varied), races)


def setting(study: StudyResult, record: TrialRecord, name: str) -> Any:
    """A hyperparameter of a trial, or the config's value where the trial has none of its own.

    "none" where it is None, which would be drawn nowhere.
    """
    if name in record.hyperparameters:
        value = record.hyperparameters[name]
    elif name == "seed":
        value = record.seed
    else:
        value = study.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return "none" if value is None else value


def number(value: Any) -> Any:
    """A number to four digits, as many as a drawing needs; None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return str(value) if isinstance(value, tuple) else value


def trial_rows(data: PageData) -> list[dict[str, Any]]:
    """One entry per trial, the best one last.

    A hyperparameter is called h0, h1, …: a dot has a meaning of its own in Vega-Lite.
    """
    by_number = {t.record.trial: t for t in data.study.trials}
    return [
        {
            "trial": r.trial,
            "group": data.groups[r.trial],
            "status": r.status,
            "step": r.step,
            "length": r.max_train_steps,
            "best_step": r.best_step,
            "fitted": r.fitted_at_step,
            "seed": r.seed,
            "rate": number(r.base_learning_rate),
            "metric": metric,
            **{f"h{n}": number(setting(data.study, r, name)) for n, name in enumerate(data.varied)},
            "about": list(_about(by_number[r.trial])),
        }
        for r, metric in zip(data.records, data.metric_values, strict=True)
    ]


def _about(trial: TrialResult) -> Iterator[tuple[str, str]]:
    """What to tell of a single trial, name and value."""
    r, schedule = trial.record, trial.record.schedule
    yield "status", f"{r.status} at step {r.step} of {r.max_train_steps}"
    if r.role != "point":
        yield "role", f"idea {r.idea}" if r.idea else r.role
    for name, value in r.hyperparameters.items():
        yield name, f"{value:.6g}" if isinstance(value, float) else str(value)
    parts = {
        "warmup": schedule.warmup_steps,
        "constant": schedule.constant_steps,
        f"{schedule.decay} decay": schedule.decay_steps,
        "final": schedule.final_steps,
    }
    lengths = ", ".join(f"{steps} {name}" for name, steps in parts.items() if steps)
    yield "schedule", f"base {schedule.base_learning_rate:.4g}; steps: {lengths or 'as a function'}"
    yield "seed", str(r.seed)
    if r.fitted_at_step is not None:
        yield "fitted at step", str(r.fitted_at_step)
    for name, value in (r.best_row or {}).items():
        if name not in ("step", "learning_rate"):
            yield f"{name.replace('_', ' ')} at best step {r.best_step}", f"{value:.6g}"
    source = "trained from scratch"
    if r.reused_from:
        source = "steps up to {step} were taken over from trial {trial} of {study}".format(
            **r.reused_from
        )
    yield "where its steps came from", source
    for why in (r.not_reused_because, r.measured_anew_because):
        if why:
            yield "not taken over", why
    path = trial.folder / "checksums.json"
    steps = sorted(map(int, read_json(path))) if path.exists() else []
    yield "checkpoints", "of step " + ", ".join(map(str, steps)) if steps else "none"


def curve_rows(data: PageData) -> list[dict[str, Any]]:
    """One entry per trial, its evaluations in lists: step, learning rate ("rate"), m0, m1, …."""
    keys, every, entries = data.metrics, data.stride, []
    for r in data.records:
        last = len(r.rows) - 1
        rows = [
            row
            for n, row in enumerate(r.rows)
            if n % every == 0 or n == last or row["step"] == r.best_step
        ]
        if rows:
            entries.append(
                {
                    "trial": r.trial,
                    "group": data.groups[r.trial],
                    "step": [row["step"] for row in rows],
                    "rate": [number(row.get("learning_rate")) for row in rows],
                    **{f"m{n}": [number(row.get(k)) for row in rows] for n, k in enumerate(keys)},
                }
            )
    return entries
