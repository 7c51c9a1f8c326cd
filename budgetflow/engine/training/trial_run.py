"""One trial under way: advancing it to a step, and measuring it there."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from budgetflow.base import stopping
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.engine.data.batches import batch_indices, stream_batches
from budgetflow.engine.data.records import Example, Split, nbytes, stacked
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.training.device_data import Batches, DeviceData, even_batch_size
from budgetflow.engine.training.evaluation_size import evaluation_batch_size
from budgetflow.engine.training.fit_check import FIT_CHECK_EXAMPLES, Progress, initial_progress
from budgetflow.engine.training.mesh import (
    batch_sharding,
    is_local,
    local_rows,
    place,
    replicated,
)
from budgetflow.engine.training.spec import program_spec, traced_numbers
from budgetflow.engine.training.step import Program, TrainState, make_program
from budgetflow.engine.training.timing import Profiler, Stopwatch
from budgetflow.engine.training.tracing import check_parts, task_metrics

if TYPE_CHECKING:
    from budgetflow.config import StudyConfig

# Examples that wait on the device for one call; fewer updates a call where they are large.
STREAMED_BYTES_PER_CALL = 16 * 2**20
# Calls that may wait on the device, or twice as many: enough to keep it busy.
CALLS_AHEAD = 4
# Training examples to evaluate while trials race, for their order.
RACE_EXAMPLES = 256
# Of what the compiled step notices, what a checkpoint between two evaluations goes with.
NOTICED_STEPS = ("diverged_at_step", "fitted_at_step")
# Calls whose arguments are made at once, since each costs little beside the making.
CALLS_PREPARED = 64


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A trial at a step.

    Attributes:
        row: "step", "learning_rate" (of the update that led here), and every metric of the task on
            the training and validation split, "train_loss" and so on: functions of the state alone.
            In a race, before a trial fits or ends, it has none on the validation split; and where
            it is for the order alone, it is on the first few training examples only,
            "partial_train_examples" of them.
        diverged: whether a loss was not finite.
        fitted_at_step_bracket: [last step known not to fit the training set, first known to fit],
            or None.
    """

    row: dict[str, Any]
    diverged: bool
    fitted_at_step_bracket: tuple[int, int] | None


class TrialRun:
    """A trial's state on its devices, and its way through its schedule.

    Where all of these are other processes' devices, it holds the state's shapes and trains nothing.

    Args:
        config: the trial's config, its hyperparameters filled in.
        schedule: its learning rates, one for each update.
        data: on its devices; whoever made it lets it go.
        program: its compiled functions, by :func:`trial_program`.
        whole_at: of a trial that races to a fit, the steps before it at which the training split is
            evaluated as the config says, and elsewhere a few examples; the validation split is from
            the fit on, and at the end. None to evaluate both at every step.

    Attributes:
        program: its compiled functions.
        data: see above.
        is_local: whether some of its devices belong to this process.
        numbers: what the compiled functions take as traced numbers.
        state: the train state; its shapes if no device is local.
        progress: what the compiled step has noticed.
        step: updates made so far.
        checkpoints: its saved states, for whoever saves it.
        stopwatch: where the time went.
        profiler: traces some of its steps.
    """

    def __init__(
        self,
        config: StudyConfig,
        schedule: Schedule,
        data: DeviceData,
        program: Program,
        whole_at: frozenset[int] | None = None,
    ) -> None:
        self._config = config
        self._whole_at = whole_at
        self._has_fitted = False
        self.data = data
        train = data.dataset.train
        self._learning_rates = schedule.learning_rates()
        self.program = program
        self._steps_per_call = steps_per_call(config, train, program)
        self._checked_step = self.step = 0
        self.stopwatch = Stopwatch()
        self.profiler = Profiler()
        self.checkpoints: TrialCheckpoints
        self.is_local = is_local(program.mesh)
        self.state: TrainState = program.state
        if self.is_local:
            everywhere = replicated(program.mesh)
            self.numbers = place(traced_numbers(config, program.spec), everywhere)
            # On the mesh from the start, or the first call would compile a program of its own.
            self.progress: Progress = place(initial_progress(train.num_examples), everywhere)
            with self.stopwatch("training"):
                rate = np.float32(self._learning_rates[0])
                self.state = program.init(self.numbers, rate)

    def resume(
        self, state: TrainState, has_fitted: bool, noticed: Mapping[str, int] | None = None
    ) -> None:
        """Goes on from a restored state instead of step 0.

        Args:
            state: the state.
            has_fitted: whether it, or one before it, fitted the training set.
            noticed: of a state between two evaluations, by :meth:`noticed`.
        """
        self.state, self._has_fitted = state, has_fitted
        if not self.is_local:
            return
        self.step = self._checked_step = int(state.step)
        if noticed is not None:
            self._checked_step = noticed["checked_step"]
            steps = {name: np.int32(noticed[name]) for name in NOTICED_STEPS}
            progress = initial_progress(self.data.dataset.train.num_examples)._replace(**steps)
            self.progress = place(progress, replicated(self.program.mesh))

    def noticed(self) -> dict[str, int]:
        """What a state between two evaluations needs to go on, as JSON values.

        That is its "step", the "checked_step" of the last evaluation, and what was noticed since.
        """
        progress = jax.device_get(self.progress)
        steps = {name: int(getattr(progress, name)) for name in NOTICED_STEPS}
        return {"step": self.step, "checked_step": self._checked_step, **steps}

    def release(self) -> None:
        """Frees the devices of its state, whoever still refers to it; it cannot go on."""
        if self.is_local:
            for array in jax.tree.leaves((self.state, self.progress, self.numbers)):
                array.delete()

    def advance(self, to_step: int, measures: bool = True) -> Measurement | None:
        """Makes the updates up to ``to_step`` and measures the trial there, unless told not to.

        None if it was asked to stop before, see :mod:`budgetflow.base.stopping`.
        """
        try:
            for step in sorted({to_step, *self.profiler.stops(self.step, to_step)}):
                self.train(step)
                self.profiler.reached(step)
        except stopping.StoppedError:
            return None
        return self.measure() if measures else None

    def train(self, to_step: int) -> None:
        """Makes the updates up to ``to_step`` and waits for them.

        Raises:
            StoppedError: it was asked to stop, and has at the step where it stands.
        """
        program = self.program
        data = self.data.training_set(program.mesh)
        under_way: list[Any] = []
        with self.stopwatch("training"):
            for batches, rates, count in self._calls(to_step):
                self.state, self.progress = program.train_steps(
                    self.state, self.progress, data, batches, rates, np.int32(count), self.numbers
                )
                self.step += count
                under_way.append(self.progress)
                if len(under_way) == 2 * CALLS_AHEAD:
                    jax.block_until_ready(under_way[CALLS_AHEAD])
                    del under_way[:CALLS_AHEAD]
                if stopping.is_asked():
                    break
            jax.block_until_ready(self.progress)
        if self.step < to_step:
            raise stopping.StoppedError

    def _calls(self, to_step: int) -> Iterator[tuple[Any, np.ndarray, int]]:
        """What each call of the compiled step takes: batches, learning rates, how many updates.

        The arrays have one length, whatever the number of updates: any length compiles only once.
        """
        seed, size, length = self._config.seed, self._config.data.batch_size, self._steps_per_call
        train = self.data.dataset.train
        streamed = self._streamed(to_step) if train.arrays is None else None
        for first in range(self.step, to_step, length * CALLS_PREPARED):
            with self.stopwatch.part_of("training", "data"):
                steps = min(length * CALLS_PREPARED, to_step - first)
                calls = -(-steps // length)
                rates = np.zeros((calls, length), np.float32)
                rates.flat[:steps] = self._learning_rates[first : first + steps]
                if streamed is None:
                    indices = np.zeros((calls * length, size), np.int32)
                    indices[:steps] = batch_indices(
                        seed=seed,
                        first_step=first,
                        last_step=first + steps,
                        batch_size=size,
                        num_examples=train.num_examples,
                    )
                    batches: Iterable[Any] = indices.reshape(calls, length, size)
                else:
                    batches = streamed
            # The calls first: a zip that runs out of them takes no batch too many.
            counts = [length] * (calls - 1) + [steps - length * (calls - 1)]
            for count, row, batch in zip(counts, rates, batches, strict=False):
                yield batch, row, count

    def _streamed(self, to_step: int) -> Iterator[Example]:
        """The batches of call after call, read by this process's share and placed on the mesh."""
        size, mesh, length = self._config.data.batch_size, self.program.mesh, self._steps_per_call
        rows, sharding = local_rows(mesh, size), batch_sharding(mesh, leading_dimensions=1)
        batches = stream_batches(
            split=self.data.dataset.train,
            seed=self._config.seed,
            first_step=self.step,
            last_step=to_step,
            batch_size=size,
            rows=rows,
        )
        for first in range(self.step, to_step, length):
            with self.stopwatch.part_of("training", "data"):
                group = list(itertools.islice(batches, min(length, to_step - first)))
                group += group[-1:] * (length - len(group))
                placed = place(stacked(iter(group)), sharding)
            yield placed

    def measure(self) -> Measurement:
        """Measures the trial where it stands."""
        with self.stopwatch("evaluation"):
            measurement = self._measure()
        self._checked_step = self.step
        return measurement

    def _measure(self) -> Measurement:
        diverged_at_step, fitted_at_step = jax.device_get(self.progress[:2])
        bracket = self._noticed_fit(int(fitted_at_step))
        self._has_fitted |= bracket is not None
        row = {"step": self.step, "learning_rate": float(self._learning_rates[self.step - 1])}
        row |= self._metrics()
        threshold = self._config.sweep.fitted_train_loss
        if threshold is not None and row["train_loss"] < threshold:
            bracket = (self._checked_step, self.step)
        # What is trained on and what is selected by; another metric may be undefined.
        metric = self._config.evaluation.selection_metric
        deciding = ("train_loss", f"train_{metric}", f"validation_{metric}")
        infinite = not all(math.isfinite(row[key]) for key in deciding if key in row)
        return Measurement(row, int(diverged_at_step) >= 0 or infinite, bracket)

    def _metrics(self) -> dict[str, Any]:
        """What a row holds of both splits; in a race, of the training split or a part of it."""
        train, examples = self.data.dataset.train, self._config.evaluation.train_examples
        metrics: dict[str, Any] = {}
        totals = {}
        is_last = self.step == len(self._learning_rates)
        if self._whole_at is None or self._has_fitted or is_last:
            totals["validation"] = self._totals(self.data.dataset.validation)
        elif self.step not in self._whole_at:
            examples = min(RACE_EXAMPLES, examples, train.num_examples)
            metrics["partial_train_examples"] = examples
        totals["train"] = self._totals(train, examples)
        # One transfer for all of it.
        for split, sums in jax.device_get(totals).items():
            metrics |= {f"{split}_{name}": value for name, value in self._values(sums).items()}
        return metrics

    def _noticed_fit(self, fitted_at_step: int) -> tuple[int, int] | None:
        """The bracket of the first step known to fit every training example, where that counts."""
        if not self.program.spec.checks_fit:
            return None
        train = self.data.dataset.train
        if train.arrays is not None:
            return (fitted_at_step - 1, fitted_at_step) if fitted_at_step >= 0 else None
        # Streamed data is too large to look at in every step: once per measurement, to the first
        # mistake.
        params, model_state = self.state.evaluated_params, self.state.model_state
        blocks = self.batches(train, FIT_CHECK_EXAMPLES)
        fits = all(self.program.is_fitted(params, model_state, each.batches) for each in blocks)
        return (self._checked_step, self.step) if fits else None

    def evaluate(self, split: Split, max_examples: int | None = None) -> dict[str, float]:
        """The task's metrics over a whole split (or its first ``max_examples``)."""
        return self._values(jax.device_get(self._totals(split, max_examples)))

    def _values(self, totals: dict[str, tuple[Any, Any]]) -> dict[str, float]:
        """The task's metrics from their sums over a split."""
        metrics = task_metrics(self.program.spec)
        return {name: metrics[name].value(*map(float, sums)) for name, sums in totals.items()}

    def _totals(self, split: Split, max_examples: int | None = None) -> dict[str, Any]:
        totals: dict[str, Any] = {}
        size, state = evaluation_batch_size(self._config, self.program), self.state
        for batches in self.batches(split, size, max_examples):
            totals = self.program.eval_step(
                totals, state.evaluated_params, state.model_state, *batches
            )
        return totals

    def batches(
        self, split: Split, batch_size: int, max_examples: int | None = None
    ) -> Iterable[Batches]:
        """A split, or its first examples, as the compiled evaluation takes it."""
        count = min(split.num_examples, max_examples or split.num_examples)
        mesh = self.program.mesh
        size = even_batch_size(batch_size, count, mesh)
        return self.data.batches(split, size, count, mesh, together=self.program.loops)


def trial_program(
    config: StudyConfig, dataset: Dataset, varied: frozenset[str], checks_fit: bool, mesh: Mesh
) -> Program:
    """The compiled functions of a trial on the devices of a mesh.

    Args:
        config: the trial's config, its hyperparameters filled in.
        dataset: the data.
        varied: the fields that the study's search space varies.
        checks_fit: whether to notice the step at which the training set is fitted.
        mesh: with axes ``data`` and ``fsdp``.
    """
    spec = program_spec(config, dataset, varied, checks_fit)
    check_parts(spec, config, varied)
    return make_program(spec, mesh, config.mesh.min_sharded_size)


def steps_per_call(config: StudyConfig, train: Split, program: Program) -> int:
    """The most updates that a call of the compiled step makes; fewer where batches are large."""
    if train.arrays is not None:
        return program.steps_per_call
    batch_bytes = config.data.batch_size * nbytes(train.example(0))
    fitting = STREAMED_BYTES_PER_CALL // batch_bytes
    return max(1, min(program.steps_per_call, fitting))
