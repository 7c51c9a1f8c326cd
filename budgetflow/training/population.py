"""Trials side by side: on each slice of the mesh one at a time, or several vectorized."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from budgetflow import processes
from budgetflow.training.mesh import trial_slices
from budgetflow.training.trial_run import (
    Measurement,
    TrialRun,
    advance_together,
    train_together,
)

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
            runs: by trial; None for those on other processes. Those that share a slice are
                vectorized, where they have the same program and are at the same step.
            to_step: the step.

        Returns:
            All trials' measurements, on every process.
        """
        measured = self._on_slices(advance_together, runs, to_step)
        everyone = collections.ChainMap(*processes.gather(measured))
        return {number: everyone[number] for number in runs}

    def train(self, runs: Mapping[int, TrialRun | None], to_step: int) -> None:
        """Advances trials to a step like :meth:`advance`, without measuring them."""
        self._on_slices(train_together, runs, to_step)

    def _on_slices(
        self,
        function: Callable[[Sequence[TrialRun], int], Sequence[Value] | None],
        runs: Mapping[int, TrialRun | None],
        to_step: int,
    ) -> dict[int, Value]:
        """Calls a function with the trials of each slice, on a thread for each slice."""
        by_slice: dict[Mesh, dict[int, TrialRun]] = collections.defaultdict(dict)
        for number, run in runs.items():
            if run is not None:
                by_slice[run.program.mesh][number] = run

        def on_slice(own: dict[int, TrialRun]) -> dict[int, Value]:
            results: dict[int, Value] = {}
            for alike in _alike(own):
                values = function([own[number] for number in alike], to_step)
                results |= zip(alike, values or (), strict=bool(values))
            return results

        if len(by_slice) == 1:  # on this thread, so that an interrupt reaches it
            return on_slice(*by_slice.values())
        futures = [self._pool.submit(on_slice, own) for own in by_slice.values()]
        return dict(collections.ChainMap(*(future.result() for future in futures)))


def _alike(runs: Mapping[int, TrialRun]) -> list[list[int]]:
    """Trials that can share a call: of the same program, at the same step."""
    groups: dict[Any, list[int]] = collections.defaultdict(list)
    for number, run in runs.items():
        groups[run.program, run.step].append(number)
    return list(groups.values())
