"""How the trials of a study share the devices: side by side or one after the other.

Either way every trial is bit for bit the one it would be alone, so this is a matter of speed only.
On accelerators a trial has its share of the devices to itself, and the mesh says how many run at a
time. The CPU's virtual devices share its cores: there, trials side by side gain up to the number of
cores where the model is small and lose where it keeps the cores busy by itself; and every device
compiles the program anew. So that is timed, where a study is long enough to be worth it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from budgetflow.training.mesh import trial_slices
from budgetflow.training.population import Population
from budgetflow.training.trial_run import TrialRun

# A shorter study would not win back what timing and compiling for further devices takes.
WORTH_TIMING_SECONDS = 20.0
# Calls of the compiled step that are timed.
TIMED_CALLS = 8


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How trials share the devices.

    Attributes:
        trials_at_a_time: how many of the mesh's positions on the axis ``trial`` are used.
        steps_per_second: of all trials together, by ``trials_at_a_time`` as timed; empty if not.
        reason: why, in a sentence.
    """

    trials_at_a_time: int
    steps_per_second: dict[str, float]
    reason: str


def choose_strategy(
    mesh: Mesh, asked_for: bool, total_steps: int, start_trial: Callable[[Mesh], TrialRun]
) -> Strategy:
    """Picks how many trials run at a time, by timing it where that is worth it.

    Args:
        mesh: the study's.
        asked_for: whether the config itself says how many.
        total_steps: about as many as the study will train, of all trials.
        start_trial: a slice of the mesh -> a trial at step 0 on it, which is trained and dropped.
    """
    slices = trial_slices(mesh)
    if asked_for:
        return Strategy(len(slices), {}, "config.mesh.trial says so.")
    if len(slices) == 1 or jax.default_backend() != "cpu" or jax.process_count() > 1:
        return Strategy(len(slices), {}, "Each trial has its share of the devices to itself.")
    alone = [start_trial(slices[0])]
    if not _can_time(alone):
        return Strategy(1, {}, "The trials are too short to time.")
    population = Population(mesh)
    seconds = _step_seconds(population, alone)
    if seconds * total_steps < WORTH_TIMING_SECONDS:
        about = f"about {max(seconds * total_steps, 1):.0f} seconds of training"
        return Strategy(1, {}, f"The study is too short to time more than one at a time: {about}.")
    together = [*alone, *map(start_trial, slices[1:])]
    rates = {
        str(len(runs)): 1 / min(_step_seconds(population, runs) for _ in range(2))
        for runs in (together, alone)
    }
    best = max(rates, key=lambda count: rates[count])
    return Strategy(int(best), rates, "The fastest of those timed.")


def _can_time(runs: Sequence[TrialRun]) -> bool:
    """Whether schedules are long enough for all that :func:`choose_strategy` times."""
    run = runs[0]
    return run.total_steps >= 6 * TIMED_CALLS * run.program.steps_per_call


def _step_seconds(population: Population, runs: Sequence[TrialRun]) -> float:
    """Seconds per step of some trials at the same time; compiles first if need be."""
    calls = {number: run for number, run in enumerate(runs)}
    first = max(run.step for run in runs)
    for run in runs:
        run.train(first + run.program.steps_per_call)  # Compiled, and all at the same step.
    start = runs[0].step
    until = start + TIMED_CALLS * runs[0].program.steps_per_call
    started_at = time.perf_counter()
    population.train(calls, until)
    return (time.perf_counter() - started_at) / (len(runs) * (until - start))
