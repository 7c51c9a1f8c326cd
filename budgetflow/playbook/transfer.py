"""From a schedule to the one for a longer run, and where the extra steps go.

The playbook, "Round 2": take the best hyperparameter configuration of round 1 and spend the extra
steps at a high learning rate. Its warning: a common pitfall is to use all the extra training steps
at too small a learning rate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from budgetflow.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Transfer:
    """A schedule carried over to a longer run.

    Attributes:
        before, after: the schedules.
        extra_steps: how much longer the run is.
        mean_relative_learning_rate: of the extra steps: what the longer run adds to the sum of the
            learning rates, per extra step and relative to the base learning rate.
        share_above_half: of the extra steps: how many more of the longer run's steps have at least
            half the base learning rate, per extra step.
        rule: the rule in a sentence.
    """

    before: Schedule
    after: Schedule
    extra_steps: int
    mean_relative_learning_rate: float
    share_above_half: float
    rule: str

    def to_json(self) -> dict[str, Any]:
        """The ``transfer`` of a round's outcome."""
        return {
            "from": self.before.to_dict(),
            "to": self.after.to_dict(),
            "extra_steps": self.extra_steps,
            "extra_steps_mean_relative_learning_rate": self.mean_relative_learning_rate,
            "extra_steps_share_above_half": self.share_above_half,
            "rule": self.rule,
        }


class NoTransferRuleError(ValueError):
    """No rule carries a schedule over to a longer run with its learning rate kept high."""


def transfer(schedule: Schedule, max_train_steps: int) -> Transfer:
    """The schedule for a run of ``max_train_steps``, by the rule for its family.

    - Linear (the playbook): warmup and the decay's length in steps stay, the constant period at the
      base learning rate is extended. The same keeps all extra steps at the base for every other
      decay that follows a constant period: 1-sqrt (Hägele et al. 2024, arXiv:2405.18392),
      polynomial, exponential, and drops, which keep their distance from the end.
    - Cosine (the playbook): the base learning rate and warmup stay, the cosine is stretched over
      the new length, as Hoffmann et al. 2022 (arXiv:2203.15556) do.
    - Constant: goes on.
    - Inverse square root: none. It is defined by the steps from the start; the extra ones come at
      its end, and it has no constant period to extend.

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
    if schedule.decay == "inverse_sqrt":
        raise NoTransferRuleError(
            "an inverse square root decay has no constant period to extend, so that its extra "
            "steps would come at its lowest learning rates. The nearest schedule with a rule keeps "
            f"the base learning rate {schedule.base_learning_rate:g} and {schedule.warmup_steps} "
            "steps of warmup, with decay = 'linear' over the last fifth (decay_fraction = 0.2)"
        )
    if schedule.decay == "cosine":
        after = dataclasses.replace(schedule, decay_steps=schedule.decay_steps + extra_steps)
        rule = "cosine: the base learning rate is kept and the cosine extended to the new length"
    else:
        after = dataclasses.replace(schedule, constant_steps=schedule.constant_steps + extra_steps)
        rule = (
            f"{schedule.decay}: warmup and the decay's length are kept and the constant period is "
            "extended"
        )
        if schedule.decay == "none":
            rule = "constant: the learning rate goes on"
    mean, share = extra_step_learning_rates(schedule, after)
    return Transfer(schedule, after, extra_steps, mean, share, rule)


def extra_step_learning_rates(before: Schedule, after: Schedule) -> tuple[float, float]:
    """Where the extra steps of a longer schedule go, relative to the base learning rate.

    Returns:
        The mean relative learning rate of the extra steps and the share of them at or above half
        the base, both as differences between the whole runs; (1.0, 1.0) if there are no extra
        steps.
    """
    extra_steps = after.total_steps - before.total_steps
    if extra_steps == 0:
        return 1.0, 1.0
    old = before.learning_rates().astype(np.float64) / before.base_learning_rate
    new = after.learning_rates().astype(np.float64) / before.base_learning_rate
    mean = (new.sum() - old.sum()) / extra_steps
    # A float32 learning rate of exactly half the base may come out a rounding error below it.
    half = 0.5 - 1e-6
    share = (np.count_nonzero(new >= half) - np.count_nonzero(old >= half)) / extra_steps
    return round(float(mean), 6), round(float(share), 6)
