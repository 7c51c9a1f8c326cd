"""Which kind of workload it is, read off a training curve that did not reach a perfect fit."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Literal

from budgetflow.playbook.measurement import Row
from budgetflow.playbook.race import SweepSettings

# How far the training loss must fall from the middle of the run to its end, for a curve that is
# not stalled, and for one that is heading for a perfect fit rather than falling for as long as one
# can wait. (Large language models gain a few percent when their steps double.)
STALLED_BELOW = 0.02
HEADING_FOR_A_FIT_ABOVE = 0.25
# With fewer epochs, a training set that will be fitted looks like one that never will.
MIN_EPOCHS = 40
# The next N to try is at most this many times N (or MIN_EPOCHS, where that is more).
MAX_NEXT_FACTOR = 16


@dataclasses.dataclass(frozen=True)
class CurveReading:
    """What a training curve without a perfect fit looks like.

    Attributes:
        looks_like: "n_too_small", "model_cannot_fit", "compute_bound" or "threshold_too_low" (the
            loss that counts as fitted is lower than possible).
        regime: SPEC's word for the workload, "compute_bound" or "undecided".
        suggested_max_train_steps: the next N to try, where a longer run may fit.
        reason: the evidence, in a sentence.
    """

    looks_like: Literal["n_too_small", "model_cannot_fit", "compute_bound", "threshold_too_low"]
    regime: Literal["compute_bound", "undecided"]
    suggested_max_train_steps: int | None
    reason: str


def read_training_curve(rows: Sequence[Row], settings: SweepSettings) -> CurveReading:
    """Reads the best trial's training curve after N steps without a perfect fit.

    The loss around step N is compared with that around N / 2, both above the lowest possible one
    (0 unless examples contradict each other). One that fell by less than 2 % has stalled; by up to
    25 %, training is compute-bound: it goes on falling for longer than one can wait; by more, N was
    too small. Then the curve is continued as a power law of the step until less than half an
    example more than need be is wrong (where the task has no error rate, until the loss is a
    hundredth; where a loss counts as fitted, until it is reached), for the next N: at least twice
    and at most 16 times N. A loss within 2 % of the lowest possible, or an error rate at it, has
    all but arrived: N was too small.

    Stalled and compute-bound take 40 epochs. Measured on Fashion-MNIST with an MLP of two layers of
    256 and momentum 0.9, best of three constant learning rates: 10,000 examples are fitted at epoch
    97, 5,000 with random labels at epoch 133. Read at epoch 3, the latter seem stalled (0.9 %), and
    at epoch 30 compute-bound (16 %), as do the former at epoch 20 (23 %). At epoch 40 both fall by
    more than a quarter (51 % and 26 %), as do 10,000 examples with 30 % of random labels (32 %) and
    all 60,000 (41 %), which were not followed to their fit.

    Args:
        rows: the measurements of the trial with the lowest training loss.
        settings: the sweep's.
    """
    lowest, threshold = settings.lowest_train_loss, settings.fitted_train_loss
    if threshold is not None and threshold <= lowest and lowest > 0:
        return CurveReading(
            "threshold_too_low", "undecided", None,
            f"A training loss under {threshold:g} is impossible: since examples contradict each "
            f"other, the lowest is {lowest:.4g}. Raise config.sweep.fitted_train_loss above it.",
        )  # fmt: skip
    middle, end = _around(rows, 0.4, 0.6, settings), _around(rows, 0.9, 1, settings)
    if middle is None or end is None:
        return _too_short(settings, "")
    before, after = (_above_lowest(row, settings) for row in (middle, end))
    fall = 1 - after["train_loss"] / before["train_loss"] if before["train_loss"] > 0 else 0.0
    shown = (
        f"from {middle['train_loss']:.3g} around step {middle['step']:.0f} to "
        f"{end['train_loss']:.3g} around step {end['step']:.0f}"
    )
    above = f" of what is above the lowest possible ({lowest:.3g})" if lowest else ""
    if _at_lowest(end, settings):
        return _n_too_small(
            settings, before, after,
            f"the best training loss went {shown}, and the examples evaluated are all but as well "
            "fitted as they can be, some of them contradicting each other (the lowest possible "
            f"loss is {lowest:.3g}).",
        )  # fmt: skip
    if fall >= HEADING_FOR_A_FIT_ABOVE:
        return _n_too_small(
            settings, before, after,
            f"the best training loss went {shown}, and so is still falling fast ({fall:.0%}{above} "
            "since the middle of the run).",
        )  # fmt: skip
    if settings.epochs < MIN_EPOCHS:
        return _too_short(settings, f" The best training loss went {shown}, a fall of {fall:.1%}.")
    if fall < STALLED_BELOW:
        return CurveReading(
            "model_cannot_fit", "undecided", None,
            f"The best training loss has stalled: it went {shown}, a fall of {fall:.1%}{above}. "
            "It looks like a model that cannot fit this training set at a constant learning rate: "
            f"try a larger model, or look for wrong labels.{_other_explanation(settings)}",
        )  # fmt: skip
    return CurveReading(
        "compute_bound", "compute_bound", None,
        f"The best training loss is still falling at N, but slowly: {shown}, a fall of "
        f"{fall:.1%}{above} since the middle of the run, after {settings.epochs:.3g} epochs. It "
        "looks compute-bound: choose the length by patience, and tune in rounds.",
    )  # fmt: skip


def _too_short(settings: SweepSettings, seen: str) -> CurveReading:
    suggestion = _next_steps(0, settings)
    return CurveReading(
        "n_too_small", "undecided", suggestion,
        f"N = {settings.max_train_steps}, {settings.epochs:.2g} epoch(s), is too small to read a "
        f"curve: in fewer than {MIN_EPOCHS} epochs a training set that will be fitted can look "
        f"like one that never will.{seen} Try --config.max_train_steps={suggestion}: the race ends "
        "as soon as a trial fits. If nobody can wait for so many, it is compute-bound by choice: "
        "choose the length by patience, and tune in rounds.",
    )  # fmt: skip


def _n_too_small(settings: SweepSettings, before: Row, after: Row, why: str) -> CurveReading:
    """The reading of a curve that a longer run would lead to a fit, and how much longer."""
    threshold = settings.fitted_train_loss
    if threshold is not None:
        metric, target = "train_loss", threshold - settings.lowest_train_loss
    elif "train_error_rate" in after:
        metric, target = "train_error_rate", 0.5 / settings.num_train_examples
    else:
        metric, target = "train_loss", after["train_loss"] / 100
    needed = _steps_to_reach(max(target, sys.float_info.min), before, after, metric)
    suggestion = _next_steps(needed, settings)
    return CurveReading(
        "n_too_small", "undecided", suggestion,
        f"N is too small ({settings.epochs:.3g} epochs): {why} Try "
        f"--config.max_train_steps={suggestion}.",
    )  # fmt: skip


def _other_explanation(settings: SweepSettings) -> str:
    """What else a stalled curve may come from, as far as the training set is known."""
    if settings.contradicting_examples is None:
        return (
            " Contradictory labels would look like this, too: whether equal inputs have different "
            "labels is not known for this training set."
        )
    if count := settings.contradicting_examples:
        return f" The {count} examples that contradict each other do not explain it."
    return ""


def _around(rows: Sequence[Row], low: float, high: float, settings: SweepSettings) -> Row | None:
    """The mean of the measurements between two fractions of the run, None if there is none."""
    steps = settings.max_train_steps
    part = [row for row in rows if low * steps <= row["step"] <= high * steps]
    return {key: sum(row[key] for row in part) / len(part) for key in part[0]} if part else None


def _above_lowest(row: Row, settings: SweepSettings) -> Row:
    """A row with its training loss and error rate as what is above the lowest possible ones."""
    lowest = {
        "train_loss": settings.lowest_train_loss,
        "train_error_rate": settings.lowest_train_errors / settings.num_train_examples,
    }
    return row | {key: max(row[key] - low, 0.0) for key, low in lowest.items() if key in row}


def _at_lowest(row: Row, settings: SweepSettings) -> bool:
    """Whether a loss or an error rate is (nearly) the lowest possible, and that not 0."""
    above = row["train_loss"] - settings.lowest_train_loss
    if settings.lowest_train_loss > 0 and above <= STALLED_BELOW * row["train_loss"]:
        return True
    half_an_example = 0.5 / settings.num_train_examples
    error_rate = row.get("train_error_rate", math.inf)
    lowest = settings.lowest_evaluated_error_rate
    return lowest > 0 and error_rate <= lowest + half_an_example


def _steps_to_reach(target: float, middle: Row, end: Row, metric: str) -> float:
    """Where the power law through two points reaches ``target``."""
    if end[metric] <= target:
        return float(end["step"])
    if middle[metric] <= end[metric]:
        return math.inf
    exponent = math.log(middle[metric] / end[metric]) / math.log(end["step"] / middle["step"])
    # In logarithms: the steps themselves can be too large for a float.
    log_steps = math.log(end["step"]) + math.log(end[metric] / target) / exponent
    return math.exp(log_steps) if log_steps < 100 else math.inf


def _next_steps(needed: float, settings: SweepSettings) -> int:
    """The next N to try, to two digits: within bounds, and long enough to be read."""
    steps = settings.max_train_steps
    most = MAX_NEXT_FACTOR * steps
    bounded = min(_two_digits_up(min(max(needed, 2 * steps), most)), most)
    return max(bounded, _two_digits_up(MIN_EPOCHS * settings.steps_per_epoch))


def _two_digits_up(steps: float) -> int:
    scale = 10 ** max(len(str(math.ceil(steps))) - 2, 0)
    return math.ceil(steps / scale) * scale
