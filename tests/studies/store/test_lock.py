"""Two launchers of one study: the second is told, waits, or takes over from one that is gone."""

import dataclasses
import functools
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import REPOSITORY
from etils import epath

from budgetflow.base.errors import UserError
from budgetflow.base.files import read_json, write_json
from budgetflow.studies.store import lock
from budgetflow.studies.store.lock import LOCK, locked, this_launcher

HOLD = """
import sys, time
from etils import epath
from budgetflow.studies.store.lock import locked
with locked(epath.Path(sys.argv[1]), False, print):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lock, "SILENT_SECONDS", 2.0)


def holder(folder, seconds):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", f"{QUICKLY}\n{HOLD}"]
    process = subprocess.Popen([*command, str(folder), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


QUICKLY = "from budgetflow.studies.store import lock; lock.BEAT_SECONDS = 0.2"


def elsewhere(beats=0):
    """A launcher on another machine, whose processes nobody here knows."""
    return dataclasses.replace(this_launcher(), host="tpu-vm-7", beats=beats)


def test_a_second_launcher_is_told_who_runs_the_study(tmp_path):
    folder = epath.Path(tmp_path)
    with holder(folder, 30) as process:
        told = pytest.raises(UserError, match=f"process {process.pid} on .*--wait")
        with told, locked(folder, False, print):
            pass
        assert (folder / LOCK).exists()
        process.kill()


def test_a_second_launcher_can_wait(tmp_path):
    said = []
    folder = epath.Path(tmp_path)
    with holder(folder, 2) as process, locked(folder, True, said.append):
        assert process.poll() is not None or process.wait(5) == 0
        assert read_json(folder / LOCK)["process"] == this_launcher().process
    assert any(f"waiting for process {process.pid}" in line for line in said)
    assert not (folder / LOCK).exists()


def test_a_killed_launcher_is_succeeded_at_once(tmp_path):
    folder = epath.Path(tmp_path)
    with holder(folder, 30) as process:
        process.kill()
    said = []
    begun = time.monotonic()
    with locked(folder, False, said.append):
        assert time.monotonic() - begun < 1.5
    assert [f"taken over from process {process.pid}" in line for line in said] == [True]


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_silent_one_on_another_machine_is_succeeded(tmp_path, content):
    folder = epath.Path(tmp_path)
    if content is None:
        write_json(folder / LOCK, dataclasses.asdict(elsewhere()))
    else:  # killed as it took the lock
        (folder / LOCK).write_text(content)
    said = []
    with locked(folder, False, said.append):
        assert read_json(folder / LOCK)["host"] == this_launcher().host
    assert "taken over from" in said[-1]


def test_one_on_another_machine_that_goes_on_speaking_is_not(tmp_path):
    path = epath.Path(tmp_path) / LOCK
    write_json(path, dataclasses.asdict(elsewhere()))
    ended = threading.Event()

    def speak():
        beats = 0
        while not ended.wait(0.2):
            beats += 1
            write_json(path, dataclasses.asdict(elsewhere(beats)))

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        with pytest.raises(UserError, match="on tpu-vm-7"), locked(path.parent, False, print):
            pass
    finally:
        ended.set()
        thread.join()


def test_who_was_taken_for_lost_stops(tmp_path):
    """As a machine that slept, while another one took over."""
    script = f"{QUICKLY}\n{HOLD.replace('import sys', 'import signal, sys')}".replace(
        "with locked", "signal.signal(signal.SIGINT, lambda *_: None)\nwith locked"
    )
    command = [sys.executable, "-c", script, str(tmp_path), "30"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        write_json(epath.Path(tmp_path) / LOCK, dataclasses.asdict(elsewhere()))
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and "was taken over by process" in error
    assert read_json(epath.Path(tmp_path) / LOCK)["host"] == "tpu-vm-7"


def test_a_notebook_that_was_taken_for_lost_is_interrupted(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = epath.Path(tmp_path)
    with pytest.raises(KeyboardInterrupt), locked(folder, False, print):
        write_json(folder / LOCK, dataclasses.asdict(elsewhere()))
        time.sleep(5)
    signal.signal(signal.SIGINT, before)
    assert read_json(folder / LOCK)["host"] == "tpu-vm-7"


def test_of_many_at_once_one_runs_at_a_time(tmp_path):
    script = HOLD.replace("False", "True").replace(
        "    time.sleep", "    print(time.monotonic())\n    time.sleep"
    )
    command = [sys.executable, "-c", script + "    print(time.monotonic())\n", str(tmp_path), "0.2"]
    crowd = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    held = []
    for process in crowd:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        held.append(tuple(map(float, output.split("held\n")[1].split())))
    first, second, third = sorted(held)
    assert first[1] <= second[0] and second[1] <= third[0]


@pytest.mark.slow
def test_two_launchers_of_one_study(tmp_path):
    # One that takes long: no loss is that low.
    command = [sys.executable, "-m", "budgetflow.launch", "--config=configs/lr_sweep.py"]
    command += ["--config.max_train_steps=100000", "--config.sweep.fitted_train_loss=1e-30"]
    command.append(f"--workdir={tmp_path}")
    start = functools.partial(subprocess.Popen, command, cwd=REPOSITORY, text=True)
    with start(stdout=subprocess.DEVNULL) as first:
        while not (tmp_path / "lr_sweep" / "trials" / "0000" / "trial.json").exists():
            assert first.poll() is None
            time.sleep(0.05)
        with start(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as second:
            _, error = second.communicate(timeout=120)
        first.kill()
    assert second.returncode == 2 and error.count("\n") == 1
    assert f"is being run by process {first.pid} on " in error
    with start(stdout=subprocess.PIPE) as third:
        assert any(f"taken over from process {first.pid}" in line for line in third.stdout)
        third.kill()
