"""Forecasts, their receipts and what longer is worth, in sentences and tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

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
    said: StudyForecast, length: int, metric: str, seconds_per_step: float | None = None
) -> Iterator[str]:
    """What longer runs would give and what they cost, four times the steps first.

    Twice the steps are left to :func:`worth`, unless they are all that can be told.

    Args:
        said: the forecast.
        length: of the study's trials, in steps.
        metric: the name of the selection metric.
        seconds_per_step: where it is known, for the cost.
    """
    told = [run for run in said.longer if run.loss]
    shown = [run for run in told if run.length_steps != 2 * length] or told
    for run in sorted(shown, key=lambda run: (run.length_steps != 4 * length, run.length_steps)):
        yield _longer(said, run, length, metric, seconds_per_step)
    yield from _not_told({run.length_steps: run.cannot_tell for run in said.longer})
    if why := next((run.metric_cannot_tell for run in told if run.metric_cannot_tell), None):
        yield f"What the validation {words(metric)} would be cannot be told: {why}."
    if told and _times(said.wider) != "1":
        yield (
            f"Forecasts here are {_times(said.wider)} times as wide as their law says, after what "
            f"{counted(len(said.receipts), 'earlier one')} in this workdir needed."
        )


def worth(said: StudyForecast, length: int, seconds_per_step: float | None = None) -> str:
    """What twice the steps would gain, and up to which length that goes on, in one sentence."""
    run = said.at(2 * length)
    if run is None or run.gain is None:
        return "What twice the steps would gain cannot be told."
    gain = (
        f"Twice the steps ({run.length_steps}) are expected to lower the validation loss by "
        f"{with_ends(run.gain)}{_at_what_cost(run, seconds_per_step)}"
    )
    noise = f"the noise between seeds ({said.seed_noise:.2g})" if said.seed_noise else ""
    if said.worth_until_steps == length:
        return f"{gain}, less than {noise}: longer training is not expected to show."
    if said.worth_until_steps is not None:
        return (
            f"{gain}; from {said.worth_until_steps} steps on, twice as many are expected to gain "
            f"less than {noise}."
        )
    return f"{gain}; up to which length that is worth it cannot be told: {said.not_told_because}."


def _not_told(reasons: Mapping[int, str | None]) -> Iterator[str]:
    """That the forecasts of some lengths cannot be told, a sentence for each reason."""
    for reason in dict.fromkeys(filter(None, reasons.values())):
        lengths = [str(steps) for steps, why in reasons.items() if why == reason]
        yield f"What {' and '.join(lengths)} steps would give cannot be told: {reason}."


def receipt_sentence(receipt: Receipt) -> str:
    """How a forecast turned out."""
    sides = "inside" if receipt.inside else "OUTSIDE"
    found = (
        f"Before these {receipt.length_steps} steps were run, {receipt.study} forecast a "
        f"validation loss of {with_ends(receipt.loss)} at their end"
    )
    if receipt.diverged:
        return f"{found}: trial {receipt.scored_trial}, which it is of, DIVERGED."
    found += (
        f": {receipt.came:.4g} came, {sides} the interval, and the middle was "
        f"{abs(receipt.error):.1%} too {'high' if receipt.error > 0 else 'low'}."
    )
    if receipt.metric and receipt.metric_expected:
        inside = "inside" if receipt.metric_inside else "outside"
        found += (
            f" Of the {words(receipt.metric)} it said {with_ends(receipt.metric_expected)}, and "
            f"{receipt.metric_came:.4g} came, {inside}."
        )
    if not receipt.inside:
        found += (
            f" It had to be {_times(receipt.needed)} times as wide, and the next ones here are "
            "wider for it."
        )
    return found


def _times(factor: float) -> str:
    """As in "0.4 times", "1.04 times" and "12 times": 1 is said of nothing else."""
    return f"{factor:.3g}" if factor < 10 else f"{factor:.0f}"


def not_scored(study: str, length: int, reason: str) -> str:
    """That a forecast of this length got no receipt, and why."""
    return f"What {study} forecast for {length} steps is not scored: {reason}."


def coverage(receipts: Sequence[Receipt]) -> str:
    """How often forecasts held so far."""
    inside = sum(receipt.inside for receipt in receipts)
    level = receipts[-1].level
    return (
        f"{inside} of {counted(len(receipts), 'forecast')} so far held what came "
        f"(intervals are to hold {level:.0%})"
    )


def longer_rows(
    said: StudyForecast, seconds_per_step: float | None = None
) -> list[tuple[str, ...]]:
    """A row for each length that was asked for.

    Args:
        said: the forecast.
        seconds_per_step: where it is known, for the time that training takes.
    """

    def time(run: LongerRun) -> str:
        if run.steps_to_train is None or seconds_per_step is None:
            return "-"
        return f"about {_duration(run.steps_to_train * seconds_per_step)}"

    return [
        (
            str(run.length_steps),
            str(run.steps_to_train) if run.steps_to_train is not None else "-",
            time(run),
            with_ends(run.loss) if run.loss else "cannot be told",
            with_ends(run.gain) if run.gain else "-",
            with_ends(run.metric) if run.metric else "-",
        )
        for run in said.longer
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
    said: StudyForecast,
    run: LongerRun,
    length: int,
    metric: str,
    seconds_per_step: float | None,
) -> str:
    """What one longer run would give, for somebody who has never seen a forecast."""
    assert run.loss is not None
    now = f"from {said.loss:.4g} " if said.loss is not None else ""
    times = run.length_steps / length
    who = f"A run of {run.length_steps} steps"
    if times in _TIMES:
        who = f"{_TIMES[int(times)]} the steps ({run.length_steps})"
    found = f"{who} would bring the validation loss of trial {said.trial} {now}to about "
    found += with_ends(run.loss)
    if run.metric:
        before = f"from {said.metric:.4g} " if said.metric is not None else ""
        found += f", and the {words(metric)} {before}to about {with_ends(run.metric)}"
    return f"{found}{_at_what_cost(run, seconds_per_step)}."


def _at_what_cost(run: LongerRun, seconds_per_step: float | None) -> str:
    if run.steps_to_train is None:
        return ""
    seconds = ""
    if seconds_per_step is not None:
        seconds = f", about {_duration(run.steps_to_train * seconds_per_step)} at this speed"
    return f" for {counted(run.steps_to_train, 'more step')} to train{seconds}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return counted(max(1, round(seconds)), "second")
    if seconds < 7200:
        return counted(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours"


def with_ends(expected: Expected) -> str:
    """As in "1.441 (1.412 to 1.470)": as many digits as the interval has two of."""
    width = expected.high - expected.low
    decimals = max(0, 1 - math.floor(math.log10(width))) if width > 0 else 4
    # The "z" makes of -0.00 what it is.
    value, low, high = (f"{v:z.{decimals}f}" for v in dataclasses.astuple(expected))
    return f"{value} ({low} to {high})"
