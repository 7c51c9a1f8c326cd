"""Receipts: what forecasts said before a longer round ran, beside what came."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import pydantic

from budgetflow.playbook.common.measurement import Selection, TrialRecord
from budgetflow.playbook.forecasts.loss_forecast import wider_after
from budgetflow.playbook.forecasts.metric_by_loss import Expected
from budgetflow.playbook.forecasts.study_forecast import LOSS, LongerRun, StudyForecast

# JSON has null for what is no number.
_Figure = Annotated[float, pydantic.BeforeValidator(lambda v: math.nan if v is None else v)]
# (theirs, ours) -> whether two trials are of one setting, by what their states depend on.
IsSame = Callable[[TrialRecord, TrialRecord], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Receipt:
    """A forecast beside what came.

    Attributes:
        study: that made the forecast.
        fingerprint: of that study.
        trial: of it, whose setting and seed the forecast is of.
        length_steps: of the run that it is of.
        scored_by: the study that ran it.
        scored_trial: the trial of that one.
        level: how often such intervals are to hold what comes.
        wider: how many times as wide the interval was, after what earlier ones had needed.
        loss: that was expected at the end.
        came: the loss that came there; NaN, as are the next two, where the run diverged.
        error: how much higher the middle was than what came, as a share of that.
        inside: whether what came was inside the interval.
        needed: how many times as wide the interval had to be for what came.
        metric: the name of the selection metric, where it is another and was forecast.
        metric_expected, metric_came, metric_inside: the same of it.
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
        """Whether the run diverged: the forecast was wrong, and nobody knows by how much."""
        return math.isnan(self.came)

    @property
    def name(self) -> str:
        """Which forecast it is of: there is one receipt of each."""
        return f"{self.study} ({self.fingerprint}) at {self.length_steps} steps"


def receipts_from(rows: Iterable[dict[str, Any]]) -> tuple[Receipt, ...]:
    """Receipts from JSON values, of this version or an older one."""
    return _READER.validate_python(tuple(rows))


def scored(
    said: StudyForecast,
    by: TrialRecord,
    trials: Sequence[TrialRecord],
    selection: Selection,
    is_same: IsSame,
    **names: Any,
) -> Receipt | str | None:
    """How the forecast of an earlier round turned out.

    Only like is scored with like: a trial with the setting, the seed and the very learning rates
    that the forecast was of.

    Args:
        said: the forecast.
        by: the trial of the earlier round whose setting it is of.
        trials: of the longer round, at their ends.
        selection: what selects trials, in both.
        is_same: whether two trials are of one setting and seed.
        names: the ``study``, its ``fingerprint`` and ``scored_by``, for the receipt.

    Returns:
        The receipt; why there is none; or None where the forecast was of no such length.
    """
    runs = {trial.trial: said.at(trial.schedule.total_steps) for trial in trials}
    if not any(runs.values()):
        return None
    like = [t for t in trials if (run := runs[t.trial]) and _is_of(run, t) and is_same(by, t)]
    if not like:
        told = [run.cannot_tell for run in runs.values() if run and run.cannot_tell]
        return next(iter(told), None) or (
            "none of these trials has the setting, the seed and the schedule that it is of"
        )
    trial = like[0]
    run = runs[trial.trial]
    assert run is not None
    if run.loss is None:
        return run.cannot_tell or "it gave no loss"
    last = trial.rows[-1] if trial.rows else {}
    came = math.nan if trial.diverged else last.get(LOSS, math.nan)
    if not trial.diverged and (last.get("step") != run.length_steps or not 0 < came < math.inf):
        return f"trial {trial.trial}, which it is of, has no loss above 0 at its end"
    last = {} if trial.diverged else last
    return Receipt(
        **names,
        trial=said.trial,
        length_steps=run.length_steps,
        scored_trial=trial.trial,
        level=said.level,
        wider=said.wider,
        loss=run.loss,
        came=came,
        error=run.loss.value / came - 1,
        inside=_holds(run.loss, came),
        needed=abs(math.log(came / run.loss.value)) / math.log(run.loss.high / run.loss.value),
        **_of_metric(run, last.get(selection.key, math.nan), selection),
    )


def widening(receipts: Iterable[Receipt]) -> float:
    """How many times as wide as a law says the next intervals are to be, after these receipts.

    Of a run that diverged no width would have been enough, so it counts in the ledger alone.
    """
    return wider_after([r.needed * r.wider for r in receipts if not r.diverged])


def _is_of(run: LongerRun, trial: TrialRecord) -> bool:
    """Whether a forecast is of a trial's schedule; of one that could not be told, by its length."""
    return run.schedule is None or run.schedule == trial.schedule


def _of_metric(run: LongerRun, came: float, selection: Selection) -> dict[str, Any]:
    if run.metric is None or not math.isfinite(came):
        return {}
    return {
        "metric": selection.key.removeprefix("validation_"),
        "metric_expected": run.metric,
        "metric_came": came,
        "metric_inside": _holds(run.metric, came),
    }


def _holds(expected: Expected, came: float) -> bool:
    return expected.low <= came <= expected.high


_READER = pydantic.TypeAdapter(tuple[Receipt, ...])
