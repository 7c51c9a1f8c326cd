"""Times the train loop against a bare jitted step and a loop as flax's documentation writes it.

    .venv/bin/python scripts/bench_train_loop.py [--workloads mlp conv] [--scaling] [--json FILE]

The same model, data, batches and optimizer, the three loops in turn, so that whatever else the
machine does hits all of them. ``bare`` is the least that a JAX program can do: a jitted step with a
donated state, called on data and batch indices that lie on the device already. ``flax_docs`` is
nnx.jit with an nnx.Optimizer, nnx.MultiMetric and optax's loss over integer labels on batches from
the host, as in flax's MNIST tutorial. With --scaling: trials side by side, and one batch over
several devices of the CPU, with the work of each device held constant.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from budgetflow.config import default_config, parse_config
from budgetflow.engine.data.batches import batch_indices
from budgetflow.engine.data.source import load_dataset
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.tasks import Classification
from budgetflow.engine.training.device_data import DeviceData
from budgetflow.engine.training.mesh import make_mesh, trial_slices
from budgetflow.engine.training.trial_run import TrialRun, trial_program
from budgetflow.studies.run.strategy import train_side_by_side

LEARNING_RATE = 0.05
# Model section, batch size, steps of a turn: a few seconds each.
WORKLOADS = {
    "mlp": ({"name": "budgetflow.models.MLP", "hidden_sizes": (128, 128)}, 64, 8000),
    "conv": ({"name": "budgetflow.models.ConvNet", "channels": (16, 32)}, 64, 600),
    "transformer": (
        {"name": "budgetflow.models.Transformer", "width": 64, "depth": 2, "heads": 4},
        16,
        30,
    ),
}


def workload(name, **mesh):
    """The config and the data of a workload."""
    model, batch_size, _ = WORKLOADS[name]
    config = default_config("round")
    config.max_train_steps = 10**6
    config.model = model
    config.data.batch_size = batch_size * mesh.get("data", 1)
    config.mesh.update({"data": 1, **mesh})
    keys = (None, None)
    if name == "transformer":
        config.data.name = "budgetflow.data.text.pydoc_topics"
        config.task.name = "budgetflow.tasks.LanguageModeling"
        config.evaluation.selection_metric = "loss"
        keys = ("inputs", "targets")
    return parse_config(config), load_dataset(
        config.data.name, "train", "validation", None, None, *keys
    )


def make_model(config, dataset):
    """A freshly initialised model."""
    mesh = trial_slices(make_mesh(config.mesh))[0]
    program = trial_program(config, dataset, frozenset(), False, mesh)
    return program.spec.build_model(jax.random.key(0))


def make_run(config, dataset, mesh):
    """A trial at step 0 on a slice of the mesh."""
    program = trial_program(config, dataset, frozenset(), False, mesh)
    schedule = Schedule(LEARNING_RATE, constant_steps=200_000)
    return TrialRun(config, schedule, DeviceData(dataset), program)


def budgetflow_loop(config, dataset):
    """(steps) -> None: the train loop as studies use it."""
    run = make_run(config, dataset, trial_slices(make_mesh(config.mesh))[0])
    return lambda steps: run.train(run.step + steps)


def scaled(inputs):
    """Pixels as float32 in [0, 1]; tokens as they are."""
    return inputs.astype(jnp.float32) / 255 if inputs.dtype == jnp.uint8 else inputs


def bare_loop(config, dataset):
    """(steps) -> None: a jitted, donated step and nothing else."""
    graph, params, others = nnx.split(make_model(config, dataset), nnx.Param, ...)
    params, others = nnx.to_pure_dict(params), nnx.to_pure_dict(others)
    optimizer = optax.sgd(LEARNING_RATE, momentum=0.9)
    data = jax.device_put(dataset.train.arrays)
    size, examples = config.data.batch_size, dataset.train.num_examples
    indices = [jax.device_put(row) for row in batch_indices(0, 0, 1000, size, examples)]

    def step(state, data, indices):
        params, others, opt_state = state
        batch = {name: jnp.take(array, indices, axis=0) for name, array in data.items()}

        def loss(params):
            model = nnx.merge(graph, params, others, copy=True)
            value = Classification().loss(model(scaled(batch["inputs"])), batch).mean()
            return value, nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])

        (_, after), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), after, opt_state

    compiled = jax.jit(step, donate_argnums=0)
    state = (params, others, optimizer.init(params))

    def train(steps):
        nonlocal state
        for number in range(steps):
            state = compiled(state, data, indices[number % len(indices)])
        jax.block_until_ready(state)

    return train


def flax_docs_loop(config, dataset):
    """(steps) -> None: nnx.jit, nnx.Optimizer and nnx.MultiMetric, as flax's MNIST tutorial."""
    model = make_model(config, dataset)
    optimizer = nnx.Optimizer(model, optax.sgd(LEARNING_RATE, momentum=0.9), wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))
    arrays, size = dataset.train.arrays, config.data.batch_size

    def loss_fn(model, batch):
        logits = model(scaled(batch["inputs"]))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean()
        return loss, logits

    @nnx.jit
    def train_step(model, optimizer, metrics, batch):
        (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, batch)
        metrics.update(loss=loss, logits=logits, labels=batch["targets"])
        optimizer.update(model, grads)

    def train(steps):
        for row in batch_indices(0, 0, steps, size, dataset.train.num_examples):
            batch = {name: array[row] for name, array in arrays.items()}
            train_step(model, optimizer, metrics, batch)
        jax.block_until_ready(nnx.state(model))

    return train


LOOPS = {"bare": bare_loop, "budgetflow": budgetflow_loop, "flax_docs": flax_docs_loop}


def compare(name, turns):
    """Median steps/s of each loop, and the median over turns of each one's ratio to ``bare``."""
    config, dataset = workload(name)
    steps = WORKLOADS[name][2]
    loops = {loop: make(config, dataset) for loop, make in LOOPS.items()}
    for train in loops.values():
        train(max(2, steps // 20))
    seconds = {loop: [] for loop in loops}
    for _ in range(turns):
        for loop, train in loops.items():
            start = time.perf_counter()
            train(steps)
            seconds[loop].append(time.perf_counter() - start)
    return {
        loop: {
            "steps_per_second": steps / statistics.median(times),
            "of_bare": statistics.median(
                b / t for b, t in zip(seconds["bare"], times, strict=True)
            ),
        }
        for loop, times in seconds.items()
    }


def scale(axis, devices, name):
    """Examples/s of one trial on each of ``devices`` trials, or of one trial over ``devices``."""
    config, dataset = workload(name, **{axis: devices})
    runs = [make_run(config, dataset, part) for part in trial_slices(make_mesh(config.mesh))]
    steps = WORKLOADS[name][2] // 4
    train_side_by_side(runs, steps // 4)
    times = []
    for turn in range(3):
        start = time.perf_counter()
        train_side_by_side(runs, steps // 4 + (turn + 1) * steps)
        times.append(time.perf_counter() - start)
    return len(runs) * steps * config.data.batch_size / statistics.median(times)


def print_scaling(name):
    """Runs :func:`scale` over 1, 2, 4 and 8 devices, each in a process of its own."""
    rows = {}
    for axis in ("trial", "data"):
        rates = []
        for devices in (1, 2, 4, 8):
            flags = f"--xla_force_host_platform_device_count={devices}"
            output = subprocess.run(
                [sys.executable, __file__, f"--scale={axis},{devices},{name}"],
                env={**os.environ, "XLA_FLAGS": flags},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            rates.append(float(output.split()[-1]))
            print(
                f"{name:12} {axis:6} over {devices} devices: {rates[-1]:10.0f} examples/s, "
                f"{rates[-1] / rates[0]:.2f}x one"
            )
        rows[axis] = rates
    return rows


def main():
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9, help="how often each loop has its turn")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--scaling", action="store_true", help="the scaling curves instead")
    parser.add_argument("--scale", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    if arguments.scale:
        axis, devices, name = arguments.scale.split(",")
        print(scale(axis, int(devices), name))
        return
    print(f"{os.cpu_count()} CPU cores, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    results = {}
    for name in arguments.workloads:
        results[name] = print_scaling(name) if arguments.scaling else compare(name, arguments.turns)
        if not arguments.scaling:
            for loop, figures in results[name].items():
                print(
                    f"{name:12} {loop:11} {figures['steps_per_second']:8.1f} steps/s  "
                    f"{figures['of_bare']:.3f} of bare"
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
