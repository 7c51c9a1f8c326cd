"""Times the learning-rate sweep against what a user would pick instead, whole process.

    .venv/bin/pip install -e ".[benchmark]"
    .venv/bin/python scripts/bench_lr_sweep.py [--workloads mlp] [--record] [--json FILE]
    .venv/bin/python scripts/bench_lr_sweep.py --limit

Every method sweeps the same 16 learning rates of the same model over the same batches, in a process
of its own, imports and compiling included; the methods take turns, so that whatever else the
machine does hits all of them:

- budgetflow: the launcher in a fresh folder, nothing compiled before.
- budgetflow_again: the same once more, with what the first start compiled.
- optuna: one jitted step, every trial trained for N steps, fits looked for once an epoch.
- optuna_stopping: the same, each trial stopped at its own fit and at the best step so far.
- optuna_pruner: looks every ten steps, with Optuna's median pruner; no trial past the best so far.
- vmap: a loop of one's own over all learning rates side by side; looks every ten steps.
- ray: Ray Tune with its defaults. ray_asha: with ASHA.

--limit instead compares the race, without start-up, with K trials up to the fitting step at the
speed of a bare jitted step, the least that an exact race can take.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments" / "lr_sweep_benchmark"
WORKLOADS = ("mlp", "conv")
METHODS = (
    *("budgetflow", "budgetflow_again", "optuna", "optuna_stopping", "optuna_pruner", "vmap"),
    *("ray", "ray_asha"),
)
# The configs name models in this repository, from wherever this script is run.
sys.path.insert(0, str(ROOT))
from budgetflow.base.errors import UserError  # noqa: E402

# Peers train up to this N.
MAX_STEPS = 5000


def save_data(workload, path):
    """Writes what the peers train on: the training set, the order of batches, the grid."""
    from budgetflow.config import load_config_file, parse_config
    from budgetflow.engine.data.batches import batch_indices
    from budgetflow.studies.study import study_dataset

    config = parse_config(load_config_file(FOLDER / f"{workload}.py"))
    train = study_dataset(config).train
    indices = batch_indices(0, 0, MAX_STEPS, config.data.batch_size, train.num_examples)
    np.savez(path, **train.arrays, indices=indices, learning_rates=config.sweep.learning_rates)


def run_method(method, workload, steps, folder):
    """Runs a method's process: its seconds and its answer."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    runs, cache = folder / "runs", folder / f"compiled_{workload}_{steps}"
    if method.startswith("budgetflow"):
        shutil.rmtree(runs, ignore_errors=True)
        if method == "budgetflow":
            shutil.rmtree(cache, ignore_errors=True)
        arguments = [
            "budgetflow.launch",
            f"--config={FOLDER / workload}.py",
            f"--workdir={runs}",
            f"--config.max_train_steps={steps}",
            f"--compilation_cache_dir={cache}",
        ]
    else:
        data = folder / f"{workload}.npz"
        arguments = [
            "experiments.lr_sweep_benchmark.peers",
            method,
            workload,
            str(data),
            str(steps),
        ]
    start = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if finished.returncode:
        sys.exit(f"{method} failed:\n{finished.stderr[-3000:]}")
    if method.startswith("budgetflow"):
        outcome = json.loads((runs / workload / "outcome.json").read_text())
        return seconds, outcome["max_train_steps"]
    return seconds, json.loads(finished.stdout.splitlines()[-1])["answer"]


def compare(workload, steps, turns, methods, folder):
    """One row: the median seconds of each method over its turns, and its answer."""
    seconds = {method: [] for method in methods}
    answers = {}
    for turn in range(max(turns.values())):
        for method in methods:
            if turn < turns[method]:
                taken, answers[method] = run_method(method, workload, steps, folder)
                seconds[method].append(taken)
                print(
                    f"  {workload} N={steps} {method}: {taken:.1f} s, {answers[method]}",
                    file=sys.stderr,
                    flush=True,
                )
    return {
        "workload": workload,
        "n": steps,
        "methods": {
            method: {
                "seconds": statistics.median(seconds[method]),
                "answer": answers[method],
                "turns": len(seconds[method]),
            }
            for method in methods
        },
    }


def table(rows):
    """The rows as a Markdown table: seconds, how many times budgetflow's, the answer."""
    lines = [
        "| workload | N | method | turns | seconds | x budgetflow | answer | off by |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        ours = row["methods"].get("budgetflow")
        for method, result in row["methods"].items():
            answer, exact = result["answer"], ours and ours["answer"]
            ratio = f"{result['seconds'] / ours['seconds']:.1f}" if ours else "-"
            off = answer - exact if answer and exact else "-"
            lines.append(
                f"| {row['workload']} | {row['n']} | {method} | {result['turns']} | "
                f"{result['seconds']:.1f} | {ratio} | {answer or 'none'} | {off} |"
            )
    return "\n".join(lines) + "\n"


def plot(rows, path):
    """Seconds of each method, a panel per workload and N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.2 * len(rows)), layout="constrained")
    for axes, row in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
        names = list(row["methods"])[::-1]
        bars = axes.barh(names, [row["methods"][name]["seconds"] for name in names])
        axes.bar_label(bars, fmt="%.1f s", padding=3)
        for bar, name in zip(bars, names, strict=True):
            bar.set_color("#0072B2" if name.startswith("budgetflow") else "#999999")
        axes.set_title(f"{row['workload']}, N = {row['n']}", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    figure.savefig(path, dpi=100)


def record(rows):
    """Writes rows, table and plot to the experiment's folder; rows not measured anew stay."""
    path = FOLDER / "results.json"
    known = json.loads(path.read_text()) if path.exists() else []
    merged = {(row["workload"], row["n"]): row for row in [*known, *rows]}
    rows = [merged[key] for key in sorted(merged, key=lambda key: (WORKLOADS.index(key[0]), key))]
    path.write_text(json.dumps(rows, indent=2) + "\n")
    (FOLDER / "table.md").write_text(table(rows))
    plot([row for row in rows if len(row["methods"]) > 2], FOLDER / "seconds.png")


def measure_limit(workload, turns):
    """The race's seconds without start-up, and those of K trials up to the fit at bare speed."""
    import jax
    from bench_train_loop import bare_loop
    from rich.console import Console

    from budgetflow.cli.launch import launch
    from budgetflow.config import load_config_file, parse_config
    from budgetflow.studies.study import study_dataset

    config = parse_config(load_config_file(FOLDER / f"{workload}.py"))
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    bare = bare_loop(config, study_dataset(config))
    bare(50)
    steps = 2000 if workload == "mlp" else 200
    rows = []
    for turn in range(turns + 1):
        start = time.perf_counter()
        bare(steps)
        step_seconds = (time.perf_counter() - start) / steps
        with tempfile.TemporaryDirectory() as runs:
            outcome = launch([config], runs, False, Console(quiet=True))
            timing = json.loads((Path(runs) / config.name / "timing.json").read_text())
        trials = len(config.sweep.learning_rates)
        least = trials * outcome["max_train_steps"] * step_seconds
        spent = {name: share * timing["seconds"] for name, share in timing["share_of_time"].items()}
        if turn:  # The first one compiles.
            rows.append({"least": least, "race": timing["seconds"], **spent})
    return {name: statistics.median(row.get(name, 0.0) for row in rows) for name in rows[0]}


def main():
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--n", nargs="+", type=int, default=[500, 5000])
    parser.add_argument("--turns", type=int, default=5, help="of Ray Tune at most three")
    parser.add_argument("--limit", action="store_true", help="the race against a bare step")
    parser.add_argument("--record", action="store_true", help=f"write table and plot to {FOLDER}")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} CPU cores, Python {sys.version.split()[0]}")
    try:
        run(arguments)
    except UserError as error:  # such as data that are not there
        parser.error(str(error))


def run(arguments):
    """Takes the times that are asked for."""
    if arguments.limit:
        for workload in arguments.workloads:
            spent = measure_limit(workload, arguments.turns)
            shown = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in spent.items())
            print(f"{workload}: {spent['race'] / spent['least']:.2f} x the least; {shown}")
        return
    rows = []
    turns = {
        m: min(arguments.turns, 3) if m.startswith("ray") else arguments.turns for m in METHODS
    }
    with tempfile.TemporaryDirectory() as folder:
        for workload in arguments.workloads:
            save_data(workload, Path(folder) / f"{workload}.npz")
            for steps in arguments.n:
                rows.append(compare(workload, steps, turns, arguments.methods, Path(folder)))
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.record:
        record(rows)


if __name__ == "__main__":
    main()
