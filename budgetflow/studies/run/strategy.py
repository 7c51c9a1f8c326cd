"""How the trials of a study share the devices: side by side or one after the other.

Either way every trial is bit for bit the one it would be alone, so this is a matter of speed only.
On accelerators a trial has its share of the devices to itself, and the mesh says how many run at a
time. The CPU's virtual devices share its cores: there, trials side by side gain up to the number of
cores where the model is small and lose where it keeps the cores busy by itself; and every device
compiles the program anew. So that is timed, where a study is long enough to be worth it.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
from jax.sharding import Mesh

from budgetflow.engine.training.mesh import trial_slices
from budgetflow.engine.training.trial_run import TrialRun

# A shorter study would not win back what timing and compiling for further devices takes.
WORTH_TIMING_SECONDS = 20.0
# How long to time for a rough idea, and for a comparison.
ROUGH_SECONDS, FINE_SECONDS = 0.005, 0.3


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How trials share the devices.

    Attributes:
        trials_at_a_time: how many of the mesh's positions on the axis ``trial`` are used.
        hardware: what it was chosen for.
        steps_per_second: of all trials together, by ``trials_at_a_time`` as timed; empty if not.
        reason: why, in a sentence.
    """

    trials_at_a_time: int
    hardware: str
    steps_per_second: dict[str, float]
    reason: str


def hardware(mesh: Mesh) -> str:
    """What a strategy is chosen for, such as "2 x 1 x 1 cpu"."""
    return f"{' x '.join(map(str, mesh.shape.values()))} {mesh.devices.flat[0].device_kind}"


def choose_strategy(
    mesh: Mesh, asked_for: bool, total_steps: int, start_trial: Callable[[Mesh], TrialRun]
) -> Strategy:
    """Picks how many trials run at a time, by timing it where that is worth it.

    Args:
        mesh: the study's.
        asked_for: whether the config itself says how many.
        total_steps: about as many as the study will train, of all trials.
        start_trial: a slice of the mesh -> a trial at step 0 on it, which is trained for a while
            and dropped.
    """
    slices = trial_slices(mesh)

    def strategy(trials_at_a_time: int, reason: str, rates: dict[str, float]) -> Strategy:
        return Strategy(trials_at_a_time, hardware(mesh), rates, reason)

    if asked_for:
        return strategy(len(slices), "config.mesh.trial says so.", {})
    if len(slices) == 1 or jax.default_backend() != "cpu" or jax.process_count() > 1:
        return strategy(len(slices), "Each trial has its share of the devices to itself.", {})
    alone = [start_trial(slices[0])]
    seconds = step_seconds(alone, ROUGH_SECONDS) * total_steps
    if seconds < WORTH_TIMING_SECONDS:
        about = f"about {max(seconds, 1):.0f} seconds of training"
        return strategy(1, f"Too short a study to time more than one at a time: {about}.", {})
    together = [*alone, *map(start_trial, slices[1:])]
    rates = {
        str(len(runs)): 1 / min(step_seconds(runs, FINE_SECONDS) for _ in range(2))
        for runs in (together, alone)
    }
    best = max(rates, key=lambda count: rates[count])
    return strategy(int(best), "The fastest of those timed.", rates)


def step_seconds(runs: Sequence[TrialRun], at_least: float) -> float:
    """Seconds per step of some trials at the same time; compiles first if need be.

    Args:
        runs: the trials, each on another slice; they are trained on, however many steps that takes.
        at_least: for how many seconds to train them.
    """
    step = max(run.step for run in runs) + 1
    for run in runs:
        run.train(step)  # Compiled, and all at the same step.
    steps = 4
    while True:
        started_at = time.perf_counter()
        train_side_by_side(runs, step + steps)
        seconds = time.perf_counter() - started_at
        if seconds >= at_least:
            return seconds / (len(runs) * steps)
        step += steps
        steps *= 4


def train_side_by_side(runs: Sequence[TrialRun], to_step: int) -> None:
    """Trains trials at the same time, each on another slice, without measuring them."""
    if len(runs) == 1:
        runs[0].train(to_step)
        return
    with ThreadPoolExecutor(len(runs)) as threads:
        list(threads.map(TrialRun.train, runs, itertools.repeat(to_step)))
