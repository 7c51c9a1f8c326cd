"""One round: many trials of one length, the best by retrospective selection, and what it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from budgetflow.playbook.best_step import diagnose
from budgetflow.playbook.measurement import (
    Add,
    Advance,
    Conclude,
    Decision,
    TrialView,
    best_row,
)


@dataclasses.dataclass(frozen=True)
class RoundSettings:
    """What a round is asked to do.

    Attributes:
        trials: the hyperparameters of each trial, by number.
        max_train_steps: the length of every one of them; never a hyperparameter.
        selection_metric: the measurement's key that selects steps and trials, lower is better.
    """

    trials: tuple[dict[str, Any], ...]
    max_train_steps: int
    selection_metric: str


def decide(settings: RoundSettings, trials: Sequence[TrialView]) -> Decision:
    """What to do next: every trial runs to the end, one after the other."""
    numbers = {trial.trial for trial in trials}
    missing = {
        number: hyperparameters
        for number, hyperparameters in enumerate(settings.trials)
        if number not in numbers
    }
    if missing:
        return Add(missing)
    unfinished = tuple(
        trial.trial
        for trial in trials
        if trial.step < settings.max_train_steps and trial.status != "diverged"
    )
    if unfinished:
        return Advance(unfinished, settings.max_train_steps)
    return Conclude(_outcome(settings, trials))


def rank(trials: Sequence[TrialView], selection_metric: str) -> list[TrialView]:
    """The trials that did not diverge, best first; of equal ones the lower number first."""
    usable = [
        (row[selection_metric], trial.trial, trial)
        for trial in trials
        if not trial.diverged and (row := best_row(trial.rows, selection_metric))
    ]
    return [trial for _, _, trial in sorted(usable, key=lambda item: item[:2])]


def _outcome(settings: RoundSettings, trials: Sequence[TrialView]) -> dict[str, Any]:
    ranked = rank(trials, settings.selection_metric)
    diverged = sum(trial.diverged for trial in trials)
    diagnosis = diagnose(trials, settings.max_train_steps, settings.selection_metric)
    outcome: dict[str, Any] = {
        "kind": "round",
        "max_train_steps": settings.max_train_steps,
        "trials": len(trials),
        "diverged": diverged,
        "best_trial": None,
        "best_step": None,
        "best_validation": None,
        "best_step_diagnosis": diagnosis,
        "transfer": None,
        "steps_trained": sum(trial.step - trial.steps_reused for trial in trials),
        "steps_reused": sum(trial.steps_reused for trial in trials),
    }
    reasons = [f"{len(trials)} trials of {settings.max_train_steps} steps; {diverged} diverged."]
    if ranked:
        best = ranked[0]
        row = best_row(best.rows, settings.selection_metric)
        assert row is not None
        validation = {
            key.removeprefix("validation_"): value
            for key, value in row.items()
            if key.startswith("validation_")
        }
        outcome |= {
            "best_trial": best.trial, "best_step": row["step"], "best_validation": validation,
        }  # fmt: skip
        reasons.append(
            f"Trial {best.trial} is the best, by its checkpoint of step {row['step']}: "
            + ", ".join(
                f"validation {name.replace('_', ' ')} {value:.4g}"
                for name, value in validation.items()
            )
            + "."
        )
    else:
        reasons.append("Every trial diverged: look for a lower learning rate or a longer warmup.")
    if outcome["steps_reused"]:
        total = outcome["steps_trained"] + outcome["steps_reused"]
        reasons.append(
            f"{outcome['steps_reused']} of {total} steps were taken over from the earlier round "
            "instead of being trained again."
        )
    reasons += [diagnosis["means"], *diagnosis["caveats"]]
    return {**outcome, "reasons": reasons}
