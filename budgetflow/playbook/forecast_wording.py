"""Forecasts, their receipts and what longer is worth, in sentences and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from budgetflow.playbook.metric_by_loss import Expected
from budgetflow.playbook.receipts import Receipt
from budgetflow.playbook.study_forecast import LongerRun, StudyForecast
from budgetflow.playbook.wording import counted, words

_TIMES = {2: "Twice", 3: "Three times", 4: "Four times", 5: "Five times"}
LONGER_COLUMNS = ("steps", "of them new", "validation loss", "gain", "selection metric")
RECEIPT_COLUMNS = ("forecast", "steps", "said", "came", "off", "inside", "width needed")


def forecast_sentences(
    said: StudyForecast, length: int, metric: str, seconds_per_step: float | None = None
) -> Iterator[str]:
    """What longer runs would give and what they cost: the one to read first is the first.

    Args:
        said: the forecast.
        length: of the study's trials, in steps.
        metric: the name of the selection metric.
        seconds_per_step: where it is known, for the cost.
    """
    told = [run for run in said.longer if run.loss]
    if not told:
        for reason in dict.fromkeys(run.cannot_tell for run in said.longer):
            yield f"What longer runs would give cannot be told: {reason}."
        return
    # Four times first, as the playbook's second round often is, then the others.
    for run in sorted(told, key=lambda run: (run.length_steps != 4 * length, run.length_steps)):
        yield _longer(said, run, length, metric, seconds_per_step)
    for run in said.longer:
        if run.cannot_tell:
            yield f"What {run.length_steps} steps would give cannot be told: {run.cannot_tell}."
    reasons = dict.fromkeys(run.metric_cannot_tell for run in told if run.metric_cannot_tell)
    for reason in reasons:
        yield f"What the validation {words(metric)} would be cannot be told: {reason}."
    if said.wider > 1:
        yield (
            f"Its intervals are {said.wider:.2g} times as wide as its law says, after what "
            f"{counted(len(said.receipts), 'earlier forecast')} in this workdir needed."
        )


def worth(said: StudyForecast, length: int) -> str:
    """Which length is worth it, in one sentence."""
    run = said.at(2 * length)
    if run is None or run.gain is None:
        reason = (run.cannot_tell if run else None) or said.not_told_because
        return f"What twice the steps would gain cannot be told: {reason}."
    gain = (
        f"Twice the steps are expected to lower the validation loss by {_with_ends(run.gain)}"
        f"{_at_what_cost(run, None)}"
    )
    if said.worth_until_steps == length:
        return (
            f"{gain}, less than the noise between seeds ({said.seed_noise:.2g}): longer training "
            "is not expected to show."
        )
    if said.worth_until_steps is not None:
        return (
            f"{gain}; from {said.worth_until_steps} steps on, twice as many would gain less than "
            f"the noise between seeds ({said.seed_noise:.2g})."
        )
    return f"{gain}; up to which length that goes on cannot be told: {said.not_told_because}."


def receipt_sentence(receipt: Receipt) -> str:
    """How a forecast turned out."""
    sides = "inside" if receipt.inside else "OUTSIDE"
    found = (
        f"Before these {receipt.length_steps} steps were run, {receipt.study} forecast a validation "
        f"loss of {_with_ends(receipt.loss)} at their end: {receipt.came:.4g} came, {sides} the "
        f"interval, and the middle was {abs(receipt.error):.1%} too "
        f"{'high' if receipt.error > 0 else 'low'}."
    )
    if receipt.metric and receipt.metric_expected:
        inside = "inside" if receipt.metric_inside else "outside"
        found += (
            f" Of the {words(receipt.metric)} it said {_with_ends(receipt.metric_expected)}, and "
            f"{receipt.metric_came:.4g} came, {inside}."
        )
    if not receipt.inside:
        found += f" The next intervals here are {receipt.needed * receipt.wider:.2g} times as wide."
    return found


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


def longer_rows(said: StudyForecast) -> list[tuple[str, ...]]:
    """A row for each length that was asked for."""
    return [
        (
            str(run.length_steps),
            str(run.steps_to_train) if run.steps_to_train is not None else "-",
            _with_ends(run.loss) if run.loss else f"cannot be told: {run.cannot_tell}",
            _with_ends(run.gain) if run.gain else "-",
            _with_ends(run.metric) if run.metric else "-",
        )
        for run in said.longer
    ]


def receipt_rows(receipts: Sequence[Receipt]) -> list[tuple[str, ...]]:
    """A row for each receipt."""
    return [
        (
            receipt.study,
            str(receipt.length_steps),
            _with_ends(receipt.loss),
            f"{receipt.came:.4g}",
            f"{receipt.error:+.1%}",
            "yes" if receipt.inside else "no",
            f"{receipt.needed:.2g}",
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
    found = f"{who} would bring the validation loss {now}to about {_with_ends(run.loss)}"
    if run.metric:
        before = f"from {said.metric:.4g} " if said.metric is not None else ""
        found += f", and the {words(metric)} {before}to about {_with_ends(run.metric)}"
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


def _with_ends(expected: Expected) -> str:
    """As in "1.44 (1.41 to 1.47)", each to four digits of the middle."""
    return f"{expected.value:.4g} ({expected.low:.4g} to {expected.high:.4g})"
