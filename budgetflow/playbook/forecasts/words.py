"""Forecasts, their scores and the worth of longer runs, in sentences and tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from budgetflow.playbook.common.words import counted, words
from budgetflow.playbook.forecasts.expected import Expected
from budgetflow.playbook.forecasts.scored import Receipt
from budgetflow.playbook.forecasts.study_forecast import LongerRun, StudyForecast

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

_TIMES = {2: "Twice", 3: "Three times", 4: "Four times", 5: "Five times"}
LONGER_COLUMNS = ("steps", "of them new", "time", "validation loss", "gain", "selection metric")
RECEIPT_COLUMNS = ("forecast", "steps", "said", "came", "off", "inside", "width needed")


def forecast_sentences(
    forecast: StudyForecast, length: int, metric: str, seconds_per_step: float | None = None
) -> Iterator[str]:
    """The results and the costs of longer runs, four times the steps first.

    Twice the steps are left to :func:`worth`, unless they are all that can be told.

    Args:
        forecast: the forecast.
        length: of the study's trials, in steps.
        metric: the name of the selection metric.
        seconds_per_step: where it is known, for the cost.
    """
    told = [run for run in forecast.longer if run.loss]
    shown = [run for run in told if run.length_steps != 2 * length] or told
    for run in sorted(shown, key=lambda run: (run.length_steps != 4 * length, run.length_steps)):
        yield _longer(forecast, run, length, metric, seconds_per_step)
    for reason in dict.fromkeys(run.cannot_tell for run in forecast.longer if run.cannot_tell):
        lengths = (str(r.length_steps) for r in forecast.longer if r.cannot_tell == reason)
        yield f"What {' and '.join(lengths)} steps would give cannot be told: {reason}."
    if why := next((run.metric_cannot_tell for run in told if run.metric_cannot_tell), None):
        yield f"What the validation {words(metric)} would be cannot be told: {why}."
    if told and _times(forecast.wider) != "1":
        wider = _times(forecast.wider)
        yield (
            f"Forecasts here are {wider} times as wide as their law says, after what "
            f"{counted(len(forecast.receipts), 'earlier one')} in this workdir needed."
        )


def worth(forecast: StudyForecast, length: int, seconds_per_step: float | None = None) -> str:
    """The gain of twice the steps, and the length up to which that goes on, in one sentence."""
    run = forecast.at(2 * length)
    if run is None or run.gain is None:
        return "What twice the steps would gain cannot be told."
    gain = (
        f"Twice the steps ({run.length_steps}) are expected to lower the validation loss by "
        f"{with_ends(run.gain)}{_at_what_cost(run, seconds_per_step)}"
    )
    noise = f"the noise between seeds ({forecast.seed_noise:.2g})" if forecast.seed_noise else ""
    if forecast.worth_until_steps == length:
        return f"{gain}, less than {noise}: longer training is not expected to show."
    if (steps := forecast.worth_until_steps) is not None:
        return (
            f"{gain}; from {steps} steps on, twice as many are expected to gain less than {noise}."
        )
    why = forecast.not_told_because
    return f"{gain}; up to which length that is worth it cannot be told: {why}."


def receipt_sentence(receipt: Receipt) -> str:
    """The score of a forecast."""
    sides = "inside" if receipt.inside else "OUTSIDE"
    text = (
        f"Before these {receipt.length_steps} steps were run, {receipt.study} forecast a "
        f"validation loss of {with_ends(receipt.loss)} at their end"
    )
    if receipt.diverged:
        return f"{text}: trial {receipt.scored_trial}, which it is of, DIVERGED."
    text += (
        f": {receipt.came:.4g} came, {sides} the interval, and the middle was "
        f"{abs(receipt.error):.1%} too {'high' if receipt.error > 0 else 'low'}."
    )
    if receipt.metric and receipt.metric_expected:
        inside = "inside" if receipt.metric_inside else "outside"
        text += (
            f" Of the {words(receipt.metric)} it said {with_ends(receipt.metric_expected)}, and "
            f"{receipt.metric_came:.4g} came, {inside}."
        )
    if not receipt.inside:
        text += (
            f" It had to be {_times(receipt.needed)} times as wide, and the next ones here are "
            "wider for it."
        )
    return text


def _times(factor: float) -> str:
    """As in "0.4 times", "1.04 times" and "12 times"; "1" stands for 1 alone."""
    return f"{factor:.3g}" if factor < 10 else f"{factor:.0f}"


def not_scored(study: str, length: int, reason: str) -> str:
    """Why a forecast of this length got no receipt."""
    return f"What {study} forecast for {length} steps is not scored: {reason}."


def coverage(receipts: Sequence[Receipt]) -> str:
    """The share of forecasts that held so far."""
    inside = sum(receipt.inside for receipt in receipts)
    level = receipts[-1].level
    return (
        f"{inside} of {counted(len(receipts), 'forecast')} so far held what came "
        f"(intervals are to hold {level:.0%})"
    )


def longer_rows(
    forecast: StudyForecast, seconds_per_step: float | None = None
) -> list[tuple[str, ...]]:
    """A row for each length that was asked for.

    Args:
        forecast: the forecast.
        seconds_per_step: where it is known, for the time that training takes.
    """
    return [
        (
            str(run.length_steps),
            str(run.steps_to_train) if run.steps_to_train is not None else "-",
            _time(run, seconds_per_step) or "-",
            with_ends(run.loss) if run.loss else "cannot be told",
            with_ends(run.gain) if run.gain else "-",
            with_ends(run.metric) if run.metric else "-",
        )
        for run in forecast.longer
    ]


def receipt_rows(receipts: Sequence[Receipt]) -> list[tuple[str, ...]]:
    """A row for each receipt."""
    return [
        (
            receipt.study,
            str(receipt.length_steps),
            with_ends(receipt.loss),
            "diverged" if receipt.diverged else f"{receipt.came:.4g}",
            "-" if receipt.diverged else f"{receipt.error:+.1%}",
            "yes" if receipt.inside else "no",
            "-" if receipt.diverged else _times(receipt.needed),
        )
        for receipt in receipts
    ]


def _longer(
    forecast: StudyForecast,
    run: LongerRun,
    length: int,
    metric: str,
    seconds_per_step: float | None,
) -> str:
    """The forecast of one longer run, for a reader who has never seen one."""
    assert run.loss is not None
    now = f"from {forecast.loss:.4g} " if forecast.loss is not None else ""
    times = run.length_steps / length
    who = f"A run of {run.length_steps} steps"
    if times in _TIMES:
        who = f"{_TIMES[int(times)]} the steps ({run.length_steps})"
    text = f"{who} would bring the validation loss of trial {forecast.trial} {now}to about "
    text += with_ends(run.loss)
    if run.metric:
        before = f"from {forecast.metric:.4g} " if forecast.metric is not None else ""
        text += f", and the {words(metric)} {before}to about {with_ends(run.metric)}"
    return f"{text}{_at_what_cost(run, seconds_per_step)}."


def _at_what_cost(run: LongerRun, seconds_per_step: float | None) -> str:
    if run.steps_to_train is None:
        return ""
    time = _time(run, seconds_per_step)
    at_this_speed = f", {time} at this speed" if time else ""
    return f" for {counted(run.steps_to_train, 'more step')} to train{at_this_speed}"


def _time(run: LongerRun, seconds_per_step: float | None) -> str | None:
    """How long a run trains; None if that is not known."""
    if run.steps_to_train is None or seconds_per_step is None:
        return None
    seconds = run.steps_to_train * seconds_per_step
    if seconds < 120:
        return f"about {counted(max(1, round(seconds)), 'second')}"
    if seconds < 7200:
        return f"about {counted(round(seconds / 60), 'minute')}"
    return f"about {seconds / 3600:.1f} hours"


def with_ends(expected: Expected) -> str:
    """As in "1.441 (1.412 to 1.470)": as many digits as the interval has two of."""
    width = expected.high - expected.low
    decimals = max(0, 1 - math.floor(math.log10(width))) if width > 0 else 4
    # The "z" makes of -0.00 what it is.
    value, low, high = (f"{v:z.{decimals}f}" for v in dataclasses.astuple(expected))
    return f"{value} ({low} to {high})"
