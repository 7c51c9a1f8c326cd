"""Forecasts scored by what came: a :class:`Receipt` for each that a longer round has tested."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import pydantic

from budgetflow.playbook.common.measurement import Selection, TrialRecord
from budgetflow.playbook.forecasts.expected import Expected, wider_after
from budgetflow.playbook.forecasts.study_forecast import LOSS, StudyForecast

# JSON has null for what is no number.
_Figure = Annotated[float, pydantic.BeforeValidator(lambda v: math.nan if v is None else v)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Receipt:
    """A forecast scored by what came.

    Attributes:
        study: the study that made the forecast.
        fingerprint: of that study.
        trial: its trial whose setting and seed the forecast is of.
        length_steps: the length of the run.
        scored_by: the study that made the run.
        scored_trial: the trial of that one.
        level: how often such intervals are to hold what comes.
        wider: the factor on the interval, after what earlier ones had needed.
        loss: the expected loss at the end.
        came: the loss at the end; NaN, as are the next two, where the run diverged.
        error: the expected minus the actual loss, as a share of the actual one.
        inside: whether the interval held the loss.
        needed: how many times as wide the interval had to be for it.
        metric: the name of the selection metric, where it is not the loss and was forecast.
        metric_expected, metric_came, metric_inside: the same for the metric.
    """

    study: str
    fingerprint: str | None
    trial: int
    length_steps: int
    scored_by: str
    scored_trial: int
    level: float
    wider: float
    loss: Expected
    came: _Figure
    error: _Figure
    inside: bool
    needed: _Figure
    metric: str | None = None
    metric_expected: Expected | None = None
    metric_came: float | None = None
    metric_inside: bool | None = None

    @property
    def diverged(self) -> bool:
        """Whether the run diverged, which makes the forecast wrong by no known amount."""
        return math.isnan(self.came)

    @property
    def name(self) -> str:
        """The forecast in words; each has one receipt."""
        return f"{self.study} ({self.fingerprint}) at {self.length_steps} steps"


def receipts_from(rows: Iterable[dict[str, Any]]) -> tuple[Receipt, ...]:
    """Receipts from JSON values, of this version or an older one."""
    return pydantic.TypeAdapter(tuple[Receipt, ...]).validate_python(tuple(rows))


def scored(
    forecast: StudyForecast,
    by: TrialRecord,
    trials: Sequence[TrialRecord],
    selection: Selection,
    is_same: Callable[[TrialRecord, TrialRecord], bool],
    **names: Any,
) -> Receipt | str | None:
    """The score of an earlier round's forecast.

    Like is scored with like: a trial with the setting, the seed and the very learning rates of the
    forecast.

    Args:
        forecast: the forecast.
        by: the trial of the earlier round whose setting it is of.
        trials: of the longer round, at their ends.
        selection: what selects trials, in both.
        is_same: (theirs, ours) -> whether two trials are of one setting and seed, by what their
            states depend on.
        names: the ``study``, its ``fingerprint`` and ``scored_by``, for the receipt.

    Returns:
        The receipt; the reason why there is none; or None where no trial has a forecast length.
    """
    asked = [(t, run) for t in trials if (run := forecast.at(t.schedule.total_steps))]
    if not asked:
        return None
    # Without a schedule, the length decides.
    like = [(t, r) for t, r in asked if r.schedule in (None, t.schedule) and is_same(by, t)]
    if not like:
        return next((run.cannot_tell for _, run in asked if run.cannot_tell), None) or (
            "none of these trials has the setting, the seed and the schedule that it is of"
        )
    trial, run = like[0]
    if run.loss is None:
        return run.cannot_tell or "it gave no loss"
    last = trial.rows[-1] if trial.rows and not trial.diverged else {}
    came = last.get(LOSS, math.nan)
    if not trial.diverged and (last.get("step") != run.length_steps or not 0 < came < math.inf):
        return f"trial {trial.trial}, which it is of, has no loss above 0 at its end"
    return Receipt(
        **names,
        trial=forecast.trial,
        length_steps=run.length_steps,
        scored_trial=trial.trial,
        level=forecast.level,
        wider=forecast.wider,
        loss=run.loss,
        came=came,
        error=run.loss.value / came - 1,
        inside=run.loss.holds(came),
        needed=run.loss.width_needed(came),
        **_of_the_metric(run.metric, last.get(selection.key, math.nan), selection.key),
    )


def _of_the_metric(expected: Expected | None, came: float, key: str) -> dict[str, Any]:
    """A receipt's fields of the selection metric, where that was forecast and measured."""
    if expected is None or not math.isfinite(came):
        return {}
    return {
        "metric": key.removeprefix("validation_"),
        "metric_expected": expected,
        "metric_came": came,
        "metric_inside": expected.holds(came),
    }


def widening(receipts: Iterable[Receipt]) -> float:
    """The factor on the next intervals, after these receipts.

    No width would have been enough for a run that diverged, so it counts in the ledger alone.
    """
    return wider_after([r.needed * r.wider for r in receipts if not r.diverged])
