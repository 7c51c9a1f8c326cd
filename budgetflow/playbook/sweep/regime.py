"""The kind of workload, read off a training curve that did not reach a perfect fit."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Literal

from budgetflow.playbook.common.measurement import Row
from budgetflow.playbook.sweep.race import SweepSettings, lockstep_grid

# How far the training loss must fall from the middle of the run to its end, for a curve that is
# not stalled, and for one that is heading for a perfect fit rather than falling for as long as one
# can wait. (Large language models gain a few percent when their steps double.)
STALLED_BELOW = 0.02
HEADING_FOR_A_FIT_ABOVE = 0.25
# Around the middle of the run and around its end: from, to, as fractions of it.
MIDDLE, END = (0.4, 0.6), (0.9, 1.0)
# With fewer epochs, a training set that will be fitted looks like one that never will.
MIN_EPOCHS = 40
# The next N to try is at most this many times N (or MIN_EPOCHS, where that is more).
MAX_NEXT_FACTOR = 16


Shows = (
    Literal["threshold_impossible", "too_few_epochs", "all_but_fitted"]
    | Literal["falling_fast", "stalled", "falling_slowly"]
)
LooksLike = Literal["n_too_small", "model_cannot_fit", "compute_bound", "threshold_too_low"]
LOOKS_LIKE: dict[Shows, LooksLike] = {
    "threshold_impossible": "threshold_too_low",
    "stalled": "model_cannot_fit",
    "falling_slowly": "compute_bound",
}


@dataclasses.dataclass(frozen=True)
class CurveReading:
    """What a training curve without a perfect fit looks like.

    Attributes:
        shows: the evidence. "threshold_impossible": the loss that counts as fitted is lower than
            possible; "too_few_epochs" to tell; "all_but_fitted": as well as examples that
            contradict each other can be; "falling_fast", "stalled" or "falling_slowly".
        suggested_max_train_steps: the next N to try, where a longer run may fit.
        middle, end: the mean measurements around N / 2 and N; None where there are none.
        fall: how far the loss fell from one to the other, as a fraction of what was above the
            lowest possible.
    """

    shows: Shows
    suggested_max_train_steps: int | None = None
    middle: Row | None = None
    end: Row | None = None
    fall: float = 0.0

    @property
    def looks_like(self) -> LooksLike:
        """What most probably kept the trial from a fit."""
        return LOOKS_LIKE.get(self.shows, "n_too_small")

    @property
    def regime(self) -> Literal["compute_bound", "undecided"]:
        """SPEC's word for the workload."""
        return "compute_bound" if self.shows == "falling_slowly" else "undecided"


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
        return CurveReading("threshold_impossible")
    middle, end = (_around(rows, part, settings.max_train_steps) for part in (MIDDLE, END))
    if middle is None or end is None:
        return CurveReading("too_few_epochs", _next_steps(0, settings))
    before, after = (_above_lowest(row, settings) for row in (middle, end))
    fall = 1 - after["train_loss"] / before["train_loss"] if before["train_loss"] > 0 else 0.0
    suggestion = None
    if _at_lowest(end, settings) or fall >= HEADING_FOR_A_FIT_ABOVE:
        shows: Shows = "all_but_fitted" if _at_lowest(end, settings) else "falling_fast"
        suggestion = _next_steps(_steps_to_fit(settings, before, after), settings)
    elif settings.epochs < MIN_EPOCHS:
        shows, suggestion = "too_few_epochs", _next_steps(0, settings)
    else:
        shows = "stalled" if fall < STALLED_BELOW else "falling_slowly"
    return CurveReading(shows, suggestion, middle, end, fall)


def _steps_to_fit(settings: SweepSettings, middle: Row, end: Row) -> float:
    """Where a curve that is heading for a fit gets there, by the power law through two points."""
    metric, threshold = "train_loss", settings.fitted_train_loss
    if threshold is not None:
        target = threshold - settings.lowest_train_loss
    elif "train_error_rate" in end:
        metric, target = "train_error_rate", 0.5 / settings.num_train_examples
    else:
        target = end["train_loss"] / 100
    target = max(target, sys.float_info.min)
    if end[metric] <= target:
        return float(end["step"])
    if middle[metric] <= end[metric]:
        return math.inf
    exponent = math.log(middle[metric] / end[metric]) / math.log(end["step"] / middle["step"])
    # In logarithms: the steps themselves can be too large for a float.
    log_steps = math.log(end["step"]) + math.log(end[metric] / target) / exponent
    return math.exp(log_steps) if log_steps < 100 else math.inf


def steps_read(max_train_steps: int) -> frozenset[int]:
    """The evaluations whose figures a reading takes, of those up to N."""
    grid = lockstep_grid(max_train_steps)
    return frozenset(
        step for step in grid for part in (MIDDLE, END) if _is_within(step, part, max_train_steps)
    )


def _is_within(step: int, part: tuple[float, float], max_train_steps: int) -> bool:
    return part[0] * max_train_steps <= step <= part[1] * max_train_steps


def _around(rows: Sequence[Row], part: tuple[float, float], max_train_steps: int) -> Row | None:
    """The mean of the measurements between two fractions of the run, None if there is none."""
    within = [row for row in rows if _is_within(row["step"], part, max_train_steps)]
    if not within:
        return None
    return {key: sum(row[key] for row in within) / len(within) for key in within[0]}


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


def _next_steps(needed: float, settings: SweepSettings) -> int:
    """The next N to try, to two digits: within bounds, and long enough to be read."""
    steps = settings.max_train_steps
    most = MAX_NEXT_FACTOR * steps
    bounded = min(_two_digits_up(min(max(needed, 2 * steps), most)), most)
    return max(bounded, _two_digits_up(MIN_EPOCHS * settings.steps_per_epoch))


def _two_digits_up(steps: float) -> int:
    scale = 10 ** max(len(str(math.ceil(steps))) - 2, 0)
    return math.ceil(steps / scale) * scale
