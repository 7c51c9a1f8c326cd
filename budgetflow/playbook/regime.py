"""Which kind of workload it is, read off a training curve that did not reach a perfect fit."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Literal

from budgetflow.playbook.measurement import Row

# How far the training loss must fall from the middle of the run to its end, for a curve that is
# not stalled, and for one that is heading for a perfect fit rather than falling for as long as one
# can wait. (Large language models gain a few percent when their steps double.)
STALLED_BELOW = 0.02
HEADING_FOR_A_FIT_ABOVE = 0.25
# The next N to try is at most this many times N.
MAX_NEXT_FACTOR = 16


@dataclasses.dataclass(frozen=True)
class CurveReading:
    """What a training curve without a perfect fit looks like.

    Attributes:
        looks_like: "n_too_small", "model_cannot_fit" or "compute_bound".
        regime: SPEC's word for the workload, "compute_bound" or "undecided".
        suggested_max_train_steps: the next N to try, where a longer run is likely to fit.
        reason: the evidence, in a sentence.
    """

    looks_like: Literal["n_too_small", "model_cannot_fit", "compute_bound"]
    regime: Literal["compute_bound", "undecided"]
    suggested_max_train_steps: int | None
    reason: str


def read_training_curve(
    rows: Sequence[Row],
    max_train_steps: int,
    num_train_examples: int,
    fitted_train_loss: float | None = None,
) -> CurveReading:
    """Reads the best trial's training curve after N steps without a perfect fit.

    The loss around step N is compared with that around N / 2. One that fell by less than 2 % has
    stalled; by up to 25 %, training is compute-bound: it goes on falling for longer than one can
    wait; by more, N was too small. Then the curve is continued as a power law of the step until
    less than half an example is wrong (where the task has no error rate, until the loss is a
    hundredth; where a loss counts as fitted, until it is reached), for the next N: at least twice
    and at most 16 times N.

    Args:
        rows: the measurements of the trial with the lowest training loss.
        max_train_steps: N.
        num_train_examples: the size of the training set.
        fitted_train_loss: the training loss that counts as fitted, if one does.
    """
    middle, end = _around(rows, 0.4, 0.6, max_train_steps), _around(rows, 0.9, 1, max_train_steps)
    if middle is None or end is None:
        suggestion = MAX_NEXT_FACTOR * max_train_steps
        return CurveReading(
            "n_too_small", "undecided", suggestion,
            f"N = {max_train_steps} is too small to read a curve; try "
            f"--config.max_train_steps={suggestion}.",
        )  # fmt: skip
    fall = 1 - end["train_loss"] / middle["train_loss"] if middle["train_loss"] > 0 else 0.0
    shown = (
        f"from {middle['train_loss']:.3g} around step {middle['step']:.0f} to "
        f"{end['train_loss']:.3g} around step {end['step']:.0f}"
    )
    if fall < STALLED_BELOW:
        return CurveReading(
            "model_cannot_fit", "undecided", None,
            f"The best training loss has stalled: it went {shown}, a fall of {fall:.1%}. It looks "
            "like a model that cannot fit this training set at a constant learning rate: try a "
            "larger model, or look for wrong labels.",
        )  # fmt: skip
    if fall < HEADING_FOR_A_FIT_ABOVE:
        return CurveReading(
            "compute_bound", "compute_bound", None,
            f"The best training loss is still falling at N, but slowly: {shown}, a fall of "
            f"{fall:.1%} since the middle of the run. It looks compute-bound: choose the length by "
            "patience, and tune in rounds.",
        )  # fmt: skip
    metric = "train_error_rate" if "train_error_rate" in end else "train_loss"
    target = end[metric] / 100 if metric == "train_loss" else 0.5 / num_train_examples
    if fitted_train_loss is not None:
        metric, target = "train_loss", fitted_train_loss
    target = max(target, sys.float_info.min)
    needed = _steps_to_reach(target, middle, end, metric)
    bounded = min(max(needed, 2 * max_train_steps), MAX_NEXT_FACTOR * max_train_steps)
    suggestion = min(_two_digits_up(bounded), MAX_NEXT_FACTOR * max_train_steps)
    return CurveReading(
        "n_too_small", "undecided", suggestion,
        f"N is too small: the best training loss went {shown}, and so is still falling fast "
        f"({fall:.0%} since the middle of the run). Try --config.max_train_steps={suggestion}.",
    )  # fmt: skip


def _around(rows: Sequence[Row], low: float, high: float, max_train_steps: int) -> Row | None:
    """The mean of the measurements between two fractions of the run, None if there is none."""
    part = [row for row in rows if low * max_train_steps <= row["step"] <= high * max_train_steps]
    return {key: sum(row[key] for row in part) / len(part) for key in part[0]} if part else None


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


def _two_digits_up(steps: float) -> int:
    scale = 10 ** max(len(str(math.ceil(steps))) - 2, 0)
    return math.ceil(steps / scale) * scale
