"""Trials on the nodes of Ray's own cluster: whoever dies, the answer is that of one machine."""

import contextlib
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
from conftest import REPOSITORY
from test_arrival_order import ANSWER
from test_cluster_workers import but_for_the_queue

from budgetflow.base.files import read_json
from budgetflow.cluster.dispatch import MOST_ERRORS
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.studies.store.trial import read_trials

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
