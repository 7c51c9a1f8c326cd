"""The benchmarks' documented commands run, in a short form."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Script to its options here, and what it prints.
SHORT = {
    "bench_checkpoints.py": (
        "--digits --steps=80 --trials=2",
        r"160 steps: .* checkpoints [\d.]+ s, .* checksums [\d.]+ s, [\d.]+% of that",
    ),
    "bench_cluster.py": ("--only=utilisation --unequal=4", r"4 trials of .* on 4 workers: "),
    "bench_lr_sweep.py": ("--workloads=mlp --turns=1 --n=20 --methods budgetflow vmap", "| mlp |"),
    "bench_lr_sweep.py --limit": ("--workloads=mlp --turns=1", r"mlp: [\d.]+ x the least; "),
    "bench_many_trials.py": ("--trials=40", r"second half: [\d.]+ s, [\d.]+ ms a trial"),
    "bench_many_trials.py --trained": ("--trials=5", r"trained: [\d.]+ ms a trial; "),
    "bench_reading.py": ("--trials=40", r"[\d.]+ s"),
    "bench_train_loop.py": ("--workloads=transformer --turns=1", r"budgetflow +[\d.]+ steps/s"),
}


def run(script, options, **environment):
    environment = {**os.environ, **environment}
    environment.pop("PYTHONPATH", None)  # as users have it
    return subprocess.run(
        [sys.executable, f"scripts/{script.split()[0]}", *script.split()[1:], *options.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("script", SHORT)
def test_a_benchmark_prints_its_figures(script):
    options, printed = SHORT[script]
    result = run(script, options)
    assert result.returncode == 0, result.stderr
    assert re.search(printed, result.stdout), result.stdout


def test_every_benchmark_is_run_by_a_test():
    scripts = {path.name for path in (ROOT / "scripts").glob("bench_*.py")}
    # Others' tests run these; the last is a module of two.
    elsewhere = {"bench_input.py", "bench_sources.py"}
    assert scripts == {name.split()[0] for name in SHORT} | elsewhere


def test_data_that_are_not_there_are_named_in_one_line(tmp_path):
    result = run("bench_lr_sweep.py", "--limit --workloads=conv", FASHION_MNIST_DIR=str(tmp_path))
    assert result.returncode == 2
    assert "Fashion-MNIST is not there" in result.stderr.splitlines()[-1]
