"""One round: many trials of one length, the best by retrospective selection, and what it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from budgetflow.playbook.common.measurement import (
    Add,
    Advance,
    Conclude,
    Decision,
    Selection,
    TrialRecord,
)
from budgetflow.playbook.common.outcomes import (
    BestStepDiagnosis,
    DecaySpread,
    Outcome,
    RoundOutcome,
)
from budgetflow.playbook.common.shared_steps import Branch
from budgetflow.playbook.rounds.best_setting import winner_sentences
from budgetflow.playbook.rounds.best_step import Diagnosis, diagnose
from budgetflow.playbook.rounds.decay_spread import DecayEnds, decay_spread
from budgetflow.playbook.rounds.words import (
    decay_spread_means,
    diagnosis_caveats,
    diagnosis_means,
    round_reasons,
)


class Planned(Protocol):
    """What a policy has to know of a trial before it runs."""

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Config field to value."""

    @property
    def length_steps(self) -> int:
        """The updates of its run."""

    @property
    def branch(self) -> Branch | None:
        """The trial of the same study that it continues."""


@dataclasses.dataclass(frozen=True)
class RoundSettings:
    """What a round is asked to do.

    Attributes:
        trials: its trials, by number.
        max_train_steps: the length of every one of them (never a hyperparameter), or of the longest
            of cooldowns.
        selection: what selects steps and trials.
    """

    trials: Sequence[Planned]
    max_train_steps: int
    selection: Selection


MakeOutcome = Callable[[RoundSettings, Sequence[TrialRecord]], Outcome]


def decide(
    settings: RoundSettings, trials: Sequence[TrialRecord], outcome: MakeOutcome
) -> Decision:
    """What to do next: every trial runs to the end, after the one that it continues.

    One that took over all its states is yet to be measured, where that was done otherwise.
    """
    planned = settings.trials
    running = [
        trial
        for trial in trials
        if (trial.step < planned[trial.trial].length_steps or not trial.rows)
        and trial.status not in ("diverged", "failed")
    ]
    known = {trial.trial for trial in trials}
    over = known - {trial.trial for trial in running}
    ready = {
        number: plan.hyperparameters
        for number, plan in enumerate(planned)
        if number not in known and (plan.branch is None or plan.branch.trial in over)
    }
    if ready:
        return Add(ready)
    if running:
        longest = max(planned[trial.trial].length_steps for trial in running)
        return Advance(tuple(t.trial for t in running), longest, unconditional=True)
    return Conclude(outcome(settings, [trial for trial in trials if not trial.failed]))


def outcome(settings: RoundSettings, trials: Sequence[TrialRecord]) -> RoundOutcome:
    """The outcome of a round."""
    selection = settings.selection
    diagnosis = diagnose(trials, settings.max_train_steps, selection)
    ends = decay_spread(trials, selection)
    found = RoundOutcome(
        **in_common(settings, trials),
        best_step_diagnosis=_diagnosis(diagnosis, selection),
        decay_spread=_spread(ends, selection) if ends else None,
    )
    beside = tuple(winner_sentences(trials, selection))
    return found.with_reasons(round_reasons(found, beside))


def in_common(settings: RoundSettings, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """The fields that an outcome of cooldowns shares with that of a round."""
    return {
        "max_train_steps": settings.max_train_steps,
        "trials": len(trials),
        "diverged": sum(trial.diverged for trial in trials),
        "steps_trained": sum(trial.step - trial.steps_reused for trial in trials),
        "steps_reused": sum(trial.steps_reused for trial in trials),
        **best_fields(settings.selection, trials),
    }


def best_fields(selection: Selection, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """The fields of the best of some trials, all None if every trial diverged."""
    ranked = selection.ranked(trials)
    if not ranked:
        return dict.fromkeys(("best_trial", "best_step", "best_validation"))
    (best, row), prefix = ranked[0], "validation_"
    metrics = {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
    return {"best_trial": best.trial, "best_step": row["step"], "best_validation": metrics}


def _diagnosis(found: Diagnosis, selection: Selection) -> BestStepDiagnosis:
    """A diagnosis as an outcome holds it, with its sentences."""
    competing, hopeless = (
        tuple(sorted(trial.trial for trial, _ in chosen))
        for chosen in (found.competition.competing, found.competition.hopeless)
    )
    count = len(competing)
    return BestStepDiagnosis(
        verdict=found.verdict,
        share_in_first_10_percent=found.in_first / count if count else None,
        share_in_last_25_percent=found.in_last / count if count else None,
        suggested_max_train_steps=found.suggested_max_train_steps,
        suggested_schedule=found.suggested_schedule,
        trials=count,
        in_first_10_percent=found.in_first,
        in_last_25_percent=found.in_last,
        competing_trials=competing,
        hopeless_trials=hopeless,
        hopeless_in_first_10_percent=found.hopeless_in_first,
        hopeless_in_last_25_percent=found.hopeless_in_last,
        competes_at=found.competition.threshold,
        caveats=tuple(diagnosis_caveats(found)),
        means=diagnosis_means(found, selection),
    )


def _spread(found: DecayEnds, selection: Selection) -> DecaySpread:
    """The ends of schedules as an outcome holds them, with a sentence."""
    best, worst = found.ends[0], found.ends[-1]
    return DecaySpread(
        schedules=len(found.ends),
        best=best.value,
        worst=worst.value,
        relative=found.worse_by if best.value else None,
        best_trial=best.trial,
        worst_trial=worst.trial,
        hinges_on_decay=found.hinges_on_decay,
        means=decay_spread_means(found, selection),
    )
