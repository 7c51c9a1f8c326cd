"""Cooldowns: a round whose points are each run at several lengths, which share their trunk."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from budgetflow.base.errors import ConfigError, shown
from budgetflow.config.schema import StudyConfig
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Decision, TrialRecord
from budgetflow.playbook.common.outcomes import TrialsOutcome
from budgetflow.playbook.rounds import policy as rounds
from budgetflow.studies.kinds.forecasts import with_forecast
from budgetflow.studies.kinds.kind import check_length
from budgetflow.studies.kinds.round import ROUND, num_points, settings
from budgetflow.studies.plan.round_trials import round_plans

if TYPE_CHECKING:
    from budgetflow.studies.study import Study


def num_trials(config: StudyConfig) -> int:
    """Every point at every length."""
    return len(config.cooldowns.length_fractions) * num_points(config)


def check(config: StudyConfig) -> None:
    """Checks that the lengths ascend to the whole run, and share their warmup.

    Raises:
        ConfigError: they do not.
    """
    check_length(config)
    fractions = config.cooldowns.length_fractions
    if fractions != tuple(sorted({*fractions})) or fractions[-1:] != (1.0,) or fractions[0] == 0:
        raise ConfigError(
            f"config.cooldowns.length_fractions = {fractions}: should ascend from above 0 to 1"
        )
    if config.schedule.warmup_fraction is not None:
        raise ConfigError(
            "config.schedule.warmup_fraction would warm up differently at every length, which then "
            "share no steps; set warmup_steps"
        )


def lengths(config: StudyConfig) -> tuple[int, ...]:
    """The lengths at which each point is run, ascending; none while they are not known.

    Raises:
        ConfigError: some are equal, or 0.
    """
    if config.max_train_steps is None:
        return ()
    fractions = config.cooldowns.length_fractions
    steps = tuple(round(fraction * config.max_train_steps) for fraction in fractions)
    if steps[0] == 0 or len({*steps}) < len(steps):
        raise ConfigError(
            f"config.cooldowns.length_fractions = {shown(fractions)} are lengths of "
            f"{shown(steps)} steps; use fewer or larger ones"
        )
    return steps


def check_branches_off(schedule: Schedule) -> None:
    """Checks that a schedule has a constant period from which cooldowns of it can branch off.

    Raises:
        ConfigError: it has none.
    """
    if not (schedule.constant_steps and schedule.decay_steps):
        raise ConfigError(
            "cooldowns are decays after a constant period, which this schedule has not; set "
            "config.schedule, as in decay = 'linear' and decay_fraction = 0.2"
        )


def decide(study: Study, trials: Sequence[TrialRecord]) -> Decision:
    """What to do next; at the end, the best of each length and what longer runs would give."""

    def outcome(asked: rounds.RoundSettings, sound: Sequence[TrialRecord]) -> TrialsOutcome:
        return with_forecast(study, sound, rounds.cooldowns_outcome(asked, sound))

    return rounds.decide(settings(study), trials, outcome)


COOLDOWNS = dataclasses.replace(
    ROUND,
    sections=ROUND.sections | {"cooldowns"},
    num_trials=num_trials,
    plans=functools.partial(round_plans, lengths=lengths, check_schedule=check_branches_off),
    decide=decide,
    derives=False,
    check=check,
    lengths=lengths,
    check_schedule=check_branches_off,
)
