"""One round: many trials of one length, the best by retrospective selection, and what it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from budgetflow.playbook.best_step import diagnose
from budgetflow.playbook.decay_spread import decay_spread
from budgetflow.playbook.measurement import (
    Add,
    Advance,
    Conclude,
    Decision,
    Row,
    Selection,
    TrialView,
    in_digits,
)
from budgetflow.playbook.sharing import Branch


@dataclasses.dataclass(frozen=True)
class PlannedTrial:
    """A trial of a round.

    Attributes:
        hyperparameters: config field to value.
        length_steps: the updates of its run.
        branch: the trial of the same study that it continues, or None.
    """

    hyperparameters: dict[str, Any]
    length_steps: int
    branch: Branch | None = None


@dataclasses.dataclass(frozen=True)
class RoundSettings:
    """What a round is asked to do.

    Attributes:
        trials: its trials, by number.
        max_train_steps: the length of every one of them (never a hyperparameter), or of the longest
            of cooldowns.
        selection: what selects steps and trials.
    """

    trials: tuple[PlannedTrial, ...]
    max_train_steps: int
    selection: Selection


Outcome = Callable[[RoundSettings, Sequence[TrialView]], dict[str, Any]]


def decide(settings: RoundSettings, trials: Sequence[TrialView], outcome: Outcome) -> Decision:
    """What to do next: every trial runs to the end, after the one that it continues."""
    planned = settings.trials
    running = [
        trial for trial in trials
        if trial.step < planned[trial.trial].length_steps and trial.status != "diverged"
    ]  # fmt: skip
    over = {trial.trial for trial in trials} - {trial.trial for trial in running}
    known = {trial.trial for trial in trials}
    ready = {
        number: plan.hyperparameters
        for number, plan in enumerate(planned)
        if number not in known and (plan.branch is None or plan.branch.trial in over)
    }
    if ready:
        return Add(ready)
    if running:
        to_step = min(planned[trial.trial].length_steps for trial in running)
        together = [t.trial for t in running if planned[t.trial].length_steps == to_step]
        return Advance(tuple(together), to_step)
    return Conclude(outcome(settings, trials))


def outcome(settings: RoundSettings, trials: Sequence[TrialView]) -> dict[str, Any]:
    """The outcome of a round, as ``outcome.json`` holds it."""
    diagnosis = diagnose(trials, settings.max_train_steps, settings.selection)
    spread = decay_spread(trials, settings.selection)
    found, reasons = best_trial(settings, trials)
    return {
        "kind": "round",
        "max_train_steps": settings.max_train_steps,
        **ledger(trials),
        **found,
        "best_step_diagnosis": diagnosis,
        "decay_spread": spread,
        "transfer": None,
        "reasons": [
            f"{len(trials)} trials of {settings.max_train_steps} steps; "
            f"{sum(trial.diverged for trial in trials)} diverged.",
            *reasons,
            *ledger_reasons(trials),
            diagnosis["means"],
            *diagnosis["caveats"],
            *([spread["means"]] if spread else []),
        ],
    }


def ledger(trials: Sequence[TrialView]) -> dict[str, int]:
    """How many trials and steps: those reused are what from-scratch runs would have cost more."""
    return {
        "trials": len(trials),
        "diverged": sum(trial.diverged for trial in trials),
        "steps_trained": sum(trial.step - trial.steps_reused for trial in trials),
        "steps_reused": sum(trial.steps_reused for trial in trials),
    }


def ledger_reasons(trials: Sequence[TrialView]) -> list[str]:
    """What was not trained again, in a sentence, if anything was not."""
    counts = ledger(trials)
    if not (reused := counts["steps_reused"]):
        return []
    total = counts["steps_trained"] + reused
    return [
        f"{reused} of {total} steps ({reused / total:.0%}) were taken over from other trials, bit "
        "for bit, instead of being trained again."
    ]


def best_trial(
    settings: RoundSettings, trials: Sequence[TrialView]
) -> tuple[dict[str, Any], list[str]]:
    """The best trial by retrospective selection: outcome fields and a sentence."""
    ranked = settings.selection.ranked(trials)
    if not ranked:
        nothing = {"best_trial": None, "best_step": None, "best_validation": None}
        return nothing, ["Every trial diverged: look for a lower learning rate or a longer warmup."]
    best, row = ranked[0]
    metrics = validation(row)
    shown = (f"validation {k.replace('_', ' ')} {in_digits(v)}" for k, v in metrics.items())
    found = {"best_trial": best.trial, "best_step": row["step"], "best_validation": metrics}
    return found, [
        f"Trial {best.trial} is the best, by its checkpoint of step {row['step']}: "
        f"{', '.join(shown)}."
    ]


def validation(row: Row) -> dict[str, float]:
    """The validation metrics of a measurement, by name."""
    prefix = "validation_"
    return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
