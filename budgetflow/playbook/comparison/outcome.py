"""The outcome of a comparison of two configurations."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from budgetflow.playbook.common.outcomes import Outcome
from budgetflow.playbook.comparison.direction import Change
from budgetflow.playbook.comparison.gradient_noise import NoiseScale

# Fewer seeds say nothing about the spread between them.
MIN_SEEDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedSteps:
    """One seed's race on one side.

    Attributes:
        seed: the seed.
        status: as of :class:`budgetflow.playbook.common.outcomes.SeedAnswer`; or "too_early" if a
            trial got there before its first evaluation, so that nobody knows in how many steps.
        steps: to the training loss, of its fastest trial; None unless found.
        learning_rate, trial: of that trial; of the best one where none got there.
    """

    seed: int
    status: Literal["found", "at_boundary", "not_fitted", "too_early"]
    steps: float | None
    learning_rate: float | None
    trial: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """The configuration with or without the change.

    Attributes:
        seeds: each one's race.
        median_steps: of the seeds that got there; None if none did.
        noise_scale: its gradient-noise scale over the fastest trials, once it is measured.
    """

    seeds: tuple[SeedSteps, ...]
    median_steps: float | None
    noise_scale: NoiseScale | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonOutcome(Outcome):
    """What a comparison has found. Its ``max_train_steps`` is the most that a trial could take.

    Attributes:
        status: whether there is a factor.
        changes: what differs.
        train_loss: the training loss that was to be reached; None for a perfect fit.
        unchanged, changed: the two sides.
        steps_factor: steps with the change over steps without it; None if it cannot be told.
        steps_factor_low, steps_factor_high: its 95 % interval.
        direction: "more" or "fewer" steps where the interval lies on one side of 1, else None.
        predicted_steps_factor: what the noise scales predict
            (:func:`budgetflow.playbook.comparison.policy.predicted_factor`); None if they cannot.
        predicted_steps_factor_low, predicted_steps_factor_high: from the error of the noise scales.
        steps_rerun: trained again, to measure the noise scales.
    """

    kind: ClassVar[str] = "comparison"
    status: Literal["measured", "cannot_be_told"]
    changes: tuple[Change, ...]
    train_loss: float | None
    unchanged: Side
    changed: Side
    steps_factor: float | None = None
    steps_factor_low: float | None = None
    steps_factor_high: float | None = None
    direction: Literal["more", "fewer"] | None = None
    predicted_steps_factor: float | None = None
    predicted_steps_factor_low: float | None = None
    predicted_steps_factor_high: float | None = None
    steps_rerun: int = 0

    @property
    def has_answer(self) -> bool:
        """Whether it found the factor."""
        return self.status == "measured"
