"""Trials on a cluster: what one costs, how busy workers are, how soon a killed one goes on.

    .venv/bin/python scripts/bench_cluster.py [--only overhead] [--trials 40] [--unequal 100]

Two nodes of Ray's own cluster on one machine, of as many CPUs each as are declared; in the figures
on utilisation every step sleeps, as if an accelerator worked, since all share the same cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Nodes, killed and replaced by a line each.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, include_dashboard=False))
nodes = [cluster.add_node(num_cpus={cpus}) for _ in range(2)]
print("address", cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus={cpus}))
cluster.shutdown()
"""
# SGD that sleeps for as long as the learning rate says: a traced number, so one program does.
STUDY = """
import time

import jax
import optax

from budgetflow.config import default_config, log_uniform


def sleeping(learning_rate):
    def update(updates, state, params=None):
        jax.debug.callback(lambda rate: time.sleep({seconds} * float(rate)), learning_rate)
        return updates, state

    return optax.chain(optax.GradientTransformation(lambda p: (), update), optax.sgd(learning_rate))


def get_config():
    config = default_config("round")
    config.optimizer = {{"name": "sgd" if {seconds} == 0 else "study.sleeping"}}
    config.max_train_steps = {steps}
    config.evaluation.evaluations = {evaluations}
    config.checkpoints.every_seconds = 2.0
    config.search.trials = {trials}
    config.search.space = (log_uniform("schedule.base_learning_rate", {low}, 1.0),)
    return config
"""


@contextlib.contextmanager
def cluster(cpus: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Two nodes; the cluster's address, and a process that replaces one for every line it gets."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER.format(cpus=cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    yield next(line.split()[1] for line in process.stdout if line.startswith("address")), process
    process.communicate()


def launch(folder: Path, *flags: str, **fields: float) -> subprocess.Popen[bytes]:
    """A launch of a study, in a fresh folder."""
    folder.mkdir(parents=True)
    study = {"seconds": 0, "low": 0.02, "evaluations": 4, **fields}
    (folder / "study.py").write_text(STUDY.format(**study))
    command = [sys.executable, "-m", "budgetflow.launch", f"--config={folder / 'study.py'}"]
    paths = {"PYTHONPATH": f"{folder}:{ROOT}"}
    return subprocess.Popen(
        [*command, f"--workdir={folder}", *flags],
        cwd=ROOT,
        env={**os.environ, **paths},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "errors.txt").open("w"),
    )


def seconds_of(folder: Path, *flags: str, **fields: float) -> float:
    """How long a study takes, from its first decision to its outcome."""
    assert launch(folder, *flags, **fields).wait() == 0
    return float(json.loads((folder / "study" / "timing.json").read_text())["seconds"])


def overhead(workdir: Path, address: str, trials: int) -> None:
    """What a further trial takes on this machine's own devices, and on one worker."""
    for name, flags in {"own": ["--config.mesh.trial=1"], "cluster": [f"--ray={address}"]}.items():
        taken = [
            seconds_of(workdir / f"{name}{count}", *flags, trials=count, steps=200)
            for count in (trials, 2 * trials)
        ]
        each = (taken[1] - taken[0]) / trials * 1000
        print(f"overhead: {name}: {each:.0f} ms a trial of 200 steps", flush=True)


def utilisation(workdir: Path, address: str, trials: int, workers: int) -> None:
    """The share of the workers' time in which steps were trained, of trials of unequal cost."""
    steps, seconds = 40, 0.6
    folder = workdir / "unequal"
    flag = f"--ray={address}"
    assert launch(folder, flag, trials=trials, steps=steps, seconds=seconds).wait() == 0
    records = [json.loads(p.read_text()) for p in folder.glob("study/trials/*/trial.json")]
    costs = [r["schedule"]["base_learning_rate"] * seconds * steps for r in records]
    begun = min(path.stat().st_mtime for path in folder.glob("study/queue/*.json"))
    ended = max(path.stat().st_mtime for path in folder.glob("study/trials/*/trial.json"))
    share = sum(costs) / (workers * (ended - begun))
    print(
        f"utilisation: {trials} trials of {min(costs):.2f} to {max(costs):.2f} s, {sum(costs):.0f} "
        f"s in all, on {workers} workers: {ended - begun:.1f} s, {share:.0%} of their time",
        flush=True,
    )


def recovery(workdir: Path, address: str, nodes: subprocess.Popen[str]) -> None:
    """How long a trial rests whose node is killed."""
    folder = workdir / "killed"
    study = {"trials": 2, "steps": 1200, "seconds": 0.02, "low": 0.9, "evaluations": 60}
    process = launch(folder, f"--ray={address}", **study)
    begun = folder / "study" / "trials"
    while sum(path.stat().st_size > 2 for path in begun.glob("*/checksums.json")) < 2:
        time.sleep(0.05)
    print("kill", file=nodes.stdin, flush=True)
    killed_at = time.time()
    attempts = folder / "study" / "queue"

    def taken_up() -> list[Path]:
        found = {path: json.loads(path.read_text()) for path in attempts.glob("*.json")}
        return [path for path, placement in found.items() if placement["attempt"] > 1]

    while not taken_up() and process.poll() is None:
        time.sleep(0.05)
    noticed = time.time() - killed_at
    (path,) = taken_up()
    record = begun / path.stem / "measurements.jsonl"
    after = record.stat().st_mtime
    while record.stat().st_mtime == after and process.poll() is None:
        time.sleep(0.05)
    assert process.wait() == 0
    again = json.loads(path.read_text())["steps_trained_twice"]
    print(
        f"recovery: noticed after {noticed:.1f} s, measured again {time.time() - killed_at:.1f} s "
        f"after the kill; {again} steps trained twice",
        flush=True,
    )


def main() -> None:
    """Prints all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40, help="of the overhead")
    parser.add_argument("--unequal", type=int, default=100, help="trials of unequal cost")
    parser.add_argument("--only", choices=["overhead", "recovery", "utilisation"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workdir = Path(temporary)
        if arguments.only != "utilisation":
            with cluster(1) as (address, nodes):
                if arguments.only != "recovery":
                    overhead(workdir, address, arguments.trials)
                if arguments.only != "overhead":
                    recovery(workdir, address, nodes)
        if arguments.only in (None, "utilisation"):
            with cluster(2) as (address, _):
                utilisation(workdir, address, arguments.unequal, workers=4)


if __name__ == "__main__":
    main()
