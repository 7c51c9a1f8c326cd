"""What the report shows of a study, as JSON values: its trials, curves, provenance, next step."""

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
GROUPS_OF_A_SWEEP = {
    "failed": "could not be trained",
    "diverged": "diverged",
    "other": "not fitted up to here, where the race ended",
    "competes": "fitted the training set",
    "best": "the answer",
}
# So many numbers hold all curves of a report; of more evaluations, every second or third is kept.
MOST_NUMBERS = 125_000


@dataclasses.dataclass(frozen=True)
class Shown:
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

    def setting(self, record: TrialRecord, name: str) -> Any:
        """A hyperparameter of a trial; "none" where it is None, which would be drawn nowhere."""
        value = _setting(self.study, record, name)
        return "none" if value is None else value

    @property
    def group_names(self) -> dict[str, str]:
        """The groups that occur, by key, and what they are called."""
        names = GROUPS_OF_A_SWEEP if self.is_race else GROUPS
        return {key: name for key, name in names.items() if key in self.groups.values()}

    @property
    def best(self) -> TrialRecord | None:
        """The best trial, of a study under way the best one so far."""
        return next((r for r in self.records if self.groups[r.trial] == "best"), None)


def shown(study: StudyResult) -> Shown:
    """A study, its trials in groups."""
    records = [trial.record for trial in study.trials]
    groups = {r.trial: "diverged" if r.diverged else "other" for r in records}
    groups |= {r.trial: "failed" for r in records if r.failed}
    found = study.found
    best: int | None
    races = is_race(study)
    if races:
        competing = [r.trial for r in records if r.fitted_at_step is not None]
        best = found.best_trial if found else None
    elif isinstance(found, RoundOutcome) and found.best_step_diagnosis.competing_trials:
        competing, best = list(found.best_step_diagnosis.competing_trials), found.best_trial
    else:
        ranked = [trial.trial for trial, _ in compete(records, study.selection).competing]
        competing, best = ranked, found.best_trial if found else next(iter(ranked), None)
    groups |= dict.fromkeys(competing, "competes")
    if best is not None:
        groups[best] = "best"
    order = list(GROUPS)
    ordered = sorted(records, key=lambda r: (order.index(groups[r.trial]), r.trial))
    names = dict.fromkeys(name for r in records for name in r.hyperparameters)
    varied = [n for n in names if len({str(_setting(study, r, n)) for r in records}) > 1]
    return Shown(study, ordered, groups, tuple(varied), races)


def _setting(study: StudyResult, record: TrialRecord, name: str) -> Any:
    """A hyperparameter of a trial; where it has none of its own, the config's."""
    if name in record.hyperparameters:
        return record.hyperparameters[name]
    if name == "seed":
        return record.seed
    section: Any = study.config
    for part in name.split("."):
        section = section.get(part) if isinstance(section, dict) else None
    return section


def number(value: Any) -> Any:
    """A number to four digits, as many as a drawing needs; None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return str(value) if isinstance(value, tuple) else value


def value_of(record: TrialRecord, key: str) -> float | None:
    """A metric at a trial's best step; None where it has none."""
    row = next((r for r in record.rows if r["step"] == record.best_step), {})
    return number(row.get(key))


def trials(of: Shown) -> list[dict[str, Any]]:
    """One entry per trial, the best one last.

    A hyperparameter is called h0, h1, …: a dot has a meaning of its own in Vega-Lite.
    """
    key, by_number = of.study.selection.key, {t.record.trial: t for t in of.study.trials}
    return [
        {
            "trial": r.trial,
            "group": of.groups[r.trial],
            "status": r.status,
            "step": r.step,
            "length": r.max_train_steps,
            "best_step": r.best_step,
            "fitted": r.fitted_at_step,
            "seed": r.seed,
            "rate": number(r.base_learning_rate),
            "metric": value_of(r, key),
            **{f"h{n}": number(of.setting(r, name)) for n, name in enumerate(of.varied)},
            "about": list(_about(by_number[r.trial])),
        }
        for r in of.records
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
    best = next((row for row in r.rows if row["step"] == r.best_step), {})
    for name, value in best.items():
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


def metrics(of: Shown) -> list[str]:
    """The keys of what was measured, those of the selection metric first."""
    keys = {key for r in of.records for row in r.rows for key in row}
    known = [key for key in keys if key.startswith(("train_", "validation_"))]
    selecting = of.study.selection.key.removeprefix("validation_")
    return sorted(known, key=lambda k: (k.partition("_")[2] != selecting, k.partition("_")[2], k))


def stride(of: Shown) -> int:
    """Every how many evaluations curves keep."""
    rows = sum(len(r.rows) for r in of.records) * (len(metrics(of)) + 2)
    return math.ceil(rows / MOST_NUMBERS) or 1


def curves(of: Shown) -> list[dict[str, Any]]:
    """One entry per trial, its evaluations in lists: step, learning rate ("rate"), m0, m1, …."""
    keys, every = metrics(of), stride(of)
    found = []
    for r in of.records:
        last = len(r.rows) - 1
        rows = [
            row
            for n, row in enumerate(r.rows)
            if n % every == 0 or n == last or row["step"] == r.best_step
        ]
        found.append(
            {
                "trial": r.trial,
                "group": of.groups[r.trial],
                "step": [row["step"] for row in rows],
                "rate": [number(row.get("learning_rate")) for row in rows],
                **{f"m{n}": [number(row.get(key)) for row in rows] for n, key in enumerate(keys)},
            }
        )
    return [each for each in found if each["step"]]
