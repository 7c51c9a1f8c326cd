"""Studies whose trials follow a formula instead of training; all that decides is the real thing."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from budgetflow.base.files import read_json
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.engine.data.records import Split
from budgetflow.engine.training.timing import Stopwatch
from budgetflow.engine.training.trial_run import Measurement
from budgetflow.playbook.common.measurement import PARTIAL
from budgetflow.studies.plan.chain import resolved
from budgetflow.studies.plan.reuse import kept_steps
from budgetflow.studies.plan.trials import TrialPlan
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.store.trial import TrialRecord, trial_folder
from budgetflow.studies.study import Study

# (plan, step) -> what a trial measures at a step: "train_loss", "validation_error_rate" and so on;
# where it fits the training set by then, "fitted_at": since which step. One that is not finite
# diverged.
Law = Callable[[TrialPlan, int], dict[str, float]]

# Of a law's values, those that are no measurement.
FITTED_AT = "fitted_at"
# The training examples that a trial which races is said to be evaluated on, before it fits.
PARTIAL_EXAMPLES = 100


def quadratic(plan: TrialPlan, step: int) -> dict[str, float]:
    """A law: the loss is a quadratic in the logarithm of the learning rate, lowest at 0.1."""
    loss = math.log(plan.schedule.base_learning_rate / 0.1) ** 2 + 1 / step
    metrics = {"loss": loss, "error_rate": loss / (1 + loss)}
    return {f"{split}_{k}": v for split in ("train", "validation") for k, v in metrics.items()}


def run_simulated(
    chain: Sequence[Any], workdir: epath.PathLike, law: Law, saves: bool = False
) -> dict[str, dict[str, Any]]:
    """Runs studies, each building on the one before.

    Args:
        chain: their parsed configs, the first study's first.
        workdir: where their folders are to lie.
        law: what their trials measure.
        saves: whether trials leave checkpoints, which others can continue.

    Returns:
        What each ``outcome.json`` holds, by the study's name.
    """
    outcomes: dict[str, dict[str, Any]] = {}
    for study in resolved(chain, epath.Path(workdir)):
        run_simulated_study(study, law, saves=saves)
        outcomes[study.folder.name] = read_json(study.folder / "outcome.json")
    return outcomes


def run_simulated_study(
    study: Study, law: Law, *, saves: bool = False, stop_after: int | None = None
) -> dict[str, Any]:
    """Runs, or goes on with, one study; see :class:`SimulatedTrials`.

    Returns:
        What its ``outcome.json`` holds.

    Raises:
        KeyboardInterrupt: ``stop_after`` trials are finished.
    """
    live: Any = SimulatedTrials(study, law, saves=saves, stop_after=stop_after)
    return run_study(study, lambda *_: None, live=live)


class SimulatedState(NamedTuple):
    """What a checkpoint of a simulated trial holds."""

    step: jax.Array


@dataclasses.dataclass
class _OpenTrial:
    """A trial that is under way; ``step`` is where it was measured last."""

    plan: TrialPlan
    step: int
    learning_rates: np.ndarray
    checkpoints: TrialCheckpoints | None


class SimulatedTrials:
    """Takes the place of ``LiveTrials`` (:mod:`budgetflow.studies.run.live_trials`): no states.

    Args:
        study: the study.
        law: what its trials measure.
        saves: whether they leave checkpoints, which others can continue.
        stop_after: how many trials to finish before a KeyboardInterrupt, as if killed; None for
            all of them.

    Attributes:
        stopwatch: empty, but for a moment of training.
    """

    def __init__(
        self, study: Study, law: Law, *, saves: bool = False, stop_after: int | None = None
    ) -> None:
        self._study, self._law, self._saves = study, law, saves
        self._side_by_side = study.mesh.shape["trial"]
        self._left = math.inf if stop_after is None else stop_after
        self._open: dict[int, _OpenTrial] = {}
        self.stopwatch = Stopwatch()
        self.stopwatch.seconds |= {"training": 1e-3, "data": 0.0}

    def __contains__(self, number: int) -> bool:
        """Whether a trial is under way."""
        return number in self._open

    def wave(self, trials: Iterable[int]) -> dict[int, int]:
        """The first of some trials: as many as run at the same time."""
        return {n: slot for slot, n in enumerate(itertools.islice(trials, self._side_by_side))}

    def open(self, record: TrialRecord, plan: TrialPlan, position: int) -> None:
        """Begins a trial, or goes on with it from its step."""
        folder = trial_folder(self._study.folder, record.trial)
        checkpoints = TrialCheckpoints(folder, math.inf) if self._saves else None
        rates = plan.schedule.learning_rates()
        self._open[record.trial] = _OpenTrial(plan, record.step, rates, checkpoints)

    def start(self, plan: TrialPlan, position: int) -> _SimulatedRun:
        """A trial that is run again beside those that are recorded."""
        return _SimulatedRun(plan)

    def advance(self, trials: Collection[int], to_step: int) -> dict[int, Measurement]:
        """What some trials measure at a step."""
        return {number: self._measured(self._open[number], to_step) for number in trials}

    def _measured(self, trial: _OpenTrial, step: int) -> Measurement:
        plan, values = trial.plan, self._law(trial.plan, step)
        fitted_at = values.pop(FITTED_AT, math.inf)
        row = {"step": step, "learning_rate": float(trial.learning_rates[step - 1])}
        # In a race, as :class:`budgetflow.engine.training.trial_run.TrialRun` evaluates.
        if plan.whole_at is not None and step < min(fitted_at, plan.length_steps):
            values = {k: v for k, v in values.items() if not k.startswith("validation_")}
            if step not in plan.whole_at:
                row[PARTIAL] = PARTIAL_EXAMPLES
        bracket = None
        threshold = plan.config.sweep.fitted_train_loss
        if threshold is not None and values["train_loss"] < threshold:
            bracket = (trial.step, step)
        elif step >= fitted_at:
            bracket = (int(fitted_at) - 1, int(fitted_at))
        trial.step = step
        diverged = not all(map(math.isfinite, values.values()))
        return Measurement({**row, **values}, diverged, bracket)

    def hold(self, record: TrialRecord, plan: TrialPlan) -> bool:
        """Keeps a trial's state where it saves any; no record is due before its trial is over."""
        if checkpoints := self._open[record.trial].checkpoints:
            keep = kept_steps(self._study, plan, record)
            checkpoints.hold(record.step, SimulatedState(jnp.asarray(record.step)), keep)
        return False

    def close(self, record: TrialRecord, plan: TrialPlan, save: bool = True) -> None:
        """Ends a trial."""
        checkpoints = self._open.pop(record.trial).checkpoints
        if checkpoints and save:
            keep = kept_steps(self._study, plan, record)
            state = SimulatedState(jnp.asarray(record.step))
            checkpoints.save(keep, record.step, None if record.status == "diverged" else state)
            checkpoints.finish()
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt

    def evaluate(self, number: int, split: Split) -> dict[str, float]:
        """A trial's metrics on a split, the validation split's on any."""
        trial = self._open[number]
        values = self._law(trial.plan, trial.step).items()
        prefix = "validation_"
        return {k.removeprefix(prefix): v for k, v in values if k.startswith(prefix)}


@dataclasses.dataclass
class _SimulatedRun:
    """A trial that is run again, for what is measured once a study's trials are done."""

    plan: TrialPlan
    step: int = 0
    is_local: bool = True

    def train(self, to_step: int) -> None:
        """Goes on to a step."""
        self.step = to_step
