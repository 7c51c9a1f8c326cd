"""What trackers are told of trials, read back by TensorBoard's and W&B's own readers."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import run, trial_record

from budgetflow.base.errors import UserError
from budgetflow.base.files import write_json
from budgetflow.config import choices, default_config
from budgetflow.engine.schedules import Schedule
from budgetflow.results import tracking
from budgetflow.results.reading import open_study
from budgetflow.results.tracking import Tracking, check_trackers
from budgetflow.studies.store.trial import write_trial


def tracked(*trackers):
    """A round of two trials with a decay and layers, as hyperparameters are of many types."""
    config = default_config("round")
    config.name = "small"
    config.max_train_steps = 20
    config.model.hidden_sizes = (4,)
    config.evaluation.evaluations = 5
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.5
    config.search.method = "grid"
    config.search.space = (choices("model.hidden_sizes", (4,), (4, 4)),)
    config.trackers = trackers
    return config


def test_a_tracker_that_is_not_installed_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    check_trackers(())
    with pytest.raises(UserError, match="needs the package tensorboardX; install it"):
        check_trackers(["tensorboard"])


def test_no_tracker_is_imported_unless_it_is_asked_for():
    program = (
        "import budgetflow.cli.launch, sys; print({'tensorboardX', 'wandb'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr


def scalars(folder):
    """Tag to (step, value) pairs, by TensorBoard's reader."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(folder))
    events.Reload()
    return {t: [(e.step, e.value) for e in events.Scalars(t)] for t in events.Tags()["scalars"]}


def test_tensorboard_reads_measurements_learning_rates_and_the_best_step(tmp_path):
    pytest.importorskip("tensorboardX")
    outcome, _ = run(tracked("tensorboard"), tmp_path)
    study = open_study(tmp_path / "small")
    for trial in study.trials:
        read = scalars(study.folder / "tensorboard" / f"{trial.record.trial:04d}")
        rows = trial.record.rows
        for tag, key in (("train/loss", "train_loss"), ("learning_rate", "learning_rate")):
            assert read[tag] == [(row["step"], pytest.approx(row[key])) for row in rows]
        best = next(row for row in rows if row["step"] == trial.record.best_step)
        assert read["best/validation_error_rate"] == [
            (best["step"], pytest.approx(best["validation_error_rate"]))
        ]
    untracked, _ = run(tracked(), tmp_path / "untracked")
    assert outcome == untracked


def test_tensorboards_server_lists_runs_scalars_and_hyperparameters(tmp_path):
    pytest.importorskip("tensorboardX")
    program = pytest.importorskip("tensorboard.program")
    run(tracked("tensorboard"), tmp_path)
    server = program.TensorBoard()
    logdir = tmp_path / "small" / "tensorboard"
    server.configure(logdir=str(logdir), port=0, host="127.0.0.1", load_fast="false")
    url = server.launch()

    def ask(path, **request):
        data = json.dumps(request).encode() if request else None
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{url}data/plugin/{path}", data, headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)

    deadline = time.monotonic() + 30
    while len(tags := ask("scalars/tags")) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert sorted(tags) == ["0000", "0001"]
    assert {"train/loss", "validation/error_rate", "learning_rate"} <= set(tags["0001"])
    wanted = {"allowedStatuses": ["STATUS_SUCCESS"], "colParams": [], "sliceSize": 10}
    groups = ask("hparams/session_groups", experimentName="", **wanted)["sessionGroups"]
    hidden = {g["hparams"]["model.hidden_sizes"] for g in groups}
    assert hidden == {"(4,)", "(4, 4)"}
    assert {g["hparams"]["schedule.decay_steps"] for g in groups} == {10}
    metrics = {m["name"]["tag"] for g in groups for m in g["metricValues"]}
    assert "validation/error_rate" in metrics


def wandb_messages(data):
    """The messages in a .wandb file: LevelDB's log format, after a header of seven bytes."""
    at, message = 7, b""
    while at + 7 <= len(data):
        if (left := -at % 2**15) < 7 and left:  # too little for a header: padding
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield message
            message = b""


def test_wandb_has_a_run_for_each_trial_grouped_by_study(tmp_path, monkeypatch):
    """Offline, and read back from what it keeps to upload later, by W&B's own messages."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    run(tracked("wandb"), tmp_path)
    study = open_study(tmp_path / "small")
    files = sorted((tmp_path / "small" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == len(study.trials)
    names, logged = set(), []
    for file in files:
        steps, losses = [], []
        for data in wandb_messages(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                names.add((record.run.run_group, record.run.display_name, record.run.project))
            if record.WhichOneof("record_type") == "history":
                steps.append(record.history.step.num)
                values = {
                    "/".join(i.nested_key) or i.key: i.value_json for i in record.history.item
                }
                losses.append(float(values["train/loss"]))
        assert steps == [row["step"] for row in study.trials[0].record.rows]
        logged.append(losses)
    measured = [[row["train_loss"] for row in trial.record.rows] for trial in study.trials]
    assert sorted(logged) == sorted(measured)
    assert names == {("small", f"small/{n:04d}", "budgetflow") for n in range(2)}


class Recorded:
    """A tracker that keeps what it is told."""

    told: list

    def __init__(self, folder, record):
        self.number = record.trial
        Recorded.told.append(("begin", self.number))

    def write(self, rows):
        Recorded.told += [(self.number, row["step"]) for row in rows]

    def finish(self, record):
        Recorded.told.append((record.status, self.number))


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """What a tracker is told of the study in ``tmp_path``."""
    Recorded.told = []
    monkeypatch.setitem(tracking.RUNS, "tensorboard", Recorded)
    monkeypatch.setattr(tracking, "EVERY_SECONDS", 0)
    write_json(tmp_path / "config.json", {"fingerprint": "f"})
    return Recorded


def trial(step, status):
    rows = [{"step": s, "train_loss": 0.5} for s in range(10, step + 1, 10)]
    return trial_record(0, Schedule(0.1, 0, 30), rows, status=status)


def tell(folder, steps, last_status):
    """Tells of a trial at some steps, of which the last is what lies in the folder."""
    with Tracking(["tensorboard"], folder) as each:
        for step in steps:
            record = trial(step, last_status if step == steps[-1] else "running")
            write_trial(folder, record)
            each([record])
    return each


def test_each_measurement_is_written_once_and_the_end_is_told(recorded, tmp_path):
    assert tell(tmp_path, [10, 20, 30], "complete").failed == {}
    assert recorded.told == [("begin", 0), (0, 10), (0, 20), (0, 30), ("complete", 0)]


def test_a_killed_study_is_written_from_its_start_again_and_a_finished_trial_never(
    recorded, tmp_path
):
    tell(tmp_path, [10], "running")
    tell(tmp_path, [20, 30], "complete")
    assert [told for told in recorded.told if told[0] == "begin"] == [("begin", 0)] * 2
    assert recorded.told[-4:] == [(0, 10), (0, 20), (0, 30), ("complete", 0)]
    before = list(recorded.told)
    tell(tmp_path, [30], "complete")
    assert recorded.told == before


def test_a_tracker_that_fails_is_switched_off_and_the_study_goes_on(
    recorded, tmp_path, monkeypatch
):
    def broken(self, rows):
        raise OSError("no network")

    monkeypatch.setattr(Recorded, "write", broken)
    each = tell(tmp_path, [10, 20], "complete")
    assert each.failed == {"tensorboard": "OSError: no network"}


def test_the_thread_that_trains_does_not_wait_for_a_slow_tracker(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(Recorded, "write", lambda self, rows: time.sleep(1.0))
    monkeypatch.setattr(tracking, "CLOSING_SECONDS", 0.1)
    write_trial(tmp_path, record := trial(10, "running"))
    start = time.monotonic()
    with Tracking(["tensorboard"], tmp_path) as each:
        for _ in range(100):
            each([record])
    assert time.monotonic() - start < 0.9
    assert "not done after" in each.failed["tensorboard"]


def test_a_complete_study_is_not_written_again(tmp_path):
    pytest.importorskip("tensorboardX")
    run(tracked("tensorboard"), tmp_path)
    shutil.rmtree(tmp_path / "small" / "tensorboard")
    run(tracked("tensorboard"), tmp_path)
    assert not os.path.exists(tmp_path / "small" / "tensorboard")
