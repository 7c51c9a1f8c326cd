"""What config.mesh.vmap_trials gains: steps per second of trials alone and vectorized.

    python scripts/bench_vectorized.py
    python scripts/bench_vectorized.py --trials=1,8 --seconds=0.5 --workloads=lr_sweep

For each workload (a config of configs/) one line per number of trials that share each call, with
the speed relative to trials one after the other. Compiling is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags

from budgetflow.config import load_config_file, parse_config
from budgetflow.schedules import Schedule
from budgetflow.studies.study import study_dataset
from budgetflow.training.mesh import make_mesh, trial_slices
from budgetflow.training.trial_run import TrialRun, train_together, trial_program

_WORKLOADS = flags.DEFINE_list(
    "workloads", ["lr_sweep", "resnet_lr_sweep", "language_model"], "Configs to take models from."
)
_TRIALS = flags.DEFINE_list("trials", ["1", "4", "16"], "How many trials share each call.")
_SECONDS = flags.DEFINE_float("seconds", 2.0, "How long to time each.")
CONFIGS = Path(__file__).parents[1] / "configs"


def steps_per_second(workload: str, trials: int, seconds: float) -> float:
    """The updates per second of all trials together."""
    config = parse_config(load_config_file(CONFIGS / f"{workload}.py"))
    dataset = study_dataset(config)
    part = trial_slices(make_mesh(config.mesh))[0]
    program = trial_program(config, dataset, frozenset(), False, part)
    schedule = Schedule(0.001, constant_steps=10**6)
    runs = [TrialRun(config, schedule, dataset, program) for _ in range(trials)]
    step = 64
    train_together(runs, step)  # compiles
    started_at, first = time.perf_counter(), step
    while (spent := time.perf_counter() - started_at) < seconds:
        step += 128
        train_together(runs, step)
    return trials * (step - first) / spent


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    print(f"{jax.devices()[0].device_kind}: steps per second of all trials")
    for workload in _WORKLOADS.value:
        alone = steps_per_second(workload, 1, _SECONDS.value)
        for trials in map(int, _TRIALS.value):
            speed = alone if trials == 1 else steps_per_second(workload, trials, _SECONDS.value)
            print(f"{workload:16} {trials:3} at a time {speed:10.0f} {speed / alone:6.2f} x")


if __name__ == "__main__":
    app.run(main)
