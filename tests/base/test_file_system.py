"""A disk that is full, read-only or gone: one line, and what was recorded stays as it was."""

import errno
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY, blocks, small_config
from rich.console import Console

import budgetflow
from budgetflow.base.errors import ConfigError, UserError
from budgetflow.base.file_system import as_user_error, clear_file_system_errors
from budgetflow.cli.launch import launch
from budgetflow.config import log_uniform
from budgetflow.studies.run.live_trials import LiveTrials

SMALL = small_config(
    max_train_steps=12,
    evaluation__evaluations=3,
    search__trials=3,
    search__space=(log_uniform("schedule.base_learning_rate", 0.01, 0.3),),
)
# States that Orbax writes on threads of its own.
LARGE = """
from budgetflow.config import default_config


def get_config():
    config = default_config("round")
    config.max_train_steps = 12
    config.evaluation.evaluations = 3
    config.model.hidden_sizes = (2300,)
    return config
"""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "x"), "/w cannot be written or read: its disk is full"),
        (OSError(errno.EDQUOT, "x", "/w/s/a"), "/w/s/a cannot be written or read: its disk quota"),
        (OSError(errno.EROFS, "x", "/w/s/a"), "it is on a read-only file system"),
        (PermissionError(errno.EACCES, "x", "/w/a"), "permission is denied"),
        (FileNotFoundError(errno.ENOENT, "x", "/w/a"), "it, or its folder, is gone"),
        (OSError(errno.ENOENT, "x", "/tmp/p", None, "/w/a"), "/w/a cannot be written or read"),
        (ValueError("Error writing \"/w/a\": [os_error_code='28']"), "its disk is full"),
    ],
)
def test_refusals_are_told_in_one_line(error, words):
    with pytest.raises(UserError) as told, clear_file_system_errors("/w"):
        raise error
    assert words in str(told.value) and "launch again" in str(told.value)
    assert told.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "x", "/data/train.bin"),  # of the user's own code
        OSError("no number"),
        FileNotFoundError(errno.ENOENT, "x", "/w2/train.bin"),
        ValueError("Error reading \"/data/x\": [os_error_code='2']"),
        ConnectionResetError(errno.ECONNRESET, "x"),
        PermissionError(errno.EACCES, "x"),
        ValueError("28"),
    ],
)
def test_other_errors_stay_what_they_are(error):
    assert as_user_error(error, "/w") is None
    with pytest.raises(type(error)) as told, clear_file_system_errors("/w"):
        raise error
    assert told.value is error


def test_users_errors_are_left_alone():
    with pytest.raises(ConfigError), clear_file_system_errors("/w"):
        raise ConfigError("bad")


def recorded(workdir):
    """All records, but for times; and the best parameters."""
    left_out = ("checksums.json", "timing.json", "strategy.json", "begun.json")
    paths = (p for p in workdir.rglob("*.json*") if "checkpoints/" not in str(p))
    found = {p.relative_to(workdir): p.read_text() for p in paths if p.name not in left_out}
    assert not [path for path in found if path.name.endswith(".partial")]
    studies = budgetflow.open_studies(workdir).values()
    return found, [str(study.best_trial.restore_params()) for study in studies]


def run(workdir, *configs):
    return launch(list(configs), str(workdir), False, Console(quiet=True))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    run(workdir, SMALL)
    return workdir


def test_at_whatever_write_the_disk_fills_up_nothing_is_lost(disk, undisturbed):
    folder, _ = disk
    ballast, workdir = folder / "ballast", folder / "runs"
    failed = 0
    for part in range(24):
        shutil.rmtree(workdir, ignore_errors=True)
        ballast.write_bytes(bytes(3 * 2**20 - 8192 - blocks(undisturbed) * part // 20))
        for _ in range(2):  # the second time, too
            try:
                run(workdir, SMALL)
            except UserError as error:
                assert "disk is full" in str(error) and len(str(error).splitlines()) == 1
                failed += 1
        ballast.unlink()
        run(workdir, SMALL)
        assert recorded(workdir) == recorded(undisturbed)
    assert failed >= 20


@pytest.mark.slow
def test_what_is_written_in_the_background_is_told_too(disk, tmp_path):
    folder, remount = disk
    assert remount("size=12m")
    (tmp_path / "large.py").write_text(LARGE)

    def launched(workdir):
        command = [sys.executable, "-m", "budgetflow.launch", f"--config={tmp_path}/large.py"]
        command += [f"--workdir={workdir}", "--config.name=large"]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    assert launched(tmp_path / "undisturbed").returncode == 0
    for share in (0.3, 0.7):
        left = int(share * blocks(tmp_path / "undisturbed"))
        (folder / "ballast").write_bytes(bytes(12 * 2**20 - left))
        result = launched(folder / "runs")
        *others, line = result.stderr.splitlines()
        assert result.returncode == 2 and not others, result.stderr
        assert line.startswith("budgetflow: ") and "its disk is full" in line
        (folder / "ballast").unlink()
        assert launched(folder / "runs").returncode == 0
        assert recorded(folder / "runs") == recorded(tmp_path / "undisturbed")
        shutil.rmtree(folder / "runs")


@pytest.mark.slow
def test_a_disk_that_becomes_read_only_can_still_be_read(disk, undisturbed, monkeypatch):
    folder, remount = disk
    advance, count = LiveTrials.advance, iter(range(10**6))

    def then_read_only(self, *arguments):
        if next(count) == 4:
            assert remount("ro")
        return advance(self, *arguments)

    monkeypatch.setattr(LiveTrials, "advance", then_read_only)
    with pytest.raises(UserError, match="read-only file system"):
        run(folder / "runs", SMALL)
    for command in ("show", "check"):
        result = subprocess.run(
            [sys.executable, "-m", f"budgetflow.{command}", f"--workdir={folder / 'runs'}"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
    report = [sys.executable, "-m", "budgetflow.report", f"--workdir={folder / 'runs'}"]
    result = subprocess.run(report, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1, result.stderr
    elsewhere = [*report, "--study=small", f"--output={folder.parent / 'page.html'}"]
    assert subprocess.run(elsewhere, cwd=REPOSITORY, capture_output=True).returncode == 0
    assert remount("rw")
    run(folder / "runs", SMALL)
    assert recorded(folder / "runs") == recorded(undisturbed)


def test_a_folder_that_vanishes_is_named(tmp_path, undisturbed, monkeypatch):
    advance, count = LiveTrials.advance, iter(range(10**6))

    def then_gone(self, *arguments):
        if next(count) == 4:
            shutil.rmtree(tmp_path / "runs")
        return advance(self, *arguments)

    monkeypatch.setattr(LiveTrials, "advance", then_gone)
    with pytest.raises(UserError, match="is gone"):
        run(tmp_path / "runs", SMALL)
    run(tmp_path / "runs", SMALL)
    assert recorded(tmp_path / "runs") == recorded(undisturbed)
