"""Trials side by side: one at a time on each slice of the mesh."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
from jax.sharding import Mesh

from budgetflow import processes
from budgetflow.training.mesh import trial_slices
from budgetflow.training.trial_run import Measurement, TrialRun

Value = TypeVar("Value")


class Population:
    """Hands the mesh's slices to trials, and advances the trials.

    Args:
        mesh: by :func:`budgetflow.training.mesh.make_mesh`.
        trials_at_a_time: how many of its slices to use; None for all.

    Attributes:
        slices: the meshes that trials run on, one for each position on the axis ``trial``.
    """

    def __init__(self, mesh: Mesh, trials_at_a_time: int | None = None) -> None:
        self.slices = trial_slices(mesh)[:trials_at_a_time]
        self._pool = ThreadPoolExecutor(len(self.slices))

    def is_mine(self, number: int) -> bool:
        """Whether some of a slice's devices belong to this process."""
        here = jax.process_index()
        return any(device.process_index == here for device in self.slices[number].devices.flat)

    def advance(self, runs: Mapping[int, TrialRun | None], to_step: int) -> dict[int, Measurement]:
        """Advances trials to a step, at the same time, and measures them there.

        Args:
            runs: by trial; None for those on other processes. No two share a slice.
            to_step: the step.

        Returns:
            All trials' measurements, on every process.
        """
        measured = self._side_by_side(TrialRun.advance, runs, to_step)
        everyone = collections.ChainMap(*processes.gather(measured))
        return {number: everyone[number] for number in runs}

    def train(self, runs: Mapping[int, TrialRun | None], to_step: int) -> None:
        """Advances trials to a step like :meth:`advance`, without measuring them."""
        self._side_by_side(TrialRun.train, runs, to_step)

    def _side_by_side(
        self,
        function: Callable[[TrialRun, int], Value],
        runs: Mapping[int, TrialRun | None],
        to_step: int,
    ) -> dict[int, Value]:
        mine = {number: run for number, run in runs.items() if run is not None}
        if len(mine) == 1:  # on this thread, so that an interrupt reaches it
            return {number: function(run, to_step) for number, run in mine.items()}
        futures = {n: self._pool.submit(function, run, to_step) for n, run in mine.items()}
        return {number: future.result() for number, future in futures.items()}
