"""The lines that README.md prints run as they are printed."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from budgetflow.config import load_config_file
from budgetflow.studies.kinds import parse_study

README = (REPOSITORY / "README.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
CONFIGS = [snippet for snippet in SNIPPETS if "def get_config" in snippet]
READING = [snippet for snippet in SNIPPETS if snippet not in CONFIGS]
ORBAX = next(snippet for snippet in READING if "ocp" in snippet)


def run_as_printed(snippet, folder, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", snippet],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), **os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_ten_steps_from_config_to_outcome_are_where_the_readme_says():
    steps = re.findall(r"^\| \d+ \| `([^`]+)` \| `(\w+)` \|", README, flags=re.MULTILINE)
    assert len(steps) == 10
    for file, function in steps:
        tree = ast.parse((REPOSITORY / "budgetflow" / file).read_text())
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in defined, f"{file} has no {function}"


PAGES = sorted(p for p in REPOSITORY.rglob("*.md") if ".venv" not in p.parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_links_to_is_there(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_snippet_is_a_config_or_reads_a_study():
    assert len(CONFIGS) == 3 and len(READING) == 5


@pytest.mark.parametrize("snippet", READING, ids=range(len(READING)))
def test_reading_runs_as_printed(completed_workdir, tmp_path, snippet):
    (tmp_path / "runs").symlink_to(completed_workdir)
    result = run_as_printed(snippet, tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_prediction_is_the_one_printed(completed_workdir, tmp_path):
    (tmp_path / "runs").symlink_to(completed_workdir)
    snippet = next(s for s in READING if ".predict(" in s)
    line = next(line for line in snippet.splitlines() if ".predict(" in line)
    code, _, printed = line.partition("  # ")
    result = run_as_printed(snippet.replace(line, f"print(repr({code}))"), tmp_path)
    assert result.stdout.strip() == printed, result.stderr


def test_configs_are_accepted_as_printed(tmp_path):
    names = ["my_sweep.py", "my_round.py", "my_rounds.py"]
    for name, snippet in zip(names, CONFIGS, strict=True):
        (tmp_path / name).write_text(snippet)
    for name in names:
        assert parse_study(load_config_file(tmp_path / name)).kind in (
            "lr_sweep",
            "round",
            "rounds",
        )


@pytest.mark.slow
def test_orbax_reads_on_one_device_what_four_devices_wrote(tmp_path):
    """By the lines as they are printed; without them, Orbax wants the devices that wrote it."""
    config = """
import io
from rich.console import Console
from budgetflow.config import default_config
from budgetflow.cli.launch import launch, load_chain

config = default_config("round")
config.name = "round2"
config.max_train_steps = 8
config.data.batch_size = 64
config.evaluation.evaluations = 2
config.mesh.trial, config.mesh.fsdp, config.mesh.min_sharded_size = 1, 4, 1
launch(load_chain(config), "runs", False, Console(file=io.StringIO()))
"""
    flags = "--xla_force_host_platform_device_count=4"
    written = run_as_printed(config, tmp_path, XLA_FLAGS=flags)
    assert written.returncode == 0, written.stderr
    check = """
assert len(jax.devices()) == 1
import budgetflow
ours = budgetflow.open_study("runs/round2").trial(0)
params = ours.restore_params(int(path.name))
ours.restore_model(int(path.name))
import numpy as np
jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state["params"]))
try:
    checkpointer.restore(path)
except Exception as error:
    print(type(error).__name__)
"""
    read = run_as_printed(ORBAX + check, tmp_path, XLA_FLAGS="")
    assert read.returncode == 0, read.stderr
    assert read.stdout.strip(), "the plain line works, too: README.md can have that one"
