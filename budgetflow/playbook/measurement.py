"""What a trial has shown so far, and what a policy can ask for next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
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
            "validation_error_rate".
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


@dataclasses.dataclass(frozen=True)
class Selection:
    """What selects steps and trials.

    Attributes:
        key: a measurement's key, like "validation_error_rate".
        higher_is_better: whether higher values are better, as of an accuracy; else lower ones.
    """

    key: str
    higher_is_better: bool = False

    @property
    def words(self) -> str:
        """The key in words."""
        return self.key.replace("_", " ")

    def cost(self, row: Row) -> float:
        """The metric with its sign such that lower is better; infinite if missing or not finite."""
        value = row.get(self.key, math.nan)
        if not math.isfinite(value):
            return math.inf
        return -value if self.higher_is_better else value

    def best(self, rows: Iterable[Row]) -> Row | None:
        """Retrospective checkpoint selection: the best row, the earliest of ties.

        None if no row has a finite metric.
        """
        usable = [row for row in rows if math.isfinite(self.cost(row))]
        return min(usable, key=lambda row: (self.cost(row), row["step"]), default=None)

    def ranked(self, trials: Iterable[TrialView]) -> list[tuple[TrialView, Row]]:
        """The trials that did not diverge with their best rows, best first.

        Of equally good trials the one with the lower number goes first.
        """
        found = [
            (trial, row)
            for trial in trials
            if not trial.diverged and (row := self.best(trial.rows))
        ]
        return sorted(found, key=lambda item: (self.cost(item[1]), item[0].trial))

    def worse_by(self, value: float, than: float) -> float:
        """How much worse one value of the metric is than another, as a fraction of the other.

        Negative if it is better; infinite, of either sign, if the other is 0.
        """
        worse = than - value if self.higher_is_better else value - than
        if worse == 0:
            return 0.0
        return worse / abs(than) if than else math.copysign(math.inf, worse)


def in_digits(value: float | None) -> str:
    """A figure for people, to four digits; "undefined" if it is none (JSON's null) or NaN."""
    return "undefined" if value is None or math.isnan(value) else f"{value:.4g}"


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
