"""The record of a trial, the metric that selects, and the decisions of a policy."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from budgetflow.config.search_space import BASE_LEARNING_RATE
from budgetflow.engine.schedules import Schedule

if TYPE_CHECKING:
    from budgetflow.playbook.common.outcomes import Outcome

Status = Literal["pending", "running", "complete", "stopped", "diverged", "failed"]
# Of trials that are not trained on.
OVER: tuple[Status, ...] = ("complete", "diverged", "stopped", "failed")
Row = dict[str, Any]
# The hyperparameters that trials of any kind of study differ in.
LEARNING_RATE, SEED = BASE_LEARNING_RATE, "seed"
Role = Literal["point", "best", "rerun", "baseline", "idea"]
# The roles of trials that compare ideas, of which none is a point of the search space.
OF_IDEAS = ("baseline", "idea")
# A decay that ends below this share of the base learning rate counts as a decay to zero.
NEARLY_ZERO = 0.01
# The key of a row that was measured on the first few training examples only, which is enough for
# the order of a race: how many.
PARTIAL = "partial_train_examples"


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """A trial so far: the fields of ``trial.json``, and its measurements.

    Attributes:
        trial: its number in the study.
        hyperparameters: config field to value, as the search space named them.
        schedule: its learning rates.
        seed: of its data order, initialisation and random numbers.
        max_train_steps: its length if nothing stops it.
        reuse_key: all that its states depend on but the schedule; see
            :func:`budgetflow.studies.store.keys.state_key`.
        measurement_key: what the measurements of these states depend on; see
            :func:`budgetflow.studies.store.keys.measurement_key`.
        status: "pending", "running", "complete", "stopped", "diverged" once a loss was not finite,
            or "failed" where it could not be trained: no policy weighs such a trial.
        step: updates made so far.
        best_step: the step that retrospective selection finds so far.
        reused_from: {"study", "trial", "step"} of the trial that it continues, or None.
        not_reused_because: why it does not continue the trial that it was expected to.
        measured_anew_because: why it took over the last state of the trial that it continues, but
            none of the measurements.
        damaged: the checkpoints that were damaged when they were needed, in words; what they held
            was trained again.
        fitted_at_step_bracket: [last step known not to fit the training set, first known to fit],
            or None.
        failed_because: of one that failed, the errors.
        role: why it is in its study: a "point" of the search space; the earlier round's "best"
            setting or a "rerun" of another one; an "idea", or the "baseline" that ideas are
            compared with.
        idea: the name of the idea that it tries.
        rows: one measurement per evaluation, ascending in step, keys like "train_loss" and
            "validation_error_rate"; those up to ``reused_from``'s step are the earlier trial's, if
            it was measured in the same way.
    """

    trial: int
    hyperparameters: dict[str, Any]
    schedule: Schedule
    seed: int
    max_train_steps: int
    reuse_key: dict[str, Any] = dataclasses.field(default_factory=dict)
    measurement_key: dict[str, Any] = dataclasses.field(default_factory=dict)
    status: Status = "pending"
    step: int = 0
    best_step: int | None = None
    reused_from: dict[str, Any] | None = None
    not_reused_because: str | None = None
    measured_anew_because: str | None = None
    damaged: tuple[str, ...] = ()
    fitted_at_step_bracket: tuple[int, int] | None = None
    failed_because: str | None = None
    role: Role = "point"
    idea: str | None = None
    rows: tuple[Row, ...] = ()

    @property
    def base_learning_rate(self) -> float:
        """The highest learning rate of its schedule."""
        return self.schedule.base_learning_rate

    @property
    def setting(self) -> dict[str, Any]:
        """Its hyperparameters without the seed."""
        return {name: value for name, value in self.hyperparameters.items() if name != SEED}

    @property
    def decays_to_zero(self) -> bool:
        """Whether its schedule's decay ends (nearly) at zero."""
        end = self.schedule.end_learning_rate
        return self.schedule.family.has_steps and end < NEARLY_ZERO * self.base_learning_rate

    @property
    def best_row(self) -> Row | None:
        """The measurement at its best step; None without one."""
        # From the end, which is where most best steps are.
        return next((row for row in reversed(self.rows) if row["step"] == self.best_step), None)

    @property
    def steps_reused(self) -> int:
        """The steps it took over from another trial instead of training them."""
        return self.reused_from["step"] if self.reused_from else 0

    @property
    def fitted_at_step(self) -> int | None:
        """The first step known to fit the whole training set, or None."""
        return self.fitted_at_step_bracket[1] if self.fitted_at_step_bracket else None

    @property
    def diverged(self) -> bool:
        """Whether the trial is infeasible: its loss became infinite or NaN before it fitted."""
        return self.status == "diverged" and self.fitted_at_step is None

    @property
    def failed(self) -> bool:
        """Whether it could not be trained, which says nothing of its hyperparameters."""
        return self.status == "failed"

    def measured(self, row: Row, selection: Selection) -> TrialRecord:
        """The record after one more measurement."""
        return self._with_rows((*self.rows, row), selection, step=row["step"])

    def back_to(self, step: int, selection: Selection) -> TrialRecord:
        """The record as it was at ``step``, the last one that can be resumed from."""
        rows = tuple(row for row in self.rows if row["step"] <= step)
        bracket = self.fitted_at_step_bracket
        if bracket and bracket[1] > step:
            bracket = None
        return self._with_rows(rows, selection, step=step, fitted_at_step_bracket=bracket)

    def _with_rows(self, rows: tuple[Row, ...], selection: Selection, **fields: Any) -> TrialRecord:
        best = selection.best(rows)
        best_step = best["step"] if best else None
        return dataclasses.replace(self, rows=rows, best_step=best_step, **fields)


def by_setting(trials: Iterable[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Trials grouped by their settings, which are the keys as JSON text."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(json.dumps(trial.setting, sort_keys=True), []).append(trial)
    return groups


@dataclasses.dataclass(frozen=True)
class Selection:
    """What selects steps and trials.

    Attributes:
        key: a measurement's key, like "validation_error_rate".
        higher_is_better: whether higher values are better, as of an accuracy; else lower ones.
        examples: where the metric is the share of validation examples that are right or wrong, how
            many there are; else None.
    """

    key: str
    higher_is_better: bool = False
    examples: int | None = None

    @property
    def resolution(self) -> float:
        """The smallest step of the metric; 0 where it counts no examples."""
        return 1 / self.examples if self.examples else 0.0

    def count(self, value: float) -> int | None:
        """The number of examples that a value stands for; None where it counts none."""
        if self.examples is None or not 0 <= value <= 1:
            return None
        count = round(value * self.examples)
        # A mean over something else than examples, as tokens are, is between two counts.
        return count if abs(value * self.examples - count) < 0.01 else None

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

    def cost_of(self, trial: TrialRecord) -> float:
        """The cost at a trial's best step; infinite if it diverged."""
        best = None if trial.diverged else self.best(trial.rows)
        return self.cost(best) if best else math.inf

    def best(self, rows: Iterable[Row]) -> Row | None:
        """Retrospective checkpoint selection: the best row, the earliest of ties.

        None if no row has a finite metric.
        """
        usable = [row for row in rows if math.isfinite(self.cost(row))]
        return min(usable, key=lambda row: (self.cost(row), row["step"]), default=None)

    def ranked(self, trials: Iterable[TrialRecord]) -> list[tuple[TrialRecord, Row]]:
        """The trials that did not diverge with their best rows, best first.

        Of equally good trials the one with the lower number goes first.
        """
        with_best_rows = [
            (trial, row)
            for trial in trials
            if not (trial.diverged or trial.failed) and (row := self.best(trial.rows))
        ]
        return sorted(with_best_rows, key=lambda item: (self.cost(item[1]), item[0].trial))

    def worse_by(self, value: float, than: float) -> float:
        """How much worse one value of the metric is than another, as a fraction of the other.

        Negative if it is better; infinite, of either sign, if the other is 0.
        """
        worse = than - value if self.higher_is_better else value - than
        if worse == 0:
            return 0.0
        return worse / abs(than) if than else math.copysign(math.inf, worse)


@dataclasses.dataclass(frozen=True)
class Add:
    """Decision: these trials join the study; number to hyperparameters."""

    trials: dict[int, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Advance:
    """Decision: train these trials up to (not by) a step.

    Attributes:
        trials: their numbers.
        to_step: the step; a trial that is shorter ends at its own length.
        unconditional: whether nothing that some of them show changes what becomes of the others;
            else there is another decision after as many as run at the same time.
    """

    trials: tuple[int, ...]
    to_step: int
    unconditional: bool = False


@dataclasses.dataclass(frozen=True)
class Conclude:
    """Decision: nothing is left to train; what the study has found."""

    outcome: Outcome


Decision = Add | Advance | Conclude
