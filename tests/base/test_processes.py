"""Runs of several real processes on this machine, each launching budgetflow as a user does."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, blocks, run

from budgetflow.base import processes, stopping
from budgetflow.base.errors import ConfigError
from budgetflow.config import load_config_file
from budgetflow.results.reading import open_study

CONFIG = """
from budgetflow.config import default_config, log_uniform


def get_config():
    config = default_config("round")
    config.max_train_steps = 120
    config.model.hidden_sizes = (32,)
    config.augmentation.shift_pixels = 1.0
    config.evaluation.evaluations = 8
    config.evaluation.train_examples = 270  # as many as in the other splits: one program for all
    config.checkpoints.every_seconds = 0.2
    config.data.in_memory_bytes = 0  # read by Grain, each process its share
    config.data.test_split = "test"
    config.mesh.trial = 1
    config.mesh.min_sharded_size = 64
    config.search.trials = 2
    config.search.space = (log_uniform("schedule.base_learning_rate", 0.01, 0.2),)
    return config
"""
SWEEP = str(REPOSITORY / "configs" / "lr_sweep.py")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "split.py"
    path.write_text(CONFIG)
    return str(path)


def start(count, config, workdir, *arguments, slurm=False):
    """The processes of a run, joined by flags or as SLURM would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    many = [f"--coordinator_address=127.0.0.1:{port}", f"--num_processes={count}"]
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "budgetflow.launch",
                f"--config={config}",
                f"--workdir={workdir}",
                *arguments,
                *([*many, f"--process_id={number}"] if count > 1 and not slurm else []),
            ],
            cwd=REPOSITORY,
            env={**os.environ, **(slurm_task(number, count) if slurm else {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(count)
    ]


def slurm_task(number, count):
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": str(count),
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
    }


def finish(running, status=0):
    """Waits for the processes of a run; what each printed."""
    outputs = [process.communicate(timeout=600) for process in running]
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == status, errors
    return outputs


def recorded(workdir, study):
    """All that a study's folder records about its results."""
    paths = [p for p in (workdir / study).rglob("*.json*") if "checkpoints/" not in str(p)]
    skipped = ("checksums.json", "timing.json", "config.json", "strategy.json", "begun.json")
    return {str(p.relative_to(workdir)): p.read_text() for p in paths if p.name not in skipped}


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """A round over two processes that share every batch and every parameter."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    outputs = finish(start(2, config, workdir, "--config.mesh.fsdp=2"))
    return workdir, outputs


@pytest.mark.slow
def test_a_sweep_over_two_processes_is_the_one_of_one(completed_workdir, tmp_path):
    """Trials over the processes: bit for bit. A batch over the processes: the same answer."""
    running = start(2, SWEEP, tmp_path / "trials", "--config.mesh.trial=2", "--config.mesh.data=1")
    finish(running)
    alone, together = (open_study(d / "lr_sweep") for d in (completed_workdir, tmp_path / "trials"))
    # Two that run at the same time can stop each other later; all else is the same.
    steps_trained = [study.outcome.pop("steps_trained") for study in (alone, together)]
    assert steps_trained[1] == pytest.approx(steps_trained[0], rel=0.05)
    assert together.outcome == alone.outcome
    for ours, theirs in zip(together.trials, alone.trials, strict=True):
        rows, others = ({r["step"]: r for r in t.record.rows} for t in (ours, theirs))
        common = rows.keys() & others.keys()
        assert len(common) >= len(others) - 2
        assert all(rows[step] == others[step] for step in common)
    # Fewer learning rates than that one tried, the best and its neighbours among them.
    few = "--config.sweep.learning_rates=(0.1, 0.1778, 0.3162)"
    finish(start(2, SWEEP, tmp_path / "data", "--config.mesh.trial=1", "--config.mesh.data=2", few))
    expected = open_study(completed_workdir / "lr_sweep").outcome
    found = open_study(tmp_path / "data" / "lr_sweep").outcome
    assert found["status"] == "found"
    assert found["best_learning_rate"] == pytest.approx(expected["best_learning_rate"])
    # The order of sums differs, which may move the answer by very little.
    assert abs(found["max_train_steps"] - expected["max_train_steps"]) <= 3


@pytest.mark.slow
def test_only_process_0_prints_and_writes(undisturbed):
    workdir, ((main, _), (other, _)) = undisturbed
    assert "Summary" in main and "Best checkpoint" in main
    assert "Summary" not in other and "trials" not in other
    assert (workdir / "split" / "report.html").exists()
    checkpoints = workdir / "split" / "trials" / "0000" / "checkpoints"
    # Both processes wrote their parts of the arrays.
    assert {f"ocdbt.process_{n}" for n in (0, 1)} <= {p.name for p in checkpoints.glob("*/*")}
    params = open_study(workdir / "split").best_trial.restore_params()
    assert params["hidden"]["0"]["kernel"].shape == (64, 32)


def start_and_wait_for_a_checkpoint(config, workdir):
    """The two processes of a run that is under way."""
    running = start(2, config, workdir, "--config.mesh.fsdp=2")
    saved = workdir / "split" / "trials" / "0000" / "checksums.json"
    deadline = time.monotonic() + 120
    while not saved.exists():
        assert time.monotonic() < deadline and all(p.poll() is None for p in running)
        time.sleep(0.05)
    return running


@pytest.fixture(scope="module")
def lost(config, tmp_path_factory):
    """Of two runs, one that lost process 0 and one that lost process 1: folder and survivor."""
    runs = []
    for victim in (0, 1):
        workdir = tmp_path_factory.mktemp("lost")
        running = start_and_wait_for_a_checkpoint(config, workdir)
        running[victim].send_signal(signal.SIGKILL)
        survivor = running[1 - victim]
        _, errors = survivor.communicate(timeout=60)
        running[victim].communicate()
        runs.append((workdir, survivor.returncode, errors))
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_is_lost_the_other_ends(lost, victim):
    workdir, status, errors = lost[victim]
    assert status != 0
    assert errors.strip().splitlines()[-1] == processes.LOST
    assert not (workdir / "split" / "outcome.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_a_full_disk_ends_all_processes_and_loses_nothing(share, config, disk, undisturbed):
    """Where all of them meet it, in one line; where one does, the others are told it is lost."""
    folder, remount = disk
    assert remount("size=12m")
    left = int(share * blocks(undisturbed[0]))
    (folder / "ballast").write_bytes(bytes(12 * 2**20 - left))
    running = start(2, config, folder / "runs", "--config.mesh.fsdp=2")
    outputs = [process.communicate(timeout=600) for process in running]
    full = 0
    for process, (_, errors) in zip(running, outputs, strict=True):
        if process.returncode == 2:
            *others, line = errors.splitlines()
            assert not others, errors
            assert line.startswith("budgetflow: ") and "its disk is full" in line
            full += 1
        else:
            assert process.returncode != 0 and errors.splitlines()[-1] == processes.LOST
    assert full
    (folder / "ballast").unlink()
    finish(start(2, config, folder / "runs", "--config.mesh.fsdp=2"))
    assert recorded(folder / "runs", "split") == recorded(undisturbed[0], "split")


@pytest.mark.slow
def test_a_restart_goes_on_after_a_process_was_lost(config, tmp_path, lost, undisturbed):
    shutil.copytree(lost[1][0], tmp_path, dirs_exist_ok=True)
    finish(start(2, config, tmp_path, "--config.mesh.fsdp=2"))
    assert recorded(tmp_path, "split") == recorded(undisturbed[0], "split")


@pytest.mark.slow
def test_a_run_goes_on_on_other_devices(config, tmp_path, lost, undisturbed):
    """From two processes to one with eight devices, to four, two of them to a trial."""
    shutil.copytree(lost[0][0], tmp_path, dirs_exist_ok=True)
    (eight,) = start(1, config, tmp_path, "--config.mesh.data=2", "--config.mesh.fsdp=4")
    first = tmp_path / "split" / "trials" / "0000" / "trial.json"
    while json.loads(first.read_text())["status"] == "running":
        assert eight.poll() is None, eight.communicate()
        time.sleep(0.05)
    eight.kill()
    eight.communicate()
    finish(start(4, config, tmp_path, "--config.mesh.trial=2", "--config.mesh.data=2"))
    ours, expected = (
        open_study(workdir / "split").measurements() for workdir in (tmp_path, undisturbed[0])
    )
    # Same batches, same schedule: only the order of sums differs.
    assert (
        ours[["trial", "step", "learning_rate"]].values
        == expected[["trial", "step", "learning_rate"]].values
    ).all()
    assert ours["validation_loss"].values == pytest.approx(expected["validation_loss"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "signals"),
    [("fsdp", ((1, signal.SIGTERM), (0, signal.SIGUSR1))), ("trial", ((1, signal.SIGTERM),))],
    ids=["one trial over both", "a trial on each"],
)
def test_all_processes_stop_at_one_step_when_one_is_asked(mesh, signals, config, tmp_path):
    options = (f"--config.mesh.{mesh}=2", "--config.max_train_steps=240")
    finish(start(2, config, tmp_path / "undisturbed", *options))
    workdir = tmp_path / "stopped"
    for victim, number in signals:
        running = start(2, config, workdir, *options)
        before = measurements(workdir)
        while measurements(workdir) == before:
            assert running[0].poll() is None
            time.sleep(0.02)
        running[victim].send_signal(number)
        (_, first), (_, second) = finish(running, status=stopping.STOPPED_STATUS)
        assert first == "budgetflow: stopped, all saved; launch again to go on from here\n"
        assert second == ""
    finish(start(2, config, workdir, *options))
    assert recorded(workdir, "split") == recorded(tmp_path / "undisturbed", "split")


def measurements(workdir):
    return [path.read_text() for path in sorted(workdir.glob("*/trials/*/measurements.jsonl"))]


@pytest.mark.slow
def test_bad_input_ends_every_process_with_the_same_line(config, tmp_path):
    outputs = finish(start(2, config, tmp_path, "--config.data.batch_size=31"), status=2)
    for _, errors in outputs:
        lines = [line for line in errors.splitlines() if line.startswith("budgetflow:")]
        assert len(lines) == 1 and "batch_size = 31" in lines[0]
    assert not (tmp_path / "split").exists()


@pytest.mark.slow
def test_tasks_of_slurm_join_by_themselves(config, tmp_path):
    arguments = ("--config.mesh.data=2", "--dry_run")
    (main, _), (other, _) = finish(start(2, config, tmp_path, *arguments, slurm=True))
    assert "1 x 2 x 1" in main
    assert "split" not in other


def test_flags_that_go_together_are_asked_for_together(config):
    result = subprocess.run(
        [sys.executable, "-m", "budgetflow.launch", f"--config={config}", "--num_processes=2"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "go together" in result.stderr


def test_one_process_agrees_with_itself():
    assert processes.is_main()
    assert processes.gather({"a": 1}) == [{"a": 1}]
    assert processes.on_main(max, 1, 2) == 2

    def refuse():
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        processes.on_main(refuse)


@pytest.mark.slow
def test_trials_over_two_processes_share_the_steps_before_their_decays(tmp_path):
    text = (
        CONFIG.replace("log_uniform", "choices")
        .replace('"schedule.base_learning_rate", 0.01, 0.2', '"schedule.decay_steps", 40, 20')
        .replace("search.trials = 2", 'schedule.decay, config.search.method = "linear", "grid"')
    )
    path = tmp_path / "shared.py"
    path.write_text(text)
    finish(start(2, path, tmp_path / "two", "--config.mesh.fsdp=2"))
    run(load_config_file(path), tmp_path / "one")
    two, one = (open_study(tmp_path / folder / "shared") for folder in ("two", "one"))
    for study in (two, one):
        assert (study.outcome["steps_trained"], study.outcome["steps_reused"]) == (160, 80)
    ours, expected = two.measurements(), one.measurements()
    assert (ours[["trial", "step"]].values == expected[["trial", "step"]].values).all()
    assert ours["validation_loss"].values == pytest.approx(expected["validation_loss"], rel=0.02)
