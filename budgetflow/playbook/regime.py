"""Which kind of workload it is, read off a training curve that did not reach a perfect fit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from budgetflow.playbook.measurement import Row

# Below this relative fall of the training loss over the second half of the run, it has stalled.
STALLED_BELOW = 0.05
# A next N up to this many times N is worth giving; beyond it, patience is what runs out.
PATIENCE_FACTOR = 16


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
    rows: Sequence[Row], max_train_steps: int, num_train_examples: int
) -> CurveReading:
    """Reads the best trial's training curve after N steps without a perfect fit.

    The second half of the run is compared with its middle: a loss that fell by less than 5 % has
    stalled. One that still falls is continued as a power law of the step, until less than half an
    example is wrong (where the task counts errors; else, until the loss has halved five times
    more).

    Args:
        rows: the measurements of the trial with the lowest training loss.
        max_train_steps: N.
        num_train_examples: the size of the training set.
    """
    end = rows[-1]
    middle = min(rows, key=lambda row: abs(row["step"] - max_train_steps / 2))
    fall = 1 - end["train_loss"] / middle["train_loss"] if middle["train_loss"] > 0 else 0.0
    shown = (
        f"its training loss went from {middle['train_loss']:.3g} at step {middle['step']} to "
        f"{end['train_loss']:.3g} at step {end['step']}"
    )
    if middle["step"] >= end["step"]:
        suggestion = PATIENCE_FACTOR * max_train_steps
        return CurveReading(
            "n_too_small", "undecided", suggestion,
            f"N = {max_train_steps} is too small to read a curve; try {suggestion}.",
        )  # fmt: skip
    if fall < STALLED_BELOW:
        return CurveReading(
            "model_cannot_fit", "undecided", None,
            f"The curve has stalled: {shown}, a fall of {fall:.0%}. It looks like a model that "
            "cannot "
            "fit this training set at a constant learning rate: try a larger model, look for wrong "
            "labels, or state that training is compute-bound.",
        )  # fmt: skip
    metric = "train_error_rate" if "train_error_rate" in end else "train_loss"
    target = 0.5 / num_train_examples if metric == "train_error_rate" else end[metric] / 32
    needed = _steps_to_reach(target, middle, end, metric)
    if needed <= PATIENCE_FACTOR * max_train_steps:
        suggestion = _two_digits_up(max(needed, 2 * max_train_steps))
        return CurveReading(
            "n_too_small", "undecided", suggestion,
            f"N is too small: {shown}, and is still falling by {fall:.0%} over the second half. "
            f"Continued like this it fits before step {suggestion}: try "
            f"--config.max_train_steps={suggestion}.",
        )  # fmt: skip
    return CurveReading(
        "compute_bound", "compute_bound", None,
        f"The loss is still falling at N ({shown}, {fall:.0%} over the second half) and a perfect "
        "fit "
        f"is more than {PATIENCE_FACTOR} times N away. It looks compute-bound: choose the length "
        "by "
        "patience and tune in rounds.",
    )  # fmt: skip


def _steps_to_reach(target: float, middle: Row, end: Row, metric: str) -> float:
    """Where the power law through two points reaches ``target``."""
    if end[metric] <= target:
        return float(end["step"])
    if end[metric] >= middle[metric]:
        return math.inf
    exponent = math.log(middle[metric] / end[metric]) / math.log(end["step"] / middle["step"])
    # In logarithms: the steps themselves can be too large for a float.
    log_steps = math.log(end["step"]) + math.log(end[metric] / target) / exponent
    return math.exp(log_steps) if log_steps < 100 else math.inf


def _two_digits_up(steps: float) -> int:
    scale = 10 ** max(len(str(math.ceil(steps))) - 2, 0)
    return math.ceil(steps / scale) * scale
