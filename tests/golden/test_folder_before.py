"""A folder that an earlier version wrote is read, reported, continued, extended and built upon.

``folder_before.tar.xz`` holds configs and what they made: a sweep (sweep.py), a round after it
(first.py), two rounds that build on that one (longer.py and points.py), and a round that was killed
in its second trial (stopped.py). Reports are left out.
"""

import importlib.metadata
import io
import tarfile
from pathlib import Path

import pytest
from conftest import run
from rich.console import Console

from budgetflow.base.files import read_json
from budgetflow.cli.check import check
from budgetflow.config import load_config_file
from budgetflow.engine.training.mesh import device_kind
from budgetflow.results.reading import open_study
from budgetflow.results.report.page import write_report
from budgetflow.studies.store.trial import read_trials

PACKED = Path(__file__).with_name("folder_before.tar.xz")
LONGEST = """
from pathlib import Path

from budgetflow.config import building_on


def get_config():
    config = building_on(Path(__file__).with_name("longer.py"), "round")
    config.max_train_steps_factor = 2.0
    config.evaluation.evaluations = 4
    config.search.promote_trials = 1
    return config
"""
STUDIES = ("sweep", "first", "longer", "points", "stopped")


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(PACKED) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def same_machine(folder):
    """Skips where the states are of another kind of device or another version of a library."""
    key = read_trials(folder / "runs" / "first")[0].reuse_key
    for name, version in key["libraries"].items():
        if (ours := importlib.metadata.version(name)) != version:
            pytest.skip(f"the folder was written with {name} {version}; this is {ours}")
    if (ours := device_kind()) != key["devices"]["kind"]:
        pytest.skip(f"the folder was written on {key['devices']['kind']}; this is {ours}")


def launched(folder, name, **fields):
    """Launches one of its configs; its outcome."""
    config = load_config_file(folder / "configs" / f"{name}.py")
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return run(config, folder / "runs")[0]


def files(folder):
    """What lies in a folder: path to content, but for reports and what tells of a launch.

    A config says where the one that it builds on lies, and holds keys that there are no more.
    """
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("report.html", "timing.json", "config.json")
    }


@pytest.mark.parametrize("name", STUDIES)
def test_it_is_read_shown_and_reported(folder, name):
    before = files(folder)
    study = open_study(folder / "runs" / name)
    table = study.to_pandas()
    assert list(table.index) == [record.trial for record in read_trials(study.folder)]
    write_report(study)
    assert "budgetflow" in (study.folder / "report.html").read_text()
    assert files(folder) == before


def test_its_best_checkpoint_is_restored_and_nothing_is_damaged(folder):
    assert open_study(folder / "runs" / "longer").best_trial.restore_params()
    assert check(str(folder / "runs"), Console(file=io.StringIO())) == 0


def test_what_is_complete_is_not_run_again(folder, same_machine):
    before = files(folder / "runs")
    for name in ("longer", "points"):
        launched(folder, name)
    assert files(folder / "runs") == before


def test_a_study_that_was_killed_goes_on(folder, same_machine):
    (complete, running) = read_trials(folder / "runs" / "stopped")
    assert (complete.status, running.status, running.step) == ("complete", "running", 30)
    outcome = launched(folder, "stopped")
    after = read_trials(folder / "runs" / "stopped")
    assert after[0] == complete
    assert after[1].rows[:3] == running.rows and after[1].step == 40
    assert "resumed_with_another" not in after[1].reuse_key
    timing = read_json(folder / "runs" / "stopped" / "timing.json")
    assert timing["steps_trained"] == 10 and outcome["steps_trained"] == 44


def test_a_study_is_extended_by_more_trials(folder, same_machine):
    before = read_trials(folder / "runs" / "points")
    outcome = launched(folder, "points", search__trials=3)
    after = read_trials(folder / "runs" / "points")
    assert after[:2] == before and len(after) == outcome["trials"] == 3


def test_a_longer_round_takes_its_steps_over(folder, same_machine):
    (folder / "configs" / "longest.py").write_text(LONGEST)
    outcome = launched(folder, "longest")
    assert outcome["max_train_steps"] == 160
    # All but the decay of the round that was there.
    assert outcome["steps_reused"] == 70
    assert not any("could not continue" in reason for reason in outcome["reasons"])
