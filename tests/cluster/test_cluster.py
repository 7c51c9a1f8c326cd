"""Trials on a cluster: in whatever order results arrive, whoever dies, the answer is the same."""

import contextlib
import dataclasses
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import pytest
from conftest import REPOSITORY, small_config
from etils import epath
from test_lr_sweep import LEARNING_RATE, Fate, Simulation, sweep

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.base.files import read_json
from budgetflow.cluster import worker as cluster_worker
from budgetflow.cluster.dispatch import MOST_ERRORS, ClusterExecutor
from budgetflow.cluster.queue import Placement, read_placement, write_placement
from budgetflow.cluster.worker import Stretch, Worker, WorkerReport, assignment
from budgetflow.cluster.workers import LostWorker
from budgetflow.config import choices, default_config
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Add, Advance, Selection
from budgetflow.playbook.sweep import policy as lr_sweep
from budgetflow.results.reading import open_study
from budgetflow.results.report.page import write_report
from budgetflow.studies.kinds import parse_study
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.run.own_devices import OwnDevices
from budgetflow.studies.store.folder import open_folder
from budgetflow.studies.store.lock import Launcher
from budgetflow.studies.store.trial import read_trials, trial_folder, write_trial
from budgetflow.studies.study import resolve

RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


class SimulatedWorker:
    """What a :class:`budgetflow.cluster.workers.WorkerHandle` is to the executor."""

    def __init__(self, node):
        self.node, self.last_trial, self.asked = node, None, None

    def ask(self, method, *arguments):
        assert self.asked is None, "it has something to do"
        self.asked = method, arguments


class SimulatedWorkers:
    """Workers that come back in a random order, or die; each trial has one writer at a time.

    Args:
        count: how many.
        chance: which one is the next.
        result: (stretch) -> a report.
        dies: how likely one is to die instead of coming back.
    """

    needs = "a simulated node"

    def __init__(self, count, chance, result, dies=0.0):
        self.started = [SimulatedWorker(f"node {n}") for n in range(count)]
        self._chance, self._result, self._dies = chance, result, dies
        self.most_at_once = 0

    def grow(self, wanted):
        pass

    def idle(self, trial=None):
        free = [worker for worker in self.started if worker.asked is None]
        return self._chance.choice(free) if free else None

    def wait(self, seconds):
        busy = [worker for worker in self.started if worker.asked]
        self.most_at_once = max(self.most_at_once, len(busy))
        trials = [worker.asked[1][1].trial for worker in busy]
        assert len({*trials}) == len(trials), "two workers have the same trial"
        worker = self._chance.choice(busy)
        (_, (_, stretch)), worker.asked = worker.asked, None
        if self._chance.random() < self._dies:
            return [(worker, LostWorker("its node died", process_only=False))]
        return [(worker, self._result(stretch))]


def race_in(folder, settings, fate_of, count, chance, dies=0.0):
    """A race on simulated workers; its outcome, and how many worked at the same time."""
    simulation = Simulation.__new__(Simulation)
    simulation.settings, simulation.fate_of, simulation.exact = settings, fate_of, True

    def plan(study, number, hyperparameters):
        schedule = Schedule(hyperparameters[LEARNING_RATE], 0, settings.max_train_steps)
        config = types.SimpleNamespace(seed=0)
        return types.SimpleNamespace(
            hyperparameters=hyperparameters, schedule=schedule, config=config,
            length_steps=schedule.total_steps, role="point", idea=None,
        )  # fmt: skip

    kind = types.SimpleNamespace(
        plan=plan,
        promotes=False,
        decide=lambda study, records: lr_sweep.decide(settings, records),
    )
    study = types.SimpleNamespace(
        folder=epath.Path(folder), kind=kind, selection=Selection("validation_loss"),
        asked=None, earlier=None, same_results=False, lengths_to_come=(), found_on={},
    )  # fmt: skip

    def result(stretch):
        before = executor.records[stretch.trial]
        assert before.step < stretch.to_step and before.status in ("pending", "running")
        record = simulation.view(stretch.trial, before.hyperparameters, stretch.to_step)
        if dies:  # else nobody reads it
            write_trial(study.folder, record)
        return WorkerReport(record, steps_trained=record.step - before.step)

    workers = SimulatedWorkers(count, chance, result, dies)
    executor = ClusterExecutor(study, workers, lambda: None, lambda phase: None)
    executor.read()
    return carried_out(study, executor), workers


def carried_out(study, executor):
    """What a study's policy finds, as the controller has it carried out."""
    while True:
        decision = study.kind.decide(study, list(executor.records.values()))
        if isinstance(decision, Add):
            executor.add(decision.trials)
        elif isinstance(decision, Advance):
            executor.advance(decision)
        elif not executor.wait():
            return decision.outcome


ANSWER = (
    "status", "max_train_steps", "fitted_at_step_bracket", "best_trial", "best_learning_rate",
    "learning_rates", "extensions", "refinements", "seeds", "fit_held", "regime",
)  # fmt: skip


def answer(outcome):
    return {name: getattr(outcome, name) for name in ANSWER}


def fates(chance, most):
    """Of a learning rate and a seed: one valley, ties and trials that diverge or never fit."""
    best, width = 10 ** chance.uniform(-2.3, 0.3), chance.choice([20, 60, 200])
    never, edge = chance.random() < 0.15, 10 ** chance.uniform(0, 1)

    def fate_of(rate, seed=0):
        own = random.Random(f"{best} {rate} {seed}")
        distance = abs(own.gauss(0, 0.1) + (rate / best if rate > best else best / rate))
        fits_at = min(most * 3, int(width * distance))
        diverges = own.randrange(1, most) if rate > edge else None
        return Fate(None if never else max(1, fits_at), diverges, loss=distance)

    return fate_of


@pytest.mark.parametrize("cases", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_a_race_has_one_answer_in_whatever_order_results_arrive(cases, tmp_path):
    """Five orders of each, on 1 to 9 workers, some of which die."""
    restarts = at_once = 0
    for case in range(cases):
        chance = random.Random(f"{cases} {case}")
        seeds = tuple(range(chance.choice([1, 1, 2, 3])))
        refine = chance.choice([None, 1.3])
        settings = sweep(*RATES, steps=chance.choice([60, 200]), refine=refine, seeds=seeds)
        fate_of = fates(chance, settings.max_train_steps)
        expected = answer(
            lr_sweep.decide(settings, Simulation(settings, fate_of).sorted_trials()).outcome
        )
        for order in range(5):
            folder = tmp_path / f"{case}-{order}"
            dies = 0.05 * (order == 4)
            found, workers = race_in(
                folder, settings, fate_of, chance.randrange(1, 10), chance, dies
            )
            assert answer(found) == expected
            at_once = max(at_once, workers.most_at_once)
            placements = [read_placement(epath.Path(folder), n) for n in range(5)]
            restarts += sum(placement.attempt - 1 for placement in placements)
    assert at_once > len(RATES) and restarts > cases / 2


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


# On real nodes, of Ray's own cluster on one machine; in a process of its own, since it forks.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, include_dashboard=False))
nodes = [cluster.add_node(num_cpus=2), cluster.add_node(num_cpus=2)]
print("address", cluster.address, flush=True)
for line in sys.stdin:  # each replaces a node, killed without a warning
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=2))
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster():
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    address = next(line.split()[1] for line in process.stdout if line.startswith("address"))

    def replace_a_node():
        print("kill", file=process.stdin, flush=True)

    yield types.SimpleNamespace(address=address, replace_a_node=replace_a_node)
    process.communicate(timeout=60)


def launched(cluster, workdir, config, *flags):
    command = [sys.executable, "-m", "budgetflow.launch", f"--ray={cluster.address}"]
    return subprocess.Popen(
        [*command, f"--config={config}", f"--workdir={workdir}", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip


def finished(process, status=0):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == status, out + errors
    return out, errors


LONG = """
from budgetflow.config import choices, default_config


def get_config():
    config = default_config("round")
    config.max_train_steps = {steps}
    config.checkpoints.every_seconds = 0.5
    config.search.method = "grid"
    config.search.space = (
        choices("schedule.base_learning_rate", 0.03, 0.1), {also}
    )
    return config
"""


@pytest.mark.slow
def test_the_chain_on_two_nodes_is_that_of_one_machine(cluster, completed_workdir, tmp_path):
    out, _ = finished(launched(cluster, tmp_path, "configs/round2.py"))
    assert "on 2 nodes of a cluster" in out
    for name in ("lr_sweep", "round1", "round2"):
        ours, theirs = (read_json(w / name / "outcome.json") for w in (tmp_path, completed_workdir))
        if name == "lr_sweep":  # where losers stop depends on who is first
            assert {k: ours[k] for k in ANSWER} == {k: theirs[k] for k in ANSWER}
        else:
            assert but_for_the_queue(ours) == but_for_the_queue({**theirs, "queue": None})
            assert read_trials(tmp_path / name) == read_trials(completed_workdir / name)


def wait_for_progress(folder, process):
    """Waits until both trials of a round have been saved on the way."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if sum(bool(TrialCheckpoints(path).steps()) for path in Path(folder).glob("trials/*")) == 2:
            return
        time.sleep(0.1)
    raise AssertionError(process.communicate())


@pytest.mark.slow
def test_a_node_that_is_killed_or_a_launcher_that_is_stopped_loses_nothing(cluster, tmp_path):
    config = tmp_path / "long.py"
    config.write_text(LONG.format(steps=60_000, also=""))
    process = launched(cluster, tmp_path / "cluster", config)
    folder = tmp_path / "cluster" / "long"
    wait_for_progress(folder, process)
    cluster.replace_a_node()
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, errors = finished(process, status=75)
    assert "stopped, all saved" in errors
    steps = [record.step for record in read_trials(folder)]
    assert not (folder / "outcome.json").exists() and min(steps) > 0
    finished(launched(cluster, tmp_path / "cluster", config))
    outcome = read_json(folder / "outcome.json")
    assert outcome["queue"]["restarts"] >= 1
    alone = [sys.executable, "-m", "budgetflow.launch", f"--config={config}", "--quiet"]
    subprocess.run([*alone, f"--workdir={tmp_path / 'alone'}"], check=True, cwd=REPOSITORY)
    assert but_for_the_queue(outcome) == but_for_the_queue(
        {**read_json(tmp_path / "alone" / "long" / "outcome.json"), "queue": None}
    )
    assert read_trials(folder) == read_trials(tmp_path / "alone" / "long")


CRASHING = """
import os

import jax
import optax


def sgd(learning_rate, crashes):
    \"""SGD that ends its process at step 20, if it is told to.\"""

    def update(updates, state, params=None):
        if crashes:
            jax.debug.callback(lambda n: os._exit(3) if n == 20 else None, state)
        return updates, state + 1

    ending = optax.GradientTransformation(lambda params: jax.numpy.zeros((), int), update)
    return optax.chain(ending, optax.sgd(learning_rate))
"""


@pytest.mark.slow
def test_a_trial_that_ends_its_process_fails_alone(cluster, tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text(CRASHING)
    config = tmp_path / "study.py"
    also = 'choices("optimizer.crashes", False, True),'
    text = LONG.format(steps=60, also=also).replace(
        "    return",
        '    config.optimizer = {"name": "crashing.sgd", "crashes": False}\n    return',
    )
    config.write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out, _ = finished(launched(cluster, tmp_path / "runs", config))
    outcome = read_json(tmp_path / "runs" / "study" / "outcome.json")
    records = read_trials(tmp_path / "runs" / "study")
    crashing = [r.trial for r in records if r.hyperparameters["optimizer.crashes"]]
    assert outcome["failed"] == crashing and len(crashing) == 2
    assert re.search(r"Trial \d could not be trained.*its process on .* died", out, re.S)
    assert outcome["trials"] == 2 and outcome["queue"]["restarts"] >= 2 * MOST_ERRORS


@pytest.mark.slow
def test_two_nodes_form_one_trial(cluster, tmp_path):
    config = tmp_path / "both.py"
    config.write_text(LONG.format(steps=200, also=""))
    apart, together = tmp_path / "apart", tmp_path / "together"
    finished(launched(cluster, apart, config, "--config.mesh.data=2"))
    finished(launched(cluster, together, config, "--config.mesh.data=2", "--config.ray.hosts=2"))
    assert read_trials(apart / "both") == read_trials(together / "both")
    (nodes,) = read_json(together / "both" / "outcome.json")["queue"]["nodes"]
    assert " + " in nodes


def test_a_cluster_that_is_not_there_is_refused_in_one_line(tmp_path):
    nowhere = types.SimpleNamespace(address="127.0.0.1:1")
    _, errors = finished(launched(nowhere, tmp_path, "configs/lr_sweep.py"), status=2)
    assert re.fullmatch(
        r"budgetflow: --ray=127.0.0.1:1: the cluster cannot be reached: .*\n", errors
    )


def test_flags_for_devices_of_this_run_are_refused_beside_a_cluster(tmp_path):
    nowhere = types.SimpleNamespace(address="127.0.0.1:1")
    process = launched(nowhere, tmp_path, "configs/lr_sweep.py", "--profile_steps=1:2")
    _, errors = finished(process, status=2)
    assert errors == (
        "budgetflow: --profile_steps is for trials on devices of this run; leave it or --ray out\n"
    )


@pytest.mark.slow
def test_the_readme_lines_run_as_printed(tmp_path):
    """A head started by hand; a launch on it, and a job that is submitted to it."""
    readme = (REPOSITORY / "README.md").read_text()
    lines = re.search(r"hands the trials out.*?```sh\n(.*?)```", readme, re.S)[1]
    port, dashboard, agent, client = _free_ports(4)
    # With a token in the home, a head would ask for it, as the README says.
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    # Its sockets have paths of a hundred characters at most.
    short = tempfile.mkdtemp(prefix="ray")
    ray = str(Path(sys.executable).with_name("ray"))
    # Ports of its own: of two heads on a machine, the second one takes no jobs on the usual ones.
    ports = [f"--port={port}", f"--dashboard-port={dashboard}"]
    ports += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    process = subprocess.Popen(
        [ray, "start", "--head", "--block", "--num-cpus=2", *ports, f"--temp-dir={short}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        env=environment,
    )  # fmt: skip
    printed = {
        ".venv/bin/ray": ray,
        "http://$HEAD:8265": f"http://127.0.0.1:{dashboard}",
        "/shared/budgetflow": str(REPOSITORY),
        "/shared/runs": str(tmp_path / "runs"),
        " --config.ray.gpus=1": "",  # there is none here
        "configs/round2.py": "configs/lr_sweep.py",
        "--ray ": f"--ray=127.0.0.1:{port} ",  # others may run beside this one
    }
    for old, new in printed.items():
        assert old in lines
        lines = lines.replace(old, new)
    try:
        _wait_for_port(dashboard)
        _wait_for_port(agent)  # which runs the jobs
        found = subprocess.run(
            ["bash", "-ec", lines],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout + found.stderr
        # The job found it complete.
        assert found.stdout.count("max_train_steps = 257") >= 2
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(short, ignore_errors=True)


def _free_ports(count):
    """Some that are free, below those which Ray and the system hand out by themselves."""
    found = []
    for port in random.SystemRandom().sample(range(20_000, 30_000), 1000):
        with contextlib.suppress(OSError), socket.socket() as tried:
            tried.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no port is free")


def _wait_for_port(port):
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
