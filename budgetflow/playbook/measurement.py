"""What a trial has shown so far, and what a policy can ask for next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from budgetflow.schedules import Schedule

Status = Literal["pending", "running", "complete", "stopped", "diverged"]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TrialView:
    """A trial as decisions see it.

    Attributes:
        trial: its number in the study.
        hyperparameters: config field to value.
        base_learning_rate: the highest learning rate of its schedule.
        status: "diverged" once a loss was not finite.
        step: updates made so far.
        rows: one measurement per evaluation, ascending in ``step``; keys like "train_loss" and
            "validation_error_rate", all better when lower.
        fitted_at_step_bracket: [last step known not to fit the training set, first known to fit],
            or None.
        decays_to_zero: whether its schedule's decay ends (nearly) at zero.
        steps_reused: the steps it took over from another trial instead of training them.
        schedule: its learning rates over its whole run, or None where they are not known.
    """

    trial: int
    hyperparameters: dict[str, Any]
    base_learning_rate: float
    status: Status
    step: int
    rows: Sequence[Row] = ()
    fitted_at_step_bracket: tuple[int, int] | None = None
    decays_to_zero: bool = False
    steps_reused: int = 0
    schedule: Schedule | None = None

    @property
    def fitted_at_step(self) -> int | None:
        """The first step known to fit the whole training set, or None."""
        return self.fitted_at_step_bracket[1] if self.fitted_at_step_bracket else None

    @property
    def diverged(self) -> bool:
        """Whether the trial is infeasible: its loss became infinite or NaN before it fitted."""
        return self.status == "diverged" and self.fitted_at_step is None


def best_row(rows: Sequence[Row], metric: str) -> Row | None:
    """Retrospective checkpoint selection: the row with the lowest metric, the earliest of ties.

    Rows whose metric is not finite are left out; None if no row is left.
    """
    usable = [row for row in rows if math.isfinite(row.get(metric, math.nan))]
    return min(usable, key=lambda row: (row[metric], row["step"]), default=None)


@dataclasses.dataclass(frozen=True)
class Add:
    """Decision: these trials join the study; number to hyperparameters."""

    trials: dict[int, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Advance:
    """Decision: train these trials up to (not by) a step."""

    trials: tuple[int, ...]
    to_step: int


@dataclasses.dataclass(frozen=True)
class Conclude:
    """Decision: nothing is left to train; the outcome as ``outcome.json`` holds it."""

    outcome: dict[str, Any]


Decision = Add | Advance | Conclude
