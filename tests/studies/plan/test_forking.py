"""A study whose config changed goes on under another name, with what is still the same."""

import dataclasses
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from budgetflow.results.reading import open_study
from budgetflow.studies.store.trial import read_trials

CONFIG = """
from budgetflow.config import choices, default_config


def get_config(rates):
    config = default_config("round")
    config.name = "mine"
    config.data.name = "digits"
    config.model = {"name": "budgetflow.models.MLP", "hidden_sizes": (8,)}
    config.max_train_steps = 60
    config.evaluation.evaluations = 4
    config.search.method = "grid"
    rates = map(float, rates.split(","))
    config.search.space = (choices("schedule.base_learning_rate", *rates),)
    return config
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a config file, and a workdir with its study of two learning rates."""
    folder = tmp_path_factory.mktemp("fork")
    (folder / "mine.py").write_text(CONFIG)
    assert launch(folder, "0.1,0.2").returncode == 0
    return folder


def launch(folder, rates, *arguments):
    config = f"--config={folder / 'mine.py'}:{rates}"
    command = [sys.executable, "-m", "budgetflow.launch", config, f"--workdir={folder / 'runs'}"]
    return subprocess.run(
        [*command, "--config.mesh.trial=1", *arguments], capture_output=True, text=True, cwd=folder
    )


def what_was_found(study):
    """All that is recorded of its trials, but for whose states they are."""
    trials = read_trials(study)
    assert all(trial.status == "complete" for trial in trials)
    return [dataclasses.replace(trial, reused_from=None) for trial in trials]


@pytest.mark.slow
def test_a_fork_takes_over_what_is_still_the_same(begun):
    refused = launch(begun, "0.2,0.4")
    assert refused.returncode == 2 and "--fork=NAME" in refused.stderr
    forked = launch(begun, "0.2,0.4", "--fork=other")
    assert forked.returncode == 0, forked.stderr
    runs = begun / "runs"
    same, new = read_trials(runs / "other")
    assert same.reused_from == {"study": "mine", "trial": 1, "step": 60}
    assert new.reused_from is None
    # Launched again, with or without the flag, it is the same study.
    for again in ("--fork=other", "--config.name=other"):
        assert "nothing was trained" in launch(begun, "0.2,0.4", again).stdout
    assert launch(begun, "0.2,0.4", "--config.name=alone").returncode == 0
    assert what_was_found(runs / "other") == what_was_found(runs / "alone")
    taken_over = {"steps_reused", "steps_trained", "fingerprint", "reasons"}
    outcomes = [open_study(runs / name).outcome for name in ("other", "alone")]
    fork, alone = ({k: v for k, v in o.items() if k not in taken_over} for o in outcomes)
    assert fork == alone
    assert read_trials(runs / "mine")[1].step == 60  # nothing is taken away


@pytest.mark.slow
def test_states_that_are_the_same_are_measured_anew_where_that_has_changed(begun):
    """None of them has a step to train: that they have one to be measured at was overlooked."""
    on_fewer = "--config.evaluation.train_examples=100"
    assert launch(begun, "0.1,0.2", on_fewer, "--fork=anew").returncode == 0
    found, before = open_study(begun / "runs" / "anew"), open_study(begun / "runs" / "mine")
    assert found.outcome["steps_trained"] == 0 and found.outcome["best_step"] == 60
    for new, old in zip(found.trials, before.trials, strict=True):
        assert new.record.status == "complete" and "train_examples" in str(new.record)
        (row,) = new.record.rows
        key = "validation_error_rate"
        assert (row["step"], row[key]) == (60, old.record.rows[-1][key])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fork=mine"], "another name"),
        (["--fork=x", "--config.name=none"], "no study 'none'"),
        (["--fork=a/b"], "config.name"),
    ],
)
def test_a_fork_that_cannot_be_is_refused(begun, arguments, message):
    before = {path.name for path in (begun / "runs").iterdir()}
    refused = launch(begun, "0.2,0.4", *arguments)
    assert refused.returncode == 2 and message in refused.stderr.splitlines()[-1]
    assert {path.name for path in (begun / "runs").iterdir()} == before


def test_of_a_sweep_nothing_is_taken_over(tmp_path):
    (tmp_path / "runs" / "lr_sweep").mkdir(parents=True)
    (tmp_path / "runs" / "lr_sweep" / "config.json").write_text("{}")
    sweep = str(REPOSITORY / "configs" / "lr_sweep.py")
    command = [sys.executable, "-m", "budgetflow.launch", f"--config={sweep}", "--fork=other"]
    refused = subprocess.run(
        [*command, f"--workdir={tmp_path / 'runs'}"], capture_output=True, text=True
    )
    assert refused.returncode == 2 and "kind lr_sweep" in refused.stderr
