"""The benchmark of readers runs, and its readers read the same kind of batches."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import bench_input  # noqa: E402
import bench_sources  # noqa: E402


@pytest.mark.parametrize("name", ["numpy", "array_record", "png"])
def test_budgetflow_reads_the_batches_of_the_plain_loop(name, tmp_path):
    source, transform = bench_sources.make_source(name, 600, str(tmp_path))
    batches = bench_input.budgetflow(source, transform)
    plain = bench_input.plain(source, transform)
    for _ in range(3):  # past the end of an epoch
        batch, expected = next(batches), next(plain)
        assert (batch["inputs"] == expected["image"]).all()
        assert (batch["targets"] == expected["label"]).all()
        assert (
            len(np.unique(batch["inputs"].reshape(256, -1), axis=0)) > 200
        )  # no constant, few repeats


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--sources", "png"), ("--training",)])
def test_the_benchmark_prints_and_writes_its_figures(options, tmp_path):
    path = tmp_path / "figures.json"
    short = ("--examples=300", "--turns=1", "--seconds=0.1", f"--json={path}")
    result = subprocess.run(
        [sys.executable, str(SCRIPTS / "bench_input.py"), *short, *options],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(path.read_text())
    assert set(figures) == {options[-1].strip("-")}
    for readers in figures.values():
        for reader, found in readers.items():
            assert found["examples_per_second"] > 0 and reader in result.stdout
