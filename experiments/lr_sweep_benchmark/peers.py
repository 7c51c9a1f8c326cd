"""The same sweep with other tools, as a careful user would write it; see scripts/bench_lr_sweep.py.

    python -m experiments.lr_sweep_benchmark.peers METHOD WORKLOAD DATA.npz N

One jitted step with a donated state, the learning rate traced, data and batch order on the device;
the whole training set evaluated once an epoch, or every ten steps. Prints, as JSON, the step of the
first fit seen.
"""

import functools
import json
import math
import os
import sys
import tempfile

import numpy as np

# How often the closest looks are.
LOOK_EVERY = 10


def make_training(workload, path):
    """(learning rate, last step[, steps between looks]) -> an iterator over (step, misclassified).

    By default it looks once an epoch. And the same for all learning rates at once, side by side.
    """
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from budgetflow.engine.models.mlp import MLP
    from experiments.lr_sweep_benchmark.model import StridedConvNet

    loaded = np.load(path)
    data = {name: jnp.asarray(loaded[name]) for name in ("inputs", "targets")}
    indices = jnp.asarray(loaded["indices"])
    shape = data["inputs"].shape[1:]
    if workload == "mlp":
        build = functools.partial(MLP, shape, 10, hidden_sizes=(128, 128))
        optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.9)
    else:
        build = functools.partial(StridedConvNet, shape, 10)
        optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)
    graph, _ = nnx.split(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(jax.random.key(0)))))

    @jax.jit
    def init():
        params = nnx.to_pure_dict(nnx.split(build(rngs=nnx.Rngs(jax.random.key(0))))[1])
        return params, optimizer.init(params)

    def logits(params, inputs):
        return nnx.merge(graph, params)(inputs.astype(jnp.float32) / 255)

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state, learning_rate, step):
        params, opt_state = state
        batch = {name: jnp.take(array, indices[step], axis=0) for name, array in data.items()}

        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(
                logits(params, batch["inputs"]), batch["targets"]
            ).mean()

        opt_state.hyperparams["learning_rate"] = learning_rate
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    @jax.jit
    def misclassified(params):
        return (logits(params, data["inputs"]).argmax(-1) != data["targets"]).sum()

    epoch = -(-len(data["targets"]) // indices.shape[1])

    def train(learning_rate, last_step, every=epoch):
        state = init()
        learning_rate = jnp.float32(learning_rate)
        for step in range(last_step):
            state = train_step(state, learning_rate, step)
            if (step + 1) % every == 0 or step + 1 == last_step:
                yield step + 1, int(misclassified(state[0]))

    step_together = jax.jit(jax.vmap(train_step, in_axes=(0, 0, None)), donate_argnums=0)

    @functools.partial(jax.jit, donate_argnums=0)
    def steps_together(state, learning_rates, first):
        return jax.lax.fori_loop(
            first,
            first + LOOK_EVERY,
            lambda step, state: step_together(state, learning_rates, step),
            state,
        )

    def train_together(learning_rates, last_step):
        rates = jnp.asarray(learning_rates, jnp.float32)
        state = jax.tree.map(lambda array: jnp.stack([array] * len(rates)), init())
        for first in range(0, last_step - LOOK_EVERY + 1, LOOK_EVERY):
            if workload == "mlp":
                state = steps_together(state, rates, first)
            else:  # on the CPU, convolutions in a loop are many times slower
                for step in range(first, first + LOOK_EVERY):
                    state = step_together(state, rates, step)
            yield first + LOOK_EVERY, jax.vmap(misclassified)(state[0])

    return train, train_together, [float(rate) for rate in loaded["learning_rates"]]


def sweep_with_optuna(workload, path, steps, stop_early):
    """A grid of learning rates with Optuna; each trial to N, or only as far as it can matter."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, _, rates = make_training(workload, path)
    best = steps + 1

    def objective(trial):
        nonlocal best
        fitted_at = steps + 1
        until = min(steps, best) if stop_early else steps
        for step, wrong in train(
            trial.suggest_float("learning_rate", min(rates), max(rates)), until
        ):
            if wrong == 0 and fitted_at > steps:
                fitted_at = step
                best = min(best, step)
                if stop_early:
                    break
        return fitted_at

    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"learning_rate": rates}))
    study.optimize(objective, n_trials=len(rates))
    return int(study.best_value) if study.best_value <= steps else None


def sweep_with_optuna_pruner(workload, path, steps):
    """The same with a pruner; looks every ten steps, no trial goes past the best step so far."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, _, rates = make_training(workload, path)
    best = None

    def objective(trial):
        nonlocal best
        rate = trial.suggest_float("learning_rate", min(rates), max(rates))
        wrong = math.inf
        for step, wrong in train(rate, best or steps, LOOK_EVERY):
            if wrong == 0:
                best = min(best or step, step)
                break
            trial.report(wrong, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return wrong

    study = optuna.create_study(
        sampler=optuna.samplers.GridSampler({"learning_rate": rates}),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=5 * LOOK_EVERY),
    )
    study.optimize(objective, n_trials=len(rates))
    return best


def sweep_with_vmap(workload, path, steps):
    """A loop over all learning rates side by side, which looks every ten steps for the first fit.

    Their numbers drift from those of trials that run alone, in the last bits at first.
    """
    _, train_together, rates = make_training(workload, path)
    looks = train_together(rates, steps)
    return next((step for step, wrong in looks if (np.asarray(wrong) == 0).any()), None)


def sweep_with_ray(workload, path, steps, scheduler):
    """A grid of learning rates with Ray Tune, a process a trial, reports once an epoch."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    folder = os.getcwd()

    def trainable(config):
        sys.path.insert(0, folder)
        train, _, _ = make_training(workload, path)
        fitted_at = steps + 1
        for step, wrong in train(config["learning_rate"], steps):
            fitted_at = step if wrong == 0 and fitted_at > steps else fitted_at
            tune.report({"step": step, "wrong": wrong, "fitted_at": fitted_at})

    loaded = np.load(path)
    epochs = steps * loaded["indices"].shape[1] // len(loaded["targets"])
    asha = ASHAScheduler(metric="wrong", mode="min", max_t=max(epochs, 1))
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": folder}},
    )
    with tempfile.TemporaryDirectory() as storage:
        results = tune.Tuner(
            trainable,
            param_space={"learning_rate": tune.grid_search(loaded["learning_rates"].tolist())},
            tune_config=tune.TuneConfig(scheduler=asha if scheduler == "asha" else None),
            run_config=tune.RunConfig(storage_path=storage, verbose=0),
        ).fit()
        answers = [result.metrics["fitted_at"] for result in results if result.metrics]
    return min(answers) if min(answers) <= steps else None


METHODS = {
    "optuna": functools.partial(sweep_with_optuna, stop_early=False),
    "optuna_stopping": functools.partial(sweep_with_optuna, stop_early=True),
    "optuna_pruner": sweep_with_optuna_pruner,
    "vmap": sweep_with_vmap,
    "ray": functools.partial(sweep_with_ray, scheduler=None),
    "ray_asha": functools.partial(sweep_with_ray, scheduler="asha"),
}

if __name__ == "__main__":
    method, workload_name, data_path, max_steps = sys.argv[1:]
    answer = METHODS[method](workload_name, os.path.abspath(data_path), int(max_steps))
    print(json.dumps({"answer": answer}))
