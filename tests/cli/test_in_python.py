"""Launching from Python."""

import subprocess
import sys

import pytest

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


def test_the_name_is_the_module_and_the_function_however_it_is_imported():
    program = """
import budgetflow
assert "jax" not in __import__("sys").modules
import budgetflow.cli.launch
from budgetflow.cli import launch
assert callable(budgetflow.launch) and budgetflow.launch is launch and launch.main
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
