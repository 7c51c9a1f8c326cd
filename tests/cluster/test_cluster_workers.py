"""Trials on workers of this process, some of which die: what is trained, written and said."""

import dataclasses
import random
from pathlib import Path

import pytest
from conftest import small_config
from etils import epath
from test_arrival_order import SimulatedWorkers
from test_lr_sweep import LEARNING_RATE

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.cluster import worker as cluster_worker
from budgetflow.cluster.dispatch import MOST_ERRORS, ClusterExecutor
from budgetflow.cluster.queue import Placement, write_placement
from budgetflow.cluster.worker import Stretch, Worker, assignment
from budgetflow.cluster.workers import LostWorker
from budgetflow.config import choices, default_config
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.results.reading import open_study
from budgetflow.results.report.page import write_report
from budgetflow.studies.kinds import parse_study
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.run.own_devices import OwnDevices
from budgetflow.studies.store.folder import open_folder
from budgetflow.studies.store.lock import Launcher
from budgetflow.studies.store.trial import read_trials, trial_folder
from budgetflow.studies.study import resolve

# What follows trains for real: on workers of this process.
SPACE = (choices(LEARNING_RATE, 0.03, 0.1, 0.3, 1.0),)


def a_round(folder, **fields):
    fields = {"search__space": SPACE, "search__method": "grid", **fields}
    return resolve(small_config(**fields), epath.Path(folder) / "small", None)


class OwnWorkers(SimulatedWorkers):
    """Real workers, in this process; one that dies may have done its work before."""

    def __init__(self, count, chance, dies=0.0):
        super().__init__(count, chance, None, dies)
        self.actors = {worker: Worker(1, {}) for worker in self.started}

    def wait(self, seconds):
        worker = self._chance.choice([worker for worker in self.started if worker.asked])
        (method, arguments), worker.asked = worker.asked, None
        dies = self._chance.random() < self._dies
        if dies and self._chance.random() < 0.5:
            return [(worker, LostWorker(f"{worker.node} died", process_only=False))]
        report = getattr(self.actors[worker], method)(*arguments)
        return [(worker, LostWorker(f"{worker.node} died", process_only=False) if dies else report)]


def run_on(workers, study):
    def new_executor(study, on_measured, on_phase):
        return ClusterExecutor(study, workers, on_measured, on_phase)

    return run_study(study, lambda *_: None, new_executor=new_executor)


def but_for_the_queue(outcome):
    reasons = [reason for reason in outcome["reasons"] if not reason.startswith("Its trials ran")]
    return {**outcome, "queue": None, "reasons": reasons}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The round on this process's own devices: its outcome, with no queue, and its records."""
    study = a_round(tmp_path_factory.mktemp("alone"))
    return but_for_the_queue(run_study(study, lambda *_: None)), read_trials(study.folder)


@pytest.mark.parametrize("dies", [0.0, 0.3])
def test_a_round_on_workers_is_the_round_on_own_devices(dies, alone, tmp_path):
    study = a_round(tmp_path)
    outcome = run_on(OwnWorkers(3, random.Random(1), dies), study)
    assert (but_for_the_queue(outcome), read_trials(study.folder)) == alone
    queue = outcome["queue"]
    assert sorted({trial for trials in queue["nodes"].values() for trial in trials}) == [0, 1, 2, 3]
    assert bool(queue["restarts"]) == bool(dies)
    (said,) = [reason for reason in outcome["reasons"] if reason.startswith("Its trials ran")]
    assert ("restart" in said) == bool(dies)
    assert run_study(study, lambda *_: None) == outcome, "concluded, it is read anywhere"


def test_a_study_that_a_cluster_began_goes_on_alone(alone, tmp_path):
    study = a_round(tmp_path)

    class Gone(Exception):
        pass

    class Launched(OwnWorkers):
        def wait(self, seconds):
            if any(record.status == "complete" for record in read_trials(study.folder)):
                raise Gone  # some are complete, others yet to join
            return super().wait(seconds)

    with pytest.raises(Gone):
        run_on(Launched(2, random.Random(0)), study)
    assert not all(record.reuse_key for record in read_trials(study.folder))
    outcome = run_study(study, lambda *_: None)
    assert (but_for_the_queue(outcome), read_trials(study.folder)) == alone


def test_a_trial_that_fails_three_times_is_left_out_and_named(alone, tmp_path, monkeypatch):
    study, advance, tried = a_round(tmp_path), OwnDevices.advance, []

    def failing(own, decision):
        if decision.trials == (0,):
            tried.append(decision)
            raise FloatingPointError("a kernel of mine\nfailed")
        advance(own, decision)

    monkeypatch.setattr(OwnDevices, "advance", failing)
    outcome = run_on(OwnWorkers(2, random.Random(0)), study)
    assert len(tried) == MOST_ERRORS
    assert outcome["failed"] == [0] and outcome["trials"] == 3 and outcome["diverged"] == 0
    records = {record.trial: record for record in read_trials(study.folder)}
    assert records[0].status == "failed"
    # Positions and numbers differ now.
    others = {record.trial: record for record in alone[1] if record.trial != 0}
    assert {n: record for n, record in records.items() if n != 0} == others
    best = min(others.values(), key=lambda r: study.selection.cost(study.selection.best(r.rows)))
    assert outcome["best_trial"] == best.trial
    said = " ".join(outcome["reasons"])
    assert "Trial 0 could not be trained" in said and "FloatingPointError: a kernel of mine" in said
    report = write_report(open_study(study.folder)).read_text()
    assert "could not be trained" in report
    # What the sentence asks for.
    monkeypatch.undo()
    trial_folder(study.folder, 0).rmtree()
    (study.folder / "outcome.json").unlink()
    again = run_on(OwnWorkers(2, random.Random(0)), study)
    assert read_trials(study.folder) == alone[1]
    assert again["trials"] == 4 and "failed" not in again


def test_a_study_whose_trials_all_fail_has_no_outcome(tmp_path, monkeypatch):
    def failing(own, decision):
        raise RuntimeError("no luck")

    monkeypatch.setattr(OwnDevices, "advance", failing)
    study = a_round(tmp_path)
    with pytest.raises(UserError, match=r"every trial of small failed.*RuntimeError: no luck"):
        run_on(OwnWorkers(2, random.Random(0)), study)
    assert not (study.folder / "outcome.json").exists()


def test_a_node_with_other_code_or_data_is_named(tmp_path):
    study = a_round(tmp_path)
    other = dataclasses.replace(study, found_on={**study.found_on, "seed": 7})
    with pytest.raises(UserError, match=r"^on node 0: what is there differs .* in seed"):
        run_on(OwnWorkers(1, random.Random(0)), other)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "/w/x"), ConfigError("x")]
)
def test_what_is_no_trials_fault_ends_the_launch_and_names_the_node(error, tmp_path, monkeypatch):
    study, where = a_round(tmp_path), "advance"

    def failing(*_, **__):
        raise error

    if isinstance(error, OSError):
        monkeypatch.setattr(OwnDevices, where, failing)
    else:  # a module that is missing there
        monkeypatch.setattr(cluster_worker, "resolve", failing)
    with pytest.raises(UserError, match=r"^on node 0: (/w/x: No space left on device|x)$"):
        run_on(OwnWorkers(1, random.Random(0)), study)


@pytest.mark.parametrize("who", ["worker", "launcher"])
def test_a_worker_that_was_replaced_writes_nothing(who, tmp_path):
    study = a_round(tmp_path)
    workers = OwnWorkers(1, random.Random(0))
    executor = ClusterExecutor(study, workers, lambda: None, lambda phase: None)
    open_folder(study)
    executor.read()
    executor.add({0: study.plans[0].hyperparameters})
    asked = assignment(study)
    if who == "worker":
        write_placement(study.folder, 0, Placement(attempt=2))
    else:
        asked = dataclasses.replace(asked, launcher=Launcher("elsewhere", 1, 1, 0.0))
    before = everything(study.folder)
    report = Worker(1, {}).advance(asked, Stretch(0, 30, attempt=1))
    assert not report.is_complete and report.error is None and report.refused is None
    assert everything(study.folder).items() >= before.items()
    assert TrialCheckpoints(trial_folder(study.folder, 0)).steps() == []


def everything(folder):
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in paths if path.name != "strategy.json"}


def test_what_a_worker_needs_has_to_exist():
    config = default_config("round")
    config.name, config.max_train_steps = "x", 10
    config.ray.cpus = -1.0
    with pytest.raises(ConfigError, match=r"config.ray.cpus = -1"):
        parse_study(config)
