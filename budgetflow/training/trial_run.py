"""One trial under way: advancing it to a step, and measuring it there."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from budgetflow.config import StudyConfig
from budgetflow.data.batches import batch_indices, stream_batches, stream_in_order
from budgetflow.data.source import Dataset, Split
from budgetflow.schedules import Schedule
from budgetflow.training.spec import program_spec, traced_numbers
from budgetflow.training.step import FIT_CHECK_EXAMPLES, Program, Progress, TrainState, make_program

Block = tuple[dict[str, Any], Any]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A trial at a step.

    Attributes:
        row: "step", "learning_rate" (of the update that led here), and every metric of the task on
            the training and validation split, "train_loss" and so on: functions of the state alone.
        diverged: whether a loss was not finite.
        fitted_at_step_bracket: [last step known not to fit the training set, first known to fit],
        or
            None.
    """

    row: dict[str, Any]
    diverged: bool
    fitted_at_step_bracket: tuple[int, int] | None


class TrialRun:
    """A trial's state on the device, and its way through its schedule.

    Args:
        config: the trial's config, its hyperparameters filled in.
        schedule: its learning rates, one for each update.
        dataset: the data.
        varied: the fields that the study's search space varies.
        checks_fit: whether to notice the step at which the training set is fitted.
    """

    def __init__(
        self,
        config: StudyConfig,
        schedule: Schedule,
        dataset: Dataset,
        varied: frozenset[str],
        checks_fit: bool,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._learning_rates = schedule.learning_rates()
        self._numbers = traced_numbers(config)
        self._checks_fit = checks_fit
        self._program: Program = make_program(program_spec(config, dataset, varied, checks_fit))
        self._progress = Progress(np.int32(-1), np.int32(-1), np.int32(0))
        self._checked_step = 0
        self.state: TrainState = self._program.init(np.uint32(config.seed))
        self.step = 0

    def resume(self, state: TrainState) -> None:
        """Goes on from a restored state instead of step 0."""
        self.state = state
        self.step = self._checked_step = int(state.step)

    def advance(self, to_step: int) -> Measurement:
        """Makes the updates up to ``to_step`` and measures the trial there."""
        data = device_arrays(self._dataset.train)
        for step, batch in zip(range(self.step, to_step), self._batches(to_step), strict=True):
            self.state, self._progress = self._program.train_step(
                self.state, self._progress, data, batch, self._learning_rates[step], self._numbers
            )
        self.step = to_step
        measurement = self._measure()
        self._checked_step = to_step
        return measurement

    def _batches(self, to_step: int) -> Iterator[Any]:
        seed, size = self._config.seed, self._config.data.batch_size
        train = self._dataset.train
        if train.arrays is None:
            return stream_batches(train, seed, self.step, to_step, size)
        return (
            batch_indices(seed, step, size, train.num_examples)
            for step in range(self.step, to_step)
        )

    def _measure(self) -> Measurement:
        evaluation = self._config.evaluation
        train = self.evaluate(self._dataset.train, evaluation.train_examples)
        validation = self.evaluate(self._dataset.validation)
        row = {"step": self.step, "learning_rate": float(self._learning_rates[self.step - 1])}
        row |= {f"train_{name}": value for name, value in train.items()}
        row |= {f"validation_{name}": value for name, value in validation.items()}
        progress: Progress = jax.device_get(self._progress)
        infinite = not all(math.isfinite(value) for value in row.values())
        diverged_at = int(progress.diverged_at_step)
        bracket = self._fitted_bracket(int(progress.fitted_at_step))
        return Measurement(row, diverged_at >= 0 or infinite, bracket)

    def _fitted_bracket(self, fitted_at_step: int) -> tuple[int, int] | None:
        if not self._checks_fit:
            return None
        if self._dataset.train.arrays is not None:
            return (fitted_at_step - 1, fitted_at_step) if fitted_at_step >= 0 else None
        # Streamed data is too large to look at in every step: once per measurement, to the first
        # mistake.
        batches = stream_in_order(self._dataset.train, FIT_CHECK_EXAMPLES)
        params, model_state = self.state.params, self.state.model_state
        fits = all(bool(self._program.is_fitted(params, model_state, batch)) for batch in batches)
        return (self._checked_step, self.step) if fits else None

    def evaluate(self, split: Split, max_examples: int | None = None) -> dict[str, float]:
        """The task's metrics over a whole split (or its first ``max_examples``)."""
        totals: dict[str, Any] = {}
        for batch, weights in evaluation_blocks(
            split, self._config.evaluation.batch_size, max_examples
        ):
            totals = self._program.eval_step(
                totals, self.state.params, self.state.model_state, batch, weights
            )
        sums = {name: float(value) for name, value in jax.device_get(totals).items()}
        examples = sums.pop("examples")
        return {name: value / examples for name, value in sums.items()}


@functools.lru_cache(maxsize=8)
def device_arrays(split: Split) -> dict[str, jax.Array] | None:
    """A split that is held in memory, on the device; None for a streamed one."""
    return None if split.arrays is None else jax.device_put(split.arrays)


def evaluation_blocks(
    split: Split, batch_size: int, max_examples: int | None = None
) -> Iterable[Block]:
    """A split in batches of one size; padding in the last one has weight 0."""
    count = min(split.num_examples, max_examples or split.num_examples)
    if split.arrays is not None:
        return _resident_blocks(split, min(batch_size, count), count)
    size = min(batch_size, count)
    batches = itertools.islice(stream_in_order(split, size), -(-count // size))
    return (_padded(batch, size, count - i * size) for i, batch in enumerate(batches))


@functools.lru_cache(maxsize=16)
def _resident_blocks(split: Split, size: int, count: int) -> list[Block]:
    assert split.arrays is not None
    return [
        jax.device_put(
            _padded(
                {k: a[start : start + size] for k, a in split.arrays.items()}, size, count - start
            )
        )
        for start in range(0, count, size)
    ]


def _padded(batch: dict[str, np.ndarray], size: int, remaining: int) -> Block:
    """``batch`` padded to ``size`` by repeating examples, and weights: 1 for the first few."""
    rows = np.arange(size) % len(batch["targets"])
    weights = (np.arange(size) < remaining).astype(np.float32)
    return {name: array[rows] for name, array in batch.items()}, weights
