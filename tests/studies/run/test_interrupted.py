"""Studies that were killed, lost files or found damaged ones go on to the same result."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, edited_config, run
from test_controller import STUDIES, everything_recorded, outcome_of

from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import read_json
from budgetflow.config import load_config_file
from budgetflow.playbook.common.measurement import Selection
from budgetflow.studies.store.trial import read_trials, write_trial


@pytest.mark.parametrize("study", STUDIES)
def test_losing_the_outcome_and_the_last_trial_reproduces_both(workdir, study):
    before = everything_recorded(workdir / study)
    (workdir / study / "outcome.json").unlink()
    shutil.rmtree(sorted((workdir / study / "trials").iterdir())[-1])
    run(edited_config(study), workdir)
    assert everything_recorded(workdir / study) == before


def kill_when(process, condition, seconds=120):
    """Kills a process as soon as a condition holds; it must not end before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "fields", "kills"),
    [
        (
            "lr_sweep",
            {"sweep__learning_rates": (0.1, 0.1778, 0.3162)},
            [("trials/0002/measurements.jsonl", 5)],
        ),
        # In the middle of a trial and, gone on, of another.
        (
            "round1",
            {"search__trials": 3},
            [("trials/0000/measurements.jsonl", 20), ("trials/0001/measurements.jsonl", 5)],
        ),
        # In the middle of a trial that continues another one of the study.
        ("cooldowns", {}, [("trials/0001/measurements.jsonl", 50)]),
    ],
)
def test_a_killed_study_goes_on_to_the_same_result(
    completed_workdir, tmp_path, study, fields, kills
):
    fields = {**fields, "checkpoints__every_seconds": 0.0}
    workdir, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    for earlier in {"round1": ["lr_sweep"], "cooldowns": ["lr_sweep", "round1"]}.get(study, []):
        shutil.copytree(completed_workdir / earlier, workdir / earlier)
        shutil.copytree(completed_workdir / earlier, undisturbed / earlier)
    run(edited_config(study, **fields), undisturbed)
    overrides = [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]
    program = [sys.executable, "-m", "budgetflow.launch", f"--config=configs/{study}.py"]
    command = [*program, f"--workdir={workdir}", *overrides]
    for path, rows in kills:

        def reached(path=workdir / study / path, rows=rows):
            return path.exists() and len(path.read_text().splitlines()) >= rows

        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as process:
            kill_when(process, reached)
    assert not (workdir / study / "outcome.json").exists()
    interrupted = read_trials(workdir / study)
    assert any(record.status == "running" for record in interrupted)
    run(edited_config(study, **fields), workdir)
    found, expected = (everything_recorded(path / study) for path in (workdir, undisturbed))
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name] == expected[name], name


def test_a_damaged_record_is_named(workdir):
    (workdir / "round1" / "outcome.json").unlink()
    for name, content in (("trial.json", '{"trial": 0'), ("measurements.jsonl", '{"step": 1}\nx')):
        path = workdir / "round1" / "trials" / "0003" / name
        intact = path.read_text()
        path.write_text(content)
        with pytest.raises(DamagedFileError, match=f"0003/{name} is damaged"):
            run(edited_config("round1"), workdir)
        path.write_text(intact)


def test_a_damaged_checkpoint_past_the_record_leaves_the_record_where_it_is(tmp_path, chain):
    def config():
        loaded = load_config_file(chain[0] / "first.py")
        loaded.checkpoints.update(every_seconds=0.0, keep_best=9)
        return loaded

    run(config(), tmp_path)
    expected = read_trials(tmp_path / "first")
    # Killed after two checkpoints, before the record of either was written; then one is damaged.
    (tmp_path / "first" / "outcome.json").unlink()
    folder = tmp_path / "first" / "trials" / "0000"
    saved = [int(step) for step in read_json(folder / "checksums.json")]
    record = expected[0].back_to(saved[-3], Selection("validation_error_rate"))
    write_trial(tmp_path / "first", dataclasses.replace(record, status="running"), back=True)
    victim = next(p for p in (folder / "checkpoints" / str(saved[-1])).rglob("*") if p.is_file())
    victim.write_bytes(b"")
    run(config(), tmp_path)
    again = read_trials(tmp_path / "first")
    assert again[0].damaged and dataclasses.replace(again[0], damaged=()) == expected[0]


def test_a_damaged_checkpoint_is_not_taken_over(workdir):
    undamaged = outcome_of(workdir, "round2")
    shutil.rmtree(workdir / "round2")
    best = outcome_of(workdir, "round1")["best_trial"]
    record = read_trials(workdir / "round1")[best]
    pin = record.schedule.decay_start_step
    folder = workdir / "round1" / "trials" / f"{best:04d}" / "checkpoints" / str(pin)
    victim = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    outcome, _ = run(edited_config("round2"), workdir)
    assert outcome["best_validation"] == undamaged["best_validation"]
    assert outcome["steps_reused"] < undamaged["steps_reused"]
    said = [reason for reason in outcome["reasons"] if "damaged checkpoints" in reason]
    assert said and f"step {pin} of trial {best} of round1" in said[0]
