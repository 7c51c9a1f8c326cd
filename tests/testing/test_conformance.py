"""The parts that the library has pass its own checks, and wrong ones do not."""

import dataclasses
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from budgetflow.config import choices, default_config
from budgetflow.engine.data.diabetes import diabetes
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.tasks import Classification, LanguageModeling, Regression
from budgetflow.playbook.common.measurement import Conclude
from budgetflow.studies.kinds import KINDS
from budgetflow.testing import check_data_set, check_decay, check_kind, check_task

RNG = np.random.default_rng(0)
CLASSES = {"targets": jnp.arange(6) % 3}
TASKS = {
    "classes": (Classification(), (6, 3), CLASSES),
    "probabilities": (Classification(top_k=2), (6, 3), {"targets": jnp.eye(3)[jnp.arange(6) % 3]}),
    "tokens": (LanguageModeling(), (4, 5, 7), {"targets": jnp.arange(20).reshape(4, 5) % 7}),
    "padded": (
        LanguageModeling(padding_id=0), (4, 5, 7), {"targets": jnp.arange(20).reshape(4, 5) % 7},
    ),
    "numbers": (Regression(), (6, 1), {"targets": jnp.linspace(-1, 1, 6)}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_task_passes(name):
    task, shape, batch = TASKS[name]
    check_task(task, jnp.asarray(RNG.normal(size=shape), jnp.float32), batch)


class Changed(Classification):
    """A task of which one method is another."""

    def __init__(self, **methods):
        for name, method in methods.items():
            object.__setattr__(self, name, method)
        super().__init__()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Changed(loss=lambda o, b: jnp.square(o - b["targets"][:, None])), "loss has shape"),
        (Changed(loss=lambda o, b: jnp.log(o[:, 0] - o[:, 0])), "is not finite"),
        (Changed(loss=lambda o, b: jnp.ones(6) * o.sum()), "depends on the others"),
        (Changed(metrics=lambda o, b: {}), "no dict of metrics"),
        (Changed(metrics=lambda o, b: {"loss": o}), r"metrics\(\)\['loss'\] has shape"),
        (Changed(fitted=lambda o, b: o.argmax(-1)), "not bool"),
        (Changed(fitted=lambda o, b: o.argmax(-1) == 0), "NaN counts as fitted"),
    ],
)
def test_a_wrong_task_does_not(wrong, message):
    outputs = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
    with pytest.raises(AssertionError, match=message):
        check_task(wrong, outputs, CLASSES)


def test_the_data_sets_pass():
    check_data_set(diabetes, ("train", "validation", "test"))


def arrays(split):
    return {"inputs": np.zeros((4, 2)), "targets": np.arange(4 if split == "train" else 3)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (arrays, "different lengths"),
        (lambda split: [], "no example"),
        (lambda split: [{"inputs": np.zeros(2)}, {"inputs": np.zeros(3)}], "another form"),
        (lambda split: [{"inputs": np.asarray([1.0, np.nan])}], "NaN"),
        (lambda split: [{"inputs": RNG.normal(size=2)}], "another one each time"),
    ],
)
def test_a_wrong_data_set_does_not(wrong, message):
    with pytest.raises(AssertionError, match=message):
        check_data_set(wrong)


class Rising(Schedule):
    """A schedule whose learning rates are not what it says."""

    def learning_rates(self, count=None):
        return super().learning_rates(count)[::-1]


def test_a_wrong_decay_does_not():
    with pytest.raises(AssertionError, match="constant period is not at the base"):
        check_decay(Rising(0.1, 0, 10, 10, "linear"))


def config_of(kind, **fields):
    config = default_config(kind)
    config.name, config.max_train_steps = "checked", 60
    config.model.hidden_sizes = (8,)
    for field, value in fields.items():
        config.update_from_flattened_dict({field.replace("__", "."): value})
    return config


KIND_FIELDS = {
    "lr_sweep": {"sweep__learning_rates": (0.03, 0.1, 0.3)},
    "round": {"search__space": (choices("schedule.base_learning_rate", 0.03, 0.1),)},
    "cooldowns": {"schedule__decay": "linear", "schedule__decay_fraction": 0.2},
    "comparison": {
        "comparison__changes": (("data.batch_size", 32),),
        "comparison__learning_rates": (0.03, 0.1),
        "comparison__refine": None,
    },
}


@pytest.mark.parametrize("kind", KIND_FIELDS)
def test_every_kind_passes(kind, tmp_path):
    assert {*KIND_FIELDS} == {name for name, one in KINDS.items() if not one.is_planned}
    check_kind(config_of(kind, **KIND_FIELDS[kind]), tmp_path)


def test_a_wrong_kind_does_not(tmp_path, monkeypatch):
    """One that counts its decisions finds something else each time."""
    module, taken = types.ModuleType("counting"), []

    def decide(study, trials):
        taken.append(None)
        decision = KINDS["round"].decide(study, trials)
        if isinstance(decision, Conclude):
            outcome = dataclasses.replace(decision.outcome, reasons=(str(len(taken)),))
            return Conclude(outcome)
        return decision

    module.COUNTING = dataclasses.replace(KINDS["round"], decide=decide)
    decide.__module__ = KINDS["round"].decide.__module__
    monkeypatch.setitem(sys.modules, "counting", module)
    with pytest.raises(AssertionError, match="another decision each time"):
        check_kind(config_of("counting.COUNTING"), tmp_path)
