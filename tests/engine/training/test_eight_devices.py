"""What a mesh changes: nothing but the order of sums. On eight virtual devices of the CPU.

JAX makes its devices once in a process, and all other tests want one: so this file runs itself in a
process of its own.
"""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, assert_identical, small_config, start_trial
from test_device_memory import Live, study_of

from budgetflow.base.errors import ConfigError
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.engine.data.source import load_dataset
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.training.device_data import DeviceData
from budgetflow.engine.training.mesh import check_batch_size, make_mesh, trial_slices
from budgetflow.engine.training.trial_run import TrialRun, trial_program
from budgetflow.studies.plan.cost import flops_per_step
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.run.strategy import choose_strategy, train_side_by_side
from budgetflow.studies.store.trial import read_trials
from budgetflow.studies.study import study_memory

EIGHT = jax.device_count() == 8
on_eight = pytest.mark.skipif(not EIGHT, reason="run by test_all_of_this_on_eight_devices")


@pytest.mark.slow
@pytest.mark.skipif(EIGHT, reason="this is that run")
def test_all_of_this_on_eight_devices():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-q"],
        env={**os.environ, "XLA_FLAGS": flags},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


SCHEDULE = Schedule(0.05, constant_steps=12)
# Dropout and augmentation: each example has random numbers of its own, wherever it is.
# As many are evaluated of the training split as there are to validate on: one program does both.
MLP = {
    "model__hidden_sizes": (32,),
    "regularization__dropout_rate": 0.2,
    "augmentation__shift_pixels": 1.0,
    "augmentation__noise_std": 0.1,
    "evaluation__train_examples": 270,
}
RESNET = {
    "model": {"name": "budgetflow.models.ResNet", "channels": (8,), "blocks": 1},
    "evaluation__train_examples": 270,
}
TRANSFORMER = {
    "model": {"name": "budgetflow.models.Transformer", "width": 32, "depth": 1, "heads": 2},
    "task__name": "budgetflow.tasks.LanguageModeling",
    "data__batch_size": 16,
    "evaluation__selection_metric": "loss",
    "evaluation__train_examples": 181,
    "regularization__dropout_rate": 0.1,
}
MODELS = {"mlp": MLP, "resnet": RESNET, "transformer": TRANSFORMER}
MESHES = [(1, 8, 1), (1, 2, 4), (8, 1, 1), (2, 2, 2)]


def config_on(mesh, fields):
    trial, data, fsdp = mesh
    return small_config(
        mesh__trial=trial,
        mesh__data=data,
        mesh__fsdp=fsdp,
        mesh__min_sharded_size=64,
        optimizer={"name": "sgd", "momentum": 0.9},
        **fields,
    )


@pytest.fixture(scope="module")
def text():
    name = "budgetflow.data.text.pydoc_topics"
    return load_dataset(name, "train", "validation", None, None, "inputs", "targets")


def trained(dataset, mesh, fields, position=0, steps=12):
    run = start_trial(dataset, config_on(mesh, fields), SCHEDULE, position=position)
    return run, run.advance(steps)


def assert_close(first, second, rtol=2e-3, atol=2e-5):
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)  # noqa: E731
    jax.tree.map(compare, jax.device_get(first), jax.device_get(second))


@pytest.fixture(scope="module")
def on_one_device(digits, text):
    runs = {}
    for model, fields in MODELS.items():
        runs[model] = trained(text if model == "transformer" else digits, (1, 1, 1), fields)
    return runs


@on_eight
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: "x".join(map(str, mesh)))
def test_results_do_not_depend_on_the_mesh(digits, text, on_one_device, model, mesh):
    dataset = text if model == "transformer" else digits
    expected, measured = on_one_device[model]
    run, measurement = trained(dataset, mesh, MODELS[model], position=mesh[0] - 1)
    if mesh[1:] == (1, 1):
        assert measurement == measured
        assert_identical(run.state, expected.state)
    else:
        assert_close(run.state, expected.state)
        assert measurement.row == pytest.approx(measured.row, rel=1e-3)


@on_eight
def test_parameters_and_optimizer_state_are_cut_over_fsdp(text):
    run = start_trial(text, config_on((1, 2, 4), TRANSFORMER), SCHEDULE)
    run.advance(2)
    kernel = run.state.params["blocks"][0]["expand"]["kernel"]
    assert kernel.shape == (32, 128)
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(32, 32)}
    leaves = jax.tree.leaves(run.state.opt_state)
    cut = [leaf for leaf in leaves if leaf.addressable_shards[0].data.size < leaf.size]
    assert sum(leaf.size for leaf in cut) > 0.8 * sum(leaf.size for leaf in leaves)


@on_eight
def test_streamed_data_is_divided_like_data_in_memory(streamed_digits, on_one_device):
    run, measurement = trained(streamed_digits, (1, 4, 2), MLP)
    assert_close(run.state, on_one_device["mlp"][0].state)
    assert measurement.row == pytest.approx(on_one_device["mlp"][1].row, rel=1e-3)


@on_eight
def test_trials_side_by_side_are_the_ones_alone_bit_for_bit(digits):
    config = config_on((2, 2, 2), MLP)
    schedules = [Schedule(0.02 * (n + 1), constant_steps=12) for n in range(2)]
    together = [
        start_trial(digits, config, schedule, position=n) for n, schedule in enumerate(schedules)
    ]
    for step in (5, 12):
        train_side_by_side(together, step)
    for run, schedule in zip(together, schedules, strict=True):
        alone = start_trial(digits, config, schedule, position=0)
        assert run.measure() == alone.advance(12)
        assert_identical(run.state, alone.state)


@on_eight
def test_a_study_side_by_side_has_on_each_device_what_a_dry_run_says_and_the_rows_of_one(tmp_path):
    rates = (1e-4, 2e-4, 3e-4, 4e-4)
    folders = []
    for trials in (2, 1):
        fields = {"mesh__trial": trials, "mesh__data": 1, "mesh__fsdp": 1}
        study = study_of(tmp_path / str(trials), "lr_sweep", sweep__learning_rates=rates, **fields)
        claimed, live, seen = study_memory(study.config, study.mesh, study.plans), Live(), []
        run_study(study, lambda *_, live=live, seen=seen: seen.append(live.now()))
        training = claimed.states + claimed.copies + claimed.data
        assert max(seen) == pytest.approx(training, rel=0.01, abs=10_000)
        assert live.now() < 10_000
        folders.append(study.folder)
    together, alone = map(read_trials, folders)
    assert [trial.rows for trial in together] == [trial.rows for trial in alone]


@on_eight
def test_trials_side_by_side_are_timed_where_it_is_worth_it(digits):
    config = config_on((-1, 1, 1), MLP)
    schedule = Schedule(0.02, constant_steps=5000)

    def start(mesh):
        program = trial_program(config, digits, frozenset(), False, mesh)
        return TrialRun(config, schedule, DeviceData(digits), program)

    strategy = choose_strategy(make_mesh(config.mesh), False, 10**9, start)
    assert set(strategy.steps_per_second) == {"1", "8"}
    assert all(rate > 0 for rate in strategy.steps_per_second.values())
    fastest = max(strategy.steps_per_second, key=strategy.steps_per_second.get)
    assert strategy.trials_at_a_time == int(fastest)


@on_eight
@pytest.mark.parametrize("first,second", [((1, 2, 4), (1, 1, 1)), ((1, 1, 1), (1, 1, 8))])
def test_a_checkpoint_goes_on_on_another_mesh(digits, tmp_path, on_one_device, first, second):
    before, _ = trained(digits, first, MLP, steps=7)
    checkpoints = TrialCheckpoints(tmp_path)
    checkpoints.save({7}, 7, before.state)
    checkpoints.finish()
    after = start_trial(digits, config_on(second, MLP), SCHEDULE)
    after.resume(checkpoints.restore(7, after.state), has_fitted=False)
    assert_identical(after.state.params, before.state.params)
    assert after.advance(12).row == pytest.approx(on_one_device["mlp"][1].row, rel=1e-3)
    assert_close(after.state, on_one_device["mlp"][0].state)


@on_eight
def test_the_fit_is_noticed_at_the_same_step(digits):
    brackets = []
    for mesh in ((1, 1, 1), (1, 4, 2)):
        config = config_on(mesh, {"model__hidden_sizes": (64,)})
        run = start_trial(digits, config, Schedule(0.1, constant_steps=600), checks_fit=True)
        brackets.append(run.advance(600).fitted_at_step_bracket)
    assert brackets[0] is not None
    # Sums in another order may move it by very little.
    assert abs(brackets[0][1] - brackets[1][1]) <= 3


@on_eight
def test_the_flops_of_a_step_are_those_of_all_devices(text):
    def flops(mesh):
        config = config_on(mesh, TRANSFORMER)
        devices = trial_slices(make_mesh(config.mesh))[0]
        program = trial_program(config, text, frozenset(), False, devices)
        return flops_per_step(config, text, program)

    # Each device computes what is not divided, such as the update of small parameters.
    assert flops((1, 2, 4)) == pytest.approx(flops((1, 1, 1)), rel=0.1)


@on_eight
def test_a_batch_that_does_not_divide_is_refused():
    config = config_on((1, 2, 4), {**MLP, "data__batch_size": 60})
    with pytest.raises(
        ConfigError, match=r"batch_size = 60 .* 8 parts .* nearest that fits: 56 or 64"
    ):
        check_batch_size(config, make_mesh(config.mesh))
