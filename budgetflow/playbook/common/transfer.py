"""From a schedule to the one for a longer run, and where the extra steps go.

The playbook, "Round 2": take the best hyperparameter configuration of round 1 and spend the extra
steps at a high learning rate. Its warning: a common pitfall is to use all the extra training steps
at too small a learning rate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from budgetflow.engine.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Transfer:
    """A schedule carried over to a longer run, and the same stretched for comparison.

    Attributes:
        before, after: the schedules.
        extra_steps: how much longer the run is.
        mean_relative_learning_rate: of the extra steps: what the longer run adds to the sum of the
            learning rates, per extra step and relative to the base learning rate.
        share_above_half: of the extra steps: how many more of the longer run's steps have at least
            half the base learning rate, per extra step.
        rule: the rule in a sentence.
        stretched: the naive alternative, by :func:`stretch`.
        stretched_mean_relative_learning_rate, stretched_share_above_half: the same two of it.
    """

    before: Schedule
    after: Schedule
    extra_steps: int
    mean_relative_learning_rate: float
    share_above_half: float
    rule: str
    stretched: Schedule
    stretched_mean_relative_learning_rate: float
    stretched_share_above_half: float

    def to_json(self) -> dict[str, Any]:
        """The ``transfer`` of a round's outcome."""
        return {
            "from": self.before.to_dict(),
            "to": self.after.to_dict(),
            "extra_steps": self.extra_steps,
            "extra_steps_mean_relative_learning_rate": self.mean_relative_learning_rate,
            "extra_steps_share_above_half": self.share_above_half,
            "rule": self.rule,
            "stretched": {
                "to": self.stretched.to_dict(),
                "extra_steps_mean_relative_learning_rate": (
                    self.stretched_mean_relative_learning_rate
                ),
                "extra_steps_share_above_half": self.stretched_share_above_half,
            },
        }

    def is_pitfall(self, threshold: float) -> bool:
        """Whether it is the playbook's pitfall: the extra steps have less than ``threshold``.

        Their mean learning rate can be below 0, where a longer run has less of the base learning
        rate than the shorter one; a threshold of 0 never warns.
        """
        return threshold != 0 and self.mean_relative_learning_rate < threshold


class NoTransferRuleError(ValueError):
    """No rule carries a schedule over to a longer run with its learning rate kept high."""


def transfer(schedule: Schedule, max_train_steps: int) -> Transfer:
    """The schedule for a run of ``max_train_steps``, by the rule for its family.

    Warmup stays in all of them: its steps and the learning rate that it starts from.

    - Linear (the playbook): the decay's length in steps stays too, the constant period at the base
      learning rate is extended. The same keeps all extra steps at the base for every other decay:
      cosine and 1-sqrt after a constant period (warmup-stable-decay: Hägele et al. 2024,
      arXiv:2405.18392), polynomial, exponential, and drops and pieces, which keep their distance
      from the end.
    - Cosine without a constant period (the playbook): the base learning rate stays, the cosine is
      stretched over the new length, as Hoffmann et al. 2022 (arXiv:2203.15556) do.
    - Constant: goes on.
    - Inverse square root: none. It is defined by the steps from the start; the extra ones come at
      its end, and it has no constant period to extend.
    - A function of one's own: none. What it would be in a longer run only its author knows.

    Which rule is a family's own stands with the rest of it, in :mod:`budgetflow.engine.decays`.

    Raises:
        NoTransferRuleError: there is no rule; the message offers the nearest schedule with one.
        ValueError: the new length is shorter than the old one.
    """
    extra_steps = max_train_steps - schedule.total_steps
    if extra_steps < 0:
        raise ValueError(
            f"a schedule of {schedule.total_steps} steps cannot be carried over to fewer "
            f"({max_train_steps})"
        )
    rule = schedule.family.lengthen(schedule)
    if rule.grows is None:
        raise NoTransferRuleError(f"{rule.words}. {_nearest_with_a_rule(schedule)}")
    grown: dict[str, Any] = {rule.grows: getattr(schedule, rule.grows) + extra_steps}
    return compare(schedule, dataclasses.replace(schedule, **grown), rule.words)


def compare(before: Schedule, after: Schedule, rule: str) -> Transfer:
    """Where the extra steps of a longer schedule go, however it was made."""
    stretched = stretch(before, after.total_steps)
    mean, share = extra_step_learning_rates(before, after)
    stretched_mean, stretched_share = extra_step_learning_rates(before, stretched)
    return Transfer(
        before=before,
        after=after,
        extra_steps=after.total_steps - before.total_steps,
        mean_relative_learning_rate=mean,
        share_above_half=share,
        rule=rule,
        stretched=stretched,
        stretched_mean_relative_learning_rate=stretched_mean,
        stretched_share_above_half=stretched_share,
    )


def stretch(schedule: Schedule, max_train_steps: int) -> Schedule:
    """A schedule with all its lengths in proportion to another length of the run, longer or not.

    The naive way to a longer run, for comparison. An inverse square root keeps its timescale, and a
    function of one's own goes on as it does.
    """
    factor = max_train_steps / schedule.total_steps

    def ends_at(step: int) -> int:
        """Where a step goes; rounding ends, not lengths, makes these add up."""
        return round(factor * step)

    warmup_end, decay_end = schedule.warmup_steps, schedule.total_steps - schedule.final_steps
    starts = [0, warmup_end, schedule.decay_start_step, decay_end, schedule.total_steps]
    lengths = np.diff([ends_at(step) for step in starts]).tolist()
    if schedule.decay_steps and lengths[2] == 0:  # rounded away
        lengths[lengths.index(max(lengths))] -= 1
        lengths[2] = 1
    names = ("warmup_steps", "constant_steps", "decay_steps", "final_steps")
    stretched: dict[str, Any] = dict(zip(names, lengths, strict=True))
    if points := schedule.family.points:
        start = schedule.decay_start_step
        steps = [ends_at(start + step) - ends_at(start) for step in points.steps(schedule)]
        stretched[f"{points.name}_steps"] = points.stretched(steps)
    return dataclasses.replace(schedule, **stretched)


def extra_step_learning_rates(before: Schedule, after: Schedule) -> tuple[float, float]:
    """Where the extra steps of a longer schedule go, relative to the base learning rate.

    Returns:
        The mean relative learning rate of the extra steps and the share of them at or above half
        the base (each schedule's own), both as differences between the whole runs; (1.0, 1.0) if
        there are no extra steps.
    """
    extra_steps = after.total_steps - before.total_steps
    if extra_steps == 0:
        return 1.0, 1.0
    old = before.learning_rates().astype(np.float64) / before.base_learning_rate
    new = after.learning_rates().astype(np.float64) / after.base_learning_rate
    mean = (new.sum() - old.sum()) / extra_steps
    # A float32 learning rate of exactly half the base may come out a rounding error below it.
    half = 0.5 - 1e-6
    share = (np.count_nonzero(new >= half) - np.count_nonzero(old >= half)) / extra_steps
    return round(float(mean), 6), round(float(share), 6)


def _nearest_with_a_rule(schedule: Schedule) -> str:
    return (
        "The nearest schedule with a rule keeps the base learning rate "
        f"{schedule.base_learning_rate:g} and {schedule.warmup_steps} steps of warmup, with decay "
        "= 'linear' over the last fifth (set config.schedule: warmup_steps = "
        f"{schedule.warmup_steps}, decay = 'linear', decay_fraction = 0.2)"
    )
