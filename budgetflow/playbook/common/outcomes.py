"""The outcomes of studies; ``to_json`` gives what ``outcome.json`` holds.

A policy makes an outcome. Fields that only the study knows, such as its fingerprint, are None until
the study is complete. Keys that outcomes of older versions lack get their defaults.

A kind of study of your own makes an :class:`Outcome`, or a subclass of one of those here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic

from budgetflow.base.errors import ConfigError
from budgetflow.base.import_path import import_object, is_import_path
from budgetflow.playbook.budget.planner import PlannedRound
from budgetflow.playbook.common.reasons import (
    Reason,
    Sentence,
    reasons_from_json,
    reasons_of,
    reasons_to_json,
)
from budgetflow.playbook.derived.earlier_choice import ChoiceVerdict
from budgetflow.playbook.derived.ideas import IdeaResult
from budgetflow.playbook.derived.search_space import CarriedField
from budgetflow.playbook.forecasts.scored import Receipt
from budgetflow.playbook.forecasts.study_forecast import StudyForecast
from budgetflow.playbook.rounds.best_step import BestStepDiagnosis
from budgetflow.playbook.rounds.decay_spread import DecaySpread

Regime = Literal["not_compute_bound", "compute_bound", "undecided"]


def _with_nans(values: Any) -> Any:
    """Metrics with NaN for null, as JSON has it."""
    return {k: math.nan if v is None else v for k, v in values.items()} if values else values


# By name, like "error_rate".
Metrics = Annotated[dict[str, float], pydantic.BeforeValidator(_with_nans)]
# Keys omitted from the JSON when their value is None.
LEFT_OUT_IF_NONE = {
    "not_fitted_because",
    "fingerprint",
    "selection_metric",
    "higher_is_better",
    "switched_off",
    "failed",
    "queue",
    "best_test",
    "at_edge",
    "carried_over",
    "held",
    "ideas",
    "plan",
    "forecast",
    "receipts",
}


# Import paths of the outcomes whose kind is a name; any other has its import path as its kind.
NAMED = {
    "lr_sweep": f"{__name__}.SweepOutcome",
    "round": f"{__name__}.RoundOutcome",
    "cooldowns": f"{__name__}.CooldownsOutcome",
    "comparison": "budgetflow.playbook.comparison.outcome.ComparisonOutcome",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Queue:
    """Where the trials of a study ran that were handed out to the nodes of a cluster.

    Attributes:
        nodes: node to the numbers of the trials that it had a part in.
        restarts: how often a trial was taken up anew, elsewhere or after an error of its own.
        steps_trained_twice: those after its last save each time, which were trained again.
    """

    nodes: dict[str, list[int]]
    restarts: int
    steps_trained_twice: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a study of any kind.

    Attributes:
        kind: the name of the kind of study; the import path of the class for one of your own.
        max_train_steps: the length that was found, or that the trials had.
        best_trial: its number; None if every trial diverged.
        steps_trained: of all trials.
        diverged: how many trials.
        reasons: the evidence; sentences given as plain text become reasons that are not loud.
        fingerprint: what the study's results are found on.
        selection_metric: the metric that selects, like "error_rate".
        higher_is_better: whether higher values of it are better.
        switched_off: the regularization and augmentation that the study switched off.
        failed: the numbers of the trials that could not be trained, which nothing here weighs.
        queue: where its trials ran, where that was on a cluster.
    """

    kind: ClassVar[str]
    max_train_steps: int | None
    best_trial: int | None = None
    steps_trained: int
    diverged: int = 0
    reasons: tuple[Reason, ...] = ()
    fingerprint: str | None = None
    selection_metric: str | None = None
    higher_is_better: bool | None = None
    switched_off: tuple[str, ...] | None = None
    failed: tuple[int, ...] | None = None
    queue: Queue | None = None

    def __init_subclass__(cls) -> None:
        """Names the kind of a class by its import path, unless it has a name in :data:`NAMED`.

        Raises:
            TypeError: it has another name, by which what it wrote would not be read as it.
        """
        path = f"{cls.__module__}.{cls.__qualname__}"
        cls.kind = vars(cls).get("kind", path)
        if NAMED.get(cls.kind, cls.kind) != path:
            raise TypeError(f"{path}: kind = {cls.kind!r} should be left out, or a name in NAMED")

    def __post_init__(self) -> None:
        object.__setattr__(self, "reasons", reasons_of(self.reasons))

    def with_reasons(self, sentences: Iterable[Sentence]) -> Self:
        """The outcome with more evidence, after what it has."""
        return dataclasses.replace(self, reasons=(*self.reasons, *reasons_of(sentences)))

    @property
    def has_answer(self) -> bool:
        """Whether the study found what it was to find: a sweep may end without an answer."""
        return True

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {"kind": self.kind, **_to_json(self), **reasons_to_json(self.reasons)}


Outcome.kind = f"{Outcome.__module__}.{Outcome.__qualname__}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedAnswer:
    """The answer of one seed's race: see the same attributes of :class:`SweepOutcome`."""

    seed: int
    status: Literal["found", "at_boundary", "not_fitted"]
    max_train_steps: int | None
    best_learning_rate: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOutcome(Outcome):
    """What a learning-rate sweep has found.

    Its ``max_train_steps`` is the answer, the median over seeds: the steps to fit the training set.

    Attributes:
        status: whether there is an answer, or why there is none.
        fitted_at_step_bracket: [last step known not to fit it, first known to fit].
        best_learning_rate: of the answer; None if every trial diverged.
        learning_rates: all that were tried, ascending.
        extensions, refinements: how many of them were added outside the first grid, and between.
        seeds: the answer of each.
        fit_held: whether the fastest trial still fitted an epoch later; None where nobody looked.
        regime: SPEC's word for the workload.
        steps_full_grid: what the steps would have been without a race.
        suggested_max_train_steps: the next N to try where nothing fitted.
        fitted_train_loss: see :class:`budgetflow.playbook.sweep.race.SweepSettings`.
        contradicting_examples, lowest_train_errors: see there; None where nobody counted.
        not_fitted_because: what the best trial's curve looks like where nothing fitted, or
            "bad_grid".
    """

    kind: ClassVar[str] = "lr_sweep"
    status: Literal["found", "at_boundary", "not_fitted"]
    fitted_at_step_bracket: tuple[int, int] | None
    best_learning_rate: float | None
    learning_rates: tuple[float, ...]
    extensions: int
    refinements: int = 0
    seeds: tuple[SeedAnswer, ...] = ()
    fit_held: bool | None = None
    regime: Regime
    steps_full_grid: int
    suggested_max_train_steps: int | None
    fitted_train_loss: float | None = None
    contradicting_examples: int | None = None
    lowest_train_errors: int | None = None
    not_fitted_because: str | None = None

    @property
    def has_answer(self) -> bool:
        """Whether it found the steps to fit the training set."""
        return self.status == "found"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialsOutcome(Outcome):
    """The outcome of a study whose trials all run to their ends.

    Its ``max_train_steps`` is the length of every trial, or of the longest.

    Attributes:
        trials: how many.
        steps_reused: those taken over, which from-scratch runs would have cost more.
        best_step: by retrospective selection; None if every trial diverged.
        best_validation: the validation metrics of that checkpoint.
        transfer: how the best trial's schedule was carried over from an earlier study, as
            :meth:`budgetflow.playbook.common.transfer.Transfer.to_json` has it; None if it was not.
        best_test: the test metrics of the best checkpoint, where there is a test set.
        forecast: what longer runs would give; None if every trial diverged.
        receipts: how what the study before forecast for these lengths turned out.
    """

    trials: int
    steps_reused: int
    best_step: int | None
    best_validation: Metrics | None
    transfer: dict[str, Any] | None = None
    best_test: Metrics | None = None
    forecast: StudyForecast | None = None
    receipts: tuple[Receipt, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundOutcome(TrialsOutcome):
    """What a round has found.

    Attributes:
        best_step_diagnosis: whether the length was right.
        decay_spread: None where no two schedules differ in nothing but their decay.
        at_edge: the hyperparameters of the best trial that lie at an end of what was searched, and
            which end; None where the search space was not the config's.
        plan: the rounds that it is the last of, by the planner.
        carried_over: where it is derived from an earlier round, what became of each of that one's
            hyperparameters.
        held: whether that round's choice held; None where nothing of it was run again.
        ideas: the ledger of the ideas that entered.
    """

    kind: ClassVar[str] = "round"
    best_step_diagnosis: BestStepDiagnosis
    decay_spread: DecaySpread | None = None
    at_edge: dict[str, Literal["low", "high"]] | None = None
    plan: tuple[PlannedRound, ...] | None = None
    carried_over: tuple[CarriedField, ...] | None = None
    held: ChoiceVerdict | None = None
    ideas: tuple[IdeaResult, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthResult:
    """The best trial of one length: see the same attributes of :class:`TrialsOutcome`."""

    length_steps: int
    best_trial: int | None
    best_step: int | None
    best_validation: Metrics | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CooldownsOutcome(TrialsOutcome):
    """What cooldowns have found.

    Attributes:
        lengths: the best trial of each length, ascending.
    """

    kind: ClassVar[str] = "cooldowns"
    lengths: tuple[LengthResult, ...]


def from_json(content: dict[str, Any]) -> Outcome:
    """The outcome that ``outcome.json`` holds, of this version or an older one.

    Keys that its class does not know are left out. Where a class of one's own cannot be imported,
    it is an :class:`Outcome`.
    """
    content = content | {"reasons": reasons_from_json(content)}
    return _reader(content["kind"]).validate_python(content)


@functools.cache  # Of the kinds of study, which are few; slow to make.
def _reader(kind: str) -> pydantic.TypeAdapter[Outcome]:
    outcome_class, path = Outcome, NAMED.get(kind, kind)
    if is_import_path(path):
        with contextlib.suppress(ConfigError):  # the study was run elsewhere
            outcome_class = import_object(path, "kind", of_type=type)
    return pydantic.TypeAdapter(outcome_class)


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {
        name: _to_json(field)
        for name, field in fields.items()
        if field is not None or name not in LEFT_OUT_IF_NONE
    }
