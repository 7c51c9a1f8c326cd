"""One round: many trials of one length, the best by retrospective selection, and what it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import (
    Add,
    Advance,
    Conclude,
    Decision,
    Selection,
    TrialRecord,
)
from budgetflow.playbook.common.outcomes import (
    CooldownsOutcome,
    LengthResult,
    Outcome,
    RoundOutcome,
)
from budgetflow.playbook.common.shared_steps import Branch
from budgetflow.playbook.rounds.best_step import diagnose
from budgetflow.playbook.rounds.decay_spread import decay_spread
from budgetflow.playbook.rounds.words import (
    cooldowns_reasons,
    explained,
    round_reasons,
    spread_explained,
    winner_sentences,
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
    begun = {trial.trial for trial in trials}
    over = begun - {trial.trial for trial in running}
    ready = {
        number: plan.hyperparameters
        for number, plan in enumerate(planned)
        if number not in begun and (plan.branch is None or plan.branch.trial in over)
    }
    if ready:
        return Add(ready)
    if running:
        longest = max(planned[trial.trial].length_steps for trial in running)
        return Advance(tuple(t.trial for t in running), longest, unconditional=True)
    return Conclude(outcome(settings, [trial for trial in trials if not trial.failed]))


def outcome(settings: RoundSettings, trials: Sequence[TrialRecord]) -> RoundOutcome:
    """The outcome of a round."""
    selection, length = settings.selection, settings.max_train_steps
    competition = compete(trials, selection)
    diagnosis = diagnose(competition, length)
    spread = decay_spread(trials, selection, diagnosis.competing_trials)
    concluded = RoundOutcome(
        **in_common(settings, trials),
        best_step_diagnosis=explained(diagnosis, competition, selection, length),
        decay_spread=spread and spread_explained(spread, trials, selection),
    )
    return concluded.with_reasons(round_reasons(concluded, winner_sentences(trials, selection)))


def cooldowns_outcome(settings: RoundSettings, trials: Sequence[TrialRecord]) -> CooldownsOutcome:
    """The outcome of cooldowns: the best trial of each length, and of all.

    Until its decay begins, a shorter run is the beginning of a longer one. So the answers for
    lengths T, 2 T and 4 T cost the trunk of the longest and the decays (Hägele et al. 2024,
    arXiv:2405.18392).
    """
    lengths = []
    for length in sorted({planned.length_steps for planned in settings.trials}):
        of_length = [t for t in trials if settings.trials[t.trial].length_steps == length]
        best = best_fields(settings.selection, of_length)
        lengths.append(LengthResult(length_steps=length, **best))
    concluded = CooldownsOutcome(**in_common(settings, trials), lengths=tuple(lengths))
    return concluded.with_reasons(cooldowns_reasons(concluded, settings.selection))


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
