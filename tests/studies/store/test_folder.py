"""A folder that was begun with other code is gone on with where its owner vouches for it."""

import os
import subprocess
import sys

import pytest
from conftest import run, write_chain
from test_growing import config_of

from budgetflow.base.errors import UserError
from budgetflow.base.files import read_json, write_json
from budgetflow.cli.launch import load_chain
from budgetflow.config import load_config_file
from budgetflow.config.schema import to_json
from budgetflow.engine.checkpoints import _checkpointer
from budgetflow.engine.data.source import load_dataset
from budgetflow.playbook.common.words import gone_on
from budgetflow.results.reading import open_study
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.store.trial import read_trials
from budgetflow.studies.study import _dataset, resolve

OTHER_CODE = gone_on("budgetflow's code")
VOUCH = (
    r"\(they differ in budgetflow's code\); undo the change, vouch with --same_results that it "
    r"changes no number, give another --workdir or config.name, or delete that folder"
)


@pytest.fixture
def version(monkeypatch):
    """Pretends that budgetflow's code is another one."""

    def pretend(source):
        for module in ("store.keys", "run.completion"):
            monkeypatch.setattr(
                f"budgetflow.studies.{module}.framework_source",
                lambda: {"source": source},
            )

    pretend("old")
    return pretend


def interrupted(config, workdir, trial=0, same_results=False):
    """Launches the last study of a chain, and kills it in the middle of one of its trials."""

    def kill(records, steps):
        if any(record.trial == trial and record.step > 10 and record.rows for record in records):
            raise KeyboardInterrupt

    config.checkpoints.every_seconds = 0.0
    study = load_chain(config)[-1]
    earlier = workdir / "first" if study.builds_on else None
    with pytest.raises(KeyboardInterrupt):
        run_study(resolve(study, workdir / study.name, earlier, same_results), kill)
    _checkpointer().wait_until_finished()  # this process lives on, and so does what it was writing


def recorded(folder):
    return read_json(folder / "config.json")


def source_of(record):
    return record.reuse_key["budgetflow"]["source"], record.reuse_key.get("resumed_with_another")


def test_a_half_done_study_goes_on_with_code_that_is_vouched_for(tmp_path, version):
    interrupted(config_of(3), tmp_path)
    begun = recorded(tmp_path / "mine")
    version("new")
    for dry_run in (False, True):
        with pytest.raises(UserError, match=VOUCH):
            run(config_of(3), tmp_path, dry_run)
    assert "to run" in run(config_of(3), tmp_path, dry_run=True, same_results=True)[1]
    outcome, output = run(config_of(3), tmp_path, same_results=True)
    # What changes no result is as the last launch had it.
    begun["config"]["checkpoints"] = to_json(load_chain(config_of(3))[0])["checkpoints"]
    assert recorded(tmp_path / "mine") == begun
    assert outcome["fingerprint"] == begun["fingerprint"]
    assert outcome["reasons"].count(OTHER_CODE) == 1
    assert "--same_results" in output
    assert "--same_results" in (tmp_path / "mine" / "report.html").read_text()
    # Nobody continues a trial that ran with two codes; the others know with which one they ran.
    assert [source_of(record) for record in read_trials(tmp_path / "mine")] == [
        ("new", ["budgetflow.source"]),
        ("new", None),
        ("new", None),
    ]
    # But for that, all is as if nothing had changed.
    whole, _ = run(config_of(3), tmp_path / "whole")
    assert OTHER_CODE not in whole["reasons"]
    del whole["fingerprint"], outcome["fingerprint"]
    outcome["reasons"].remove(OTHER_CODE)
    assert outcome == whole
    assert "nothing was trained" in run(config_of(3), tmp_path, same_results=True)[1]
    with pytest.raises(UserError, match=VOUCH):
        run(config_of(3), tmp_path)


@pytest.mark.parametrize("last", ["new", "newer", "old"])
def test_whoever_completes_it_the_outcome_says_that_code_changed(tmp_path, version, last):
    interrupted(config_of(3), tmp_path)
    version("new")
    interrupted(config_of(3), tmp_path, trial=1, same_results=True)
    version(last)
    # To undo the change is what the message asks for.
    outcome, _ = run(config_of(3), tmp_path, same_results=last != "old")
    assert outcome["reasons"].count(OTHER_CODE) == 1
    assert [source_of(record) for record in read_trials(tmp_path / "mine")] == [
        ("new", ["budgetflow.source"]),
        (last, None if last == "new" else ["budgetflow.source"]),
        (last, None),
    ]


def test_a_chain_that_was_begun_with_other_code_goes_on(tmp_path, version):
    config = write_chain(tmp_path)
    run(load_config_file(tmp_path / "first.py"), tmp_path)
    first = open_study(tmp_path / "first").outcome
    interrupted(config, tmp_path)
    begun = [recorded(tmp_path / name)["fingerprint"] for name in ("first", "second")]
    version("new")
    with pytest.raises(UserError, match=VOUCH):
        run(config, tmp_path)
    outcome, _ = run(config, tmp_path, same_results=True)
    assert open_study(tmp_path / "first").outcome == first
    assert [first["fingerprint"], outcome["fingerprint"]] == begun
    assert OTHER_CODE in outcome["reasons"] and OTHER_CODE not in first["reasons"]
    assert outcome["steps_reused"] == 50
    assert "nothing was trained" in run(config, tmp_path, same_results=True)[1]


def test_a_study_grows_with_code_that_is_vouched_for(tmp_path, version):
    run(config_of(2), tmp_path)
    version("new")
    with pytest.raises(UserError, match=r"differ in budgetflow's code, search.trials\); give"):
        run(config_of(3), tmp_path)
    outcome, _ = run(config_of(3), tmp_path, same_results=True)
    assert outcome["trials"] == 3 and OTHER_CODE in outcome["reasons"]
    # What the folder was begun with is not forgotten.
    assert recorded(tmp_path / "mine")["found_on"]["budgetflow"]["source"] == "old"
    assert [source_of(record)[0] for record in read_trials(tmp_path / "mine")] == [
        "old",
        "old",
        "new",
    ]
    with pytest.raises(UserError, match=VOUCH):
        run(config_of(3), tmp_path)
    assert "nothing was trained" in run(config_of(3), tmp_path, same_results=True)[1]


@pytest.mark.parametrize(
    ("field", "value"), [("seed", 1), ("optimizer.momentum", 0.5), ("evaluation.evaluations", 4)]
)
def test_another_config_is_not_vouched_for(tmp_path, version, field, value):
    interrupted(config_of(2), tmp_path)
    version("new")
    config = config_of(2)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(
        UserError,
        match=rf"differ in {field}\); go on beside it .* by --fork=NAME, give another --workdir",
    ):
        run(config, tmp_path, same_results=True)


class Numbers:
    num_classes = 3
    shift = 0

    def __init__(self, split):
        pass

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"x": [float(index)], "y": (index + self.shift) % 3}


def test_other_data_are_not_vouched_for(tmp_path, version, monkeypatch):
    config = config_of(2)
    config.data.name = f"{__name__}.Numbers"
    config.data.input_key, config.data.target_key, config.data.batch_size = "x", "y", 4
    config.search.space = config.search.space[:1]
    interrupted(config, tmp_path)
    version("new")
    monkeypatch.setattr(Numbers, "shift", 1)
    for cached in (load_dataset, _dataset):
        cached.cache_clear()
    held = "what config.data.train_split holds, what config.data.validation_split holds"
    with pytest.raises(UserError, match=rf"differ in {held}\); give another --workdir"):
        run(config, tmp_path, same_results=True)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("fingerprint",), "0123456789abcdef"),
        (("found_on", "seed"), 1),
        (("found_on", "budgetflow", "source"), "older"),
        (("found_on", "content", "train", "digest"), "0123456789abcdef"),
    ],
)
def test_a_folder_that_was_tampered_with_is_not_vouched_for(tmp_path, version, keys, value):
    interrupted(config_of(2), tmp_path)
    known = recorded(tmp_path / "mine")
    part = known
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    write_json(tmp_path / "mine" / "config.json", known)
    version("new")
    with pytest.raises(UserError, match=r"the study it builds on\); give another --workdir"):
        run(config_of(2), tmp_path, same_results=True)
    assert recorded(tmp_path / "mine") == known


NET = """
from flax import nnx


class Net(nnx.Module):
    def __init__(self, input_shape, num_outputs, *, rngs):
        self.output = nnx.Linear(64, num_outputs, rngs=rngs)

    def __call__(self, inputs):
        return self.output(inputs.reshape(len(inputs), -1))
"""
CONFIG = """
from budgetflow.config import default_config, log_uniform


def get_config():
    config = default_config("round")
    config.max_train_steps = 30
    config.evaluation.evaluations = 5
    config.model = {"name": "own_net.Net"}
    config.search.trials = 2
    config.search.space = (log_uniform("schedule.base_learning_rate", 0.01, 0.1),)
    return config
"""


@pytest.mark.slow
def test_a_model_of_ones_own_is_refactored_between_two_launches(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(NET)
    (tmp_path / "mine.py").write_text(CONFIG)
    monkeypatch.syspath_prepend(str(tmp_path))
    interrupted(load_config_file(tmp_path / "mine.py"), tmp_path)
    del sys.modules["own_net"]
    (tmp_path / "own_net.py").write_text(
        NET.replace("inputs.reshape(len(inputs), -1)", "flat(inputs)")
        + "\n\ndef flat(inputs):\n    return inputs.reshape(len(inputs), -1)\n"
    )

    def launch(*arguments):
        program = [sys.executable, "-m", "budgetflow.launch", f"--config={tmp_path / 'mine.py'}"]
        return subprocess.run(
            [*program, f"--workdir={tmp_path}", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    changed = "the code behind config.model.name (own_net)"
    refused = launch()
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert f"(they differ in {changed}); undo the change, vouch with --same_results that" in line
    gone_on_with = launch("--same_results")
    assert gone_on_with.returncode == 0, gone_on_with.stderr
    assert gone_on(changed) in open_study(tmp_path / "mine").outcome["reasons"]
    resumed = [r.reuse_key.get("resumed_with_another") for r in read_trials(tmp_path / "mine")]
    assert resumed == [["code.model.name.own_net"], None]
