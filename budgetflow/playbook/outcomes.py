"""What studies have found, typed; ``to_json`` gives what ``outcome.json`` holds.

A policy makes an outcome; what only the study knows (its fingerprint and the like, None at first)
joins it when the study is complete. Outcomes of older versions lack keys: they get the defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from budgetflow.schedules import Schedule

Regime = Literal["not_compute_bound", "compute_bound", "undecided"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedAnswer:
    """The answer of one seed's race: see the same attributes of :class:`SweepOutcome`."""

    seed: int
    status: Literal["found", "at_boundary", "not_fitted"]
    max_train_steps: int | None
    best_learning_rate: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """What a learning-rate sweep has found.

    Attributes:
        status: whether there is an answer, or why there is none.
        max_train_steps: the answer, the median over seeds: the steps to fit the training set.
        fitted_at_step_bracket: [last step known not to fit it, first known to fit].
        best_trial, best_learning_rate: of the answer; None if every trial diverged.
        learning_rates: all that were tried, ascending.
        extensions, refinements: how many of them were added outside the first grid, and between.
        seeds: the answer of each.
        fit_held: whether the fastest trial still fitted an epoch later; None where nobody looked.
        regime: SPEC's word for the workload.
        steps_trained: of all trials.
        steps_full_grid: what they would have been without a race.
        diverged: how many trials.
        suggested_max_train_steps: the next N to try where nothing fitted.
        fitted_train_loss: see :class:`budgetflow.playbook.race.SweepSettings`.
        contradicting_examples, lowest_train_errors: see there; None where nobody counted.
        not_fitted_because: what the best trial's curve looks like where nothing fitted, or
            "bad_grid".
        reasons: the evidence, in sentences.
        fingerprint: what the study's results are found on.
        selection_metric: the metric that selects, like "error_rate".
        higher_is_better: whether higher values of it are better.
        vmap_trials: how many trials at a time were vectorized, if any were.
        switched_off: the regularization and augmentation that the sweep switched off.
    """

    kind: ClassVar[str] = "lr_sweep"
    status: Literal["found", "at_boundary", "not_fitted"]
    max_train_steps: int | None
    fitted_at_step_bracket: tuple[int, int] | None
    best_trial: int | None = None
    best_learning_rate: float | None
    learning_rates: tuple[float, ...]
    extensions: int
    refinements: int = 0
    seeds: tuple[SeedAnswer, ...] = ()
    fit_held: bool | None = None
    regime: Regime
    steps_trained: int
    steps_full_grid: int
    diverged: int
    suggested_max_train_steps: int | None
    fitted_train_loss: float | None = None
    contradicting_examples: int | None = None
    lowest_train_errors: int | None = None
    not_fitted_because: str | None = None
    reasons: tuple[str, ...] = ()
    fingerprint: str | None = None
    selection_metric: str | None = None
    higher_is_better: bool | None = None
    vmap_trials: int | None = None
    switched_off: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return _to_json(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestStepDiagnosis:
    """Whether a round's length was right, judged by the trials that compete for the best result.

    Attributes:
        verdict: "undecided" where too few trials compete.
        share_in_first_10_percent, share_in_last_25_percent: of the best steps; None without any.
        suggested_max_train_steps: on the longer side, as the playbook asks when in doubt.
        suggested_schedule: of that many steps; None where there is none or no rule.
        trials: how many compete.
        in_first_10_percent, in_last_25_percent: how many of their best steps lie there.
        competing_trials, hopeless_trials: the numbers of those that compete and of the others.
        hopeless_in_first_10_percent, hopeless_in_last_25_percent: the same counts of the others.
        competes_at: the worst value of the metric with which a trial competes.
        caveats, means: sentences.
    """

    verdict: Literal["too_long", "too_short", "about_right", "undecided"]
    share_in_first_10_percent: float | None
    share_in_last_25_percent: float | None
    suggested_max_train_steps: int | None
    suggested_schedule: Schedule | None = None
    trials: int
    in_first_10_percent: int
    in_last_25_percent: int
    competing_trials: tuple[int, ...] = ()
    hopeless_trials: tuple[int, ...] = ()
    hopeless_in_first_10_percent: int = 0
    hopeless_in_last_25_percent: int = 0
    competes_at: float | None = None
    caveats: tuple[str, ...]
    means: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecaySpread:
    """How far apart schedules end that differ in nothing but their decay.

    Attributes:
        schedules: how many.
        best, worst: the metric of the best and the worst of them.
        relative: how much worse the worst is, as a fraction of the best; None if the best is 0.
        best_trial, worst_trial: the trials of these two.
        hinges_on_decay: whether they end too far apart for a length that is long enough.
        means: a sentence.
    """

    schedules: int
    best: float
    worst: float
    relative: float | None
    best_trial: int
    worst_trial: int
    hinges_on_decay: bool
    means: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundOutcome:
    """What a round has found.

    Attributes:
        max_train_steps: the length of every trial.
        trials, diverged: how many, and how many of them diverged.
        steps_trained: of all trials.
        steps_reused: those taken over, which from-scratch runs would have cost more.
        best_trial, best_step: by retrospective selection; None if every trial diverged.
        best_validation: the validation metrics of that checkpoint, by name.
        best_step_diagnosis: whether the length was right.
        decay_spread: None where no two schedules differ in nothing but their decay.
        transfer: how the best trial's schedule was carried over from an earlier study, as
            :meth:`budgetflow.playbook.transfer.Transfer.to_json` has it; None if it was not.
        reasons, fingerprint, selection_metric, higher_is_better, vmap_trials: see
            :class:`SweepOutcome`.
        best_test: the test metrics of the best checkpoint, where there is a test set.
    """

    kind: ClassVar[str] = "round"
    max_train_steps: int
    trials: int
    diverged: int
    steps_trained: int
    steps_reused: int
    best_trial: int | None
    best_step: int | None
    best_validation: dict[str, float] | None
    best_step_diagnosis: BestStepDiagnosis
    decay_spread: DecaySpread | None = None
    transfer: dict[str, Any] | None = None
    reasons: tuple[str, ...] = ()
    fingerprint: str | None = None
    selection_metric: str | None = None
    higher_is_better: bool | None = None
    vmap_trials: int | None = None
    best_test: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return _to_json(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthResult:
    """The best trial of one length: see the same attributes of :class:`RoundOutcome`."""

    length_steps: int
    best_trial: int | None
    best_step: int | None
    best_validation: dict[str, float] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CooldownsOutcome:
    """What cooldowns have found: that of a round, with ``lengths`` instead of a diagnosis.

    Attributes:
        max_train_steps: the longest length.
        lengths: the best trial of each length, ascending.
        trials, diverged, steps_trained, steps_reused, best_trial, best_step, best_validation,
            transfer, reasons, fingerprint, selection_metric, higher_is_better, vmap_trials,
            best_test: see :class:`RoundOutcome`.
    """

    kind: ClassVar[str] = "cooldowns"
    max_train_steps: int
    trials: int
    diverged: int
    steps_trained: int
    steps_reused: int
    best_trial: int | None
    best_step: int | None
    best_validation: dict[str, float] | None
    lengths: tuple[LengthResult, ...]
    transfer: dict[str, Any] | None = None
    reasons: tuple[str, ...] = ()
    fingerprint: str | None = None
    selection_metric: str | None = None
    higher_is_better: bool | None = None
    vmap_trials: int | None = None
    best_test: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return _to_json(self)


Outcome = SweepOutcome | RoundOutcome | CooldownsOutcome


def has_answer(outcome: Outcome) -> bool:
    """Whether a study found what it was to find: a sweep may end without an answer."""
    return not isinstance(outcome, SweepOutcome) or outcome.status == "found"


# What has nothing to say without a value is left out of the JSON then.
LEFT_OUT_IF_NONE = {
    "not_fitted_because",
    "fingerprint",
    "selection_metric",
    "higher_is_better",
    "vmap_trials",
    "switched_off",
    "best_test",
}
# The fields that are not JSON values themselves, and what makes them of those.
_PARTS: dict[str, Callable[[Any], Any]] = {
    "seeds": lambda seeds: tuple(_from_json(SeedAnswer, seed) for seed in seeds),
    "lengths": lambda lengths: tuple(_from_json(LengthResult, length) for length in lengths),
    "best_step_diagnosis": lambda diagnosis: _from_json(BestStepDiagnosis, diagnosis),
    "decay_spread": lambda spread: _from_json(DecaySpread, spread),
    "suggested_schedule": lambda fields: Schedule(**fields),
}


def from_json(content: dict[str, Any]) -> Outcome:
    """The outcome that ``outcome.json`` holds, of this version or an older one."""
    kinds = {kind.kind: kind for kind in (SweepOutcome, RoundOutcome, CooldownsOutcome)}
    return _from_json(kinds[content["kind"]], content)


def _from_json(kind: Callable[..., Any], content: dict[str, Any]) -> Any:
    """A dataclass of JSON values; keys that it does not know, of a later version, are left out."""
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _value(name, content[name]) for name in content if name in known})


def _value(name: str, value: Any) -> Any:
    if value is not None and name in _PARTS:
        return _PARTS[name](value)
    return tuple(value) if isinstance(value, list) else value


def _to_json(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    kind = {"kind": value.kind} if isinstance(value, Outcome) else {}
    return kind | {
        name: _to_json(field)
        for name, field in fields.items()
        if field is not None or name not in LEFT_OUT_IF_NONE
    }
