"""Trials side by side: each on a slice of the mesh of its own."""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
from jax.sharding import Mesh

from budgetflow.base import processes, stopping
from budgetflow.engine.training.mesh import trial_slices
from budgetflow.engine.training.trial_run import Measurement, TrialRun

Value = TypeVar("Value")
# How soon several processes know that one of them was asked to stop.
STRETCH_SECONDS = 1.0


class Population:
    """Hands the mesh's slices to trials, and advances the trials.

    Args:
        mesh: by :func:`budgetflow.engine.training.mesh.make_mesh`.
        trials_at_a_time: how many of its slices to use; None for all.

    Attributes:
        slices: the meshes that trials run on, one for each position on the axis ``trial``.
    """

    def __init__(self, mesh: Mesh, trials_at_a_time: int | None = None) -> None:
        self.slices = trial_slices(mesh)[:trials_at_a_time]
        self._pool = ThreadPoolExecutor(len(self.slices))
        self._stretch_steps = 1

    def is_mine(self, number: int) -> bool:
        """Whether some of a slice's devices belong to this process."""
        here = jax.process_index()
        return any(device.process_index == here for device in self.slices[number].devices.flat)

    def advance(
        self, runs: Mapping[int, TrialRun | None], to_step: int
    ) -> dict[int, Measurement | None]:
        """Advances trials to a step, at the same time, and measures them there.

        Args:
            runs: by trial, each on another slice; None for those on other processes.
            to_step: the step.

        Returns:
            All trials' measurements, on every process; None for one that was asked to stop.
        """
        if jax.process_count() > 1 and not self._reached_by_all(runs, to_step):
            return dict.fromkeys(runs)
        measured = self._at_once(TrialRun.advance, runs, to_step)
        everyone = collections.ChainMap(*processes.gather(measured))
        return {number: everyone[number] for number in runs}

    def _reached_by_all(self, runs: Mapping[int, TrialRun | None], to_step: int) -> bool:
        """Makes the updates in stretches of a second or so; between them, processes agree to stop.

        Returns:
            Whether none was asked to.
        """
        here = [run.step for run in runs.values() if run is not None]
        step = min(itertools.chain(*processes.gather(here)))
        while step < to_step and not stopping.agree():
            step = min(step + self._stretch_steps, to_step)
            behind = {n: run for n, run in runs.items() if run is not None and run.step < step}
            start = time.monotonic()
            self._at_once(TrialRun.reach, behind, step)
            # The same on every process, since all of them have to look at the same step.
            if max(processes.gather(time.monotonic() - start)) < STRETCH_SECONDS:
                self._stretch_steps *= 2
        return not stopping.is_asked()

    def train(self, runs: Mapping[int, TrialRun | None], to_step: int) -> None:
        """Advances trials to a step like :meth:`advance`, without measuring them."""
        self._at_once(TrialRun.train, runs, to_step)

    def _at_once(
        self,
        method: Callable[[TrialRun, int], Value],
        runs: Mapping[int, TrialRun | None],
        to_step: int,
    ) -> dict[int, Value]:
        """Calls a method of this process's trials, on a thread for each."""
        own = {number: run for number, run in runs.items() if run is not None}
        # A single one on this thread, so that an interrupt reaches it.
        on_threads = map if len(own) == 1 else self._pool.map
        return dict(
            zip(own, on_threads(method, own.values(), itertools.repeat(to_step)), strict=True)
        )
