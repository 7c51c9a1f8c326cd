"""Carries learning-rate schedules from a short round to longer ones, in six ways.

    .venv/bin/python experiments/schedule_transfer/run.py

Started again, it goes on from what is complete. Writes results.json, table.md and transfer.png.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import jax
from absl import logging
from figures import plot, tables
from rich.console import Console
from studies import ARMS, FACTORS, SEEDS, WORKLOADS, chain

import budgetflow
from budgetflow.cli.launch import launch
from budgetflow.playbook.common.transfer import extra_step_learning_rates
from budgetflow.studies.store.trial import read_outcome

FOLDER = Path(__file__).parent
WORKDIR = FOLDER.parents[1] / "runs" / "schedule_transfer"


def start_worker(cores: multiprocessing.Queue) -> None:
    """Keeps a process to a core of its own, and on disk what it compiles."""
    os.sched_setaffinity(0, {cores.get()})
    logging.set_verbosity(logging.ERROR)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", str(WORKDIR / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def run_seed(workload: str, seed: int) -> list[dict[str, Any]]:
    """Runs what is missing of a workload with one seed; a row per arm and length."""
    workdir = WORKDIR / f"{workload}_seed{seed}"
    rows = []
    for arm in ARMS:
        configs = chain(WORKLOADS[workload], arm, seed)
        for count, config in enumerate(configs, 1):
            if read_outcome(workdir / config.name) is None:
                start = time.perf_counter()
                launch(configs[:count], str(workdir), False, Console(quiet=True))
                seconds = time.perf_counter() - start
                print(f"{workdir.name}/{config.name}: {seconds:.0f} s", flush=True)
        results = [result(workdir / config.name, workdir / configs[0].name) for config in configs]
        rows += [
            {"workload": workload, "arm": arm, "factor": factor, "seed": seed, **row}
            for factor, row in zip(FACTORS, results, strict=True)
        ]
    return rows


def result(folder: Path, round1: Path) -> dict[str, Any]:
    """What a study came to, and where its extra steps over round 1 go."""
    study, first = budgetflow.open_study(folder), budgetflow.open_study(round1)
    record, outcome = study.best_trial.record, study.outcome or {}
    before = first.best_trial.record.schedule
    return {
        "max_train_steps": record.max_train_steps,
        **{key: outcome[key] for key in ("best_validation", "best_step")},
        "last_validation_loss": record.rows[-1]["validation_loss"],
        **{key: outcome[key] for key in ("steps_trained", "steps_reused")},
        # outcome.json has this over the round before.
        "extra_steps_mean_relative_learning_rate": (
            extra_step_learning_rates(before, record.schedule)[0] if folder != round1 else None
        ),
        "schedule": record.schedule.to_dict(),
    }


def main() -> None:
    """Runs what is missing, a process on each core, and writes the results."""
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    available = os.sched_getaffinity(0)
    for core in available:
        cores.put(core)
    jobs = [(workload, seed) for workload in WORKLOADS for seed in SEEDS]
    with concurrent.futures.ProcessPoolExecutor(
        min(len(available), len(jobs)), context, start_worker, (cores,)
    ) as pool:
        rows = [row for found in pool.map(run_seed, *zip(*jobs, strict=True)) for row in found]
    lines = ",\n".join(map(json.dumps, rows))
    (FOLDER / "results.json").write_text(f"[\n{lines}\n]\n")
    (FOLDER / "table.md").write_text(tables(rows))
    plot(rows, FOLDER / "transfer.png")
    print(f"{len(available)} cores, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
