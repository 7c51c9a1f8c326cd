"""Launching from Python."""

import inspect
import os
import pickle
import subprocess
import sys

import pytest
from conftest import REPOSITORY

import budgetflow
from budgetflow.base.errors import ConfigError
from budgetflow.config import default_config


def small(**fields):
    config = default_config("round")
    config.name = "small"
    config.max_train_steps = 8
    config.evaluation.evaluations = 2
    config.model.hidden_sizes = (4,)
    config.update_from_flattened_dict(fields)
    return config


def test_a_config_is_run_and_its_study_returned(tmp_path, capsys):
    study = budgetflow.launch(small(), workdir=tmp_path)
    assert study.name == "small" and study.outcome["max_train_steps"] == 8
    assert "small: compiling" in capsys.readouterr().out
    again = budgetflow.launch(small(), workdir=tmp_path)
    assert again.outcome == study.outcome
    assert "nothing was trained" in capsys.readouterr().out


def test_quietly_nothing_but_what_was_found_is_printed(tmp_path, capsys):
    budgetflow.launch(small(), workdir=tmp_path, quiet=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Summary")
    assert lines[1].startswith("small: One trial of 8 steps, best at step")


def test_what_is_wrong_with_a_config_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.name is missing"):
        budgetflow.launch(small(name=""), workdir=tmp_path)


# Each is a program of a user's own; in it, launch_small runs the study above.
PREAMBLE = """
import budgetflow
from budgetflow.config import default_config


def launch_small(workdir, name):
    config = default_config("round")
    config.name, config.max_train_steps = name, 8
    config.evaluation.evaluations = 2
    config.model.hidden_sizes = (4,)
    return budgetflow.launch(config, workdir=workdir, quiet=True)

"""
ABSL = """
import ml_collections
from absl import app, flags
from ml_collections import config_flags

WORKDIR = flags.DEFINE_string("workdir", None, "Where to write.", required=True)
QUIET = flags.DEFINE_bool("quiet", True, "")
config_flags.DEFINE_config_dict("config", ml_collections.ConfigDict({"lr": 0.1}))


def main(argv):
    assert launch_small(WORKDIR.value, "small").name == "small"
    config = flags.FLAGS.config
    assert (QUIET.value, config.lr, flags.FLAGS["workdir"].present) == (False, 0.2, 1)


app.run(main)
"""
# Hydra's decorator reads the command line and calls the function in another working directory; a
# notebook calls from within an event loop.
OTHERS = """
import argparse, asyncio, os, sys

parser = argparse.ArgumentParser()
parser.add_argument("--config", type=int)
parser.add_argument("--workdir")
given, overrides = parser.parse_known_args()
before = list(sys.argv)


async def cell():
    return launch_small(given.workdir, "in_a_cell")


def hydra_main(function):
    os.chdir(given.workdir)
    return function(dict(each.split("=") for each in overrides))


assert asyncio.run(cell()).name == "in_a_cell"
assert hydra_main(lambda overrides: launch_small(".", overrides["name"])).name == "overridden"
assert sys.argv == before
"""


def run_program(path, text, *arguments):
    path.write_text(text)
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", path, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=path.parent,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (ABSL, ["--noquiet", "--config.lr=0.2"]),
        (OTHERS, ["--config=3", "name=overridden"]),
    ],
    ids=["absl", "argparse, an event loop and overrides"],
)
def test_a_program_with_a_command_line_of_its_own_can_launch(program, arguments, tmp_path):
    arguments = [*arguments, f"--workdir={tmp_path}"]
    result = run_program(tmp_path / "program.py", PREAMBLE + program, *arguments)
    assert result.returncode == 0, result.stderr
    assert "One trial of 8 steps, best at step" in result.stdout


MODULE = """
from absl import app, flags
from flax import nnx

from budgetflow import launch
from budgetflow.models import MLP

flags.DEFINE_string("workdir", "elsewhere", "A flag of the module's own.")
WIDTH = flags.DEFINE_integer("width", 4, "And one that sets what the model is.")


class Mine(MLP):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, hidden_sizes=(WIDTH.value,), **named)


def main(argv):
    launch(None)


if __name__ == "__main__":
    app.run(main)
"""
CONFIG = """
import my_run
from budgetflow.config import default_config


def get_config():
    config = default_config("round")
    config.max_train_steps = 8
    config.model = {"name": "my_run.Mine"}
    return config
"""


def test_a_module_that_launches_and_has_flags_of_its_own_can_be_named_in_a_config(tmp_path):
    (tmp_path / "my_run.py").write_text(MODULE)
    (tmp_path / "mine.py").write_text(CONFIG)
    command = [sys.executable, "-m", "budgetflow.launch", "--config=mine.py", "--dry_run"]
    result = subprocess.run(
        [*command, f"--workdir={tmp_path / 'runs'}", "--width=5"],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "mine" in result.stdout and "to run" in result.stdout


def test_launch_is_a_function_with_its_own_signature_and_docstring():
    assert "launch" in dir(budgetflow)
    assert list(inspect.signature(budgetflow.launch).parameters) == ["config", "workdir", "quiet"]
    assert budgetflow.launch.__doc__.startswith("Runs the study of a config")
    assert pickle.loads(pickle.dumps(budgetflow.launch)) is budgetflow.launch


def test_launch_stays_a_function_whatever_is_imported():
    """Also in the processes that a launch starts, which import its main module by another name."""
    program = """
import importlib, runpy, sys
import budgetflow
assert "jax" not in sys.modules
import budgetflow.cli.launch
from budgetflow import launch
try:
    importlib.import_module("budgetflow.launch")
except ImportError as error:
    assert "from budgetflow import launch" in str(error)
else:
    raise AssertionError
assert "run" not in runpy.run_module("budgetflow.launch", run_name="__mp_main__", alter_sys=True)
from absl import flags
assert not {"config", "workdir", "dry_run"} & set(flags.FLAGS)
assert callable(budgetflow.launch) and budgetflow.launch is launch
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
