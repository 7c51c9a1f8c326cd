"""Trials whose losses come from a formula instead of training, for a study's real controller."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable
from typing import Any

from budgetflow.config import StudyConfig, default_config, log_uniform
from budgetflow.engine.training.timing import Stopwatch
from budgetflow.engine.training.trial_run import Measurement
from budgetflow.studies.kinds import parse_study
from budgetflow.studies.plan.trials import TrialPlan
from budgetflow.studies.store.trial import TrialRecord
from budgetflow.studies.study import Study

# The learning rate with the lowest loss.
BEST_RATE = 0.1


class SimulatedTrials:
    """Takes the place of ``LiveTrials`` (:mod:`budgetflow.studies.run.live_trials`): no states.

    Args:
        study: the study.
        stop_after: how many trials to finish before a KeyboardInterrupt, as if killed; None for
            all of them.

    Attributes:
        stopwatch: empty, but for a moment of training.
    """

    def __init__(self, study: Study, stop_after: int | None = None) -> None:
        self._side_by_side = study.mesh.shape["trial"]
        self._stop_after = math.inf if stop_after is None else stop_after
        self._finished = 0
        self._rates: dict[int, float] = {}
        self.stopwatch = Stopwatch()
        self.stopwatch.seconds |= {"training": 1e-3, "data": 0.0}

    def __contains__(self, number: int) -> bool:
        """Whether a trial is under way."""
        return number in self._rates

    def wave(self, trials: Iterable[int]) -> dict[int, int]:
        """The first of some trials: as many as run at the same time."""
        return {n: slot for slot, n in enumerate(itertools.islice(trials, self._side_by_side))}

    def open(self, record: TrialRecord, plan: TrialPlan, position: int) -> None:
        """Begins a trial."""
        self._rates[record.trial] = record.base_learning_rate

    def advance(self, trials: Collection[int], to_step: int) -> dict[int, Measurement]:
        """The losses of some trials at a step: of a quadratic in the logarithm of the rate."""
        return {number: self._measured(number, to_step) for number in trials}

    def _measured(self, number: int, step: int) -> Measurement:
        rate = self._rates[number]
        loss = math.log(rate / BEST_RATE) ** 2 + 1 / step
        metrics = {"loss": loss, "error_rate": loss / (1 + loss)}
        row: dict[str, Any] = {"step": step, "learning_rate": rate}
        row |= {f"{split}_{k}": v for split in ("train", "validation") for k, v in metrics.items()}
        return Measurement(row, diverged=False, fitted_at_step_bracket=None)

    def hold(self, record: TrialRecord, plan: TrialPlan) -> bool:
        """Keeps nothing; no record is due before its trial is over."""
        return False

    def close(self, record: TrialRecord, plan: TrialPlan, save: bool = True) -> None:
        """Ends a trial."""
        del self._rates[record.trial]
        self._finished += 1
        if self._finished > self._stop_after:
            raise KeyboardInterrupt


def simulated_config(trials: int) -> StudyConfig:
    """A round of short trials of a small model, which differ in two numbers."""
    config = default_config("round")
    config.name = "simulated"
    config.max_train_steps = 20
    config.evaluation.evaluations = 2
    config.model.hidden_sizes = (8,)
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.5
    config.search.trials = trials
    config.search.space = (
        log_uniform("schedule.base_learning_rate", BEST_RATE / 10, BEST_RATE * 10),
        log_uniform("regularization.weight_decay", 1e-5, 1e-2),
    )
    return parse_study(config)
