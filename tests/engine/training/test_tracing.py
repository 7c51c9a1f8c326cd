"""Shapes that broadcast and labels that are none are refused before anything runs."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_config, start_trial
from flax import nnx

from budgetflow.base.errors import ConfigError
from budgetflow.config import default_config, parse_config
from budgetflow.engine.data.source import load_dataset
from budgetflow.engine.schedules import Schedule
from budgetflow.studies.study import check_study, study_dataset

TARGETS = {}


def open_split(split):
    targets = TARGETS[split] if split in TARGETS else TARGETS["train"]
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=4).astype(np.float32), "y": y} for y in targets]


class Squared:
    """A regression whose author did not think of shapes."""

    def num_outputs(self, _):
        return 1

    def loss(self, outputs, batch):
        return (outputs - batch["targets"]) ** 2

    def metrics(self, outputs, batch):
        return {"squared_error": self.loss(outputs, batch)}


class Hidden(Squared):
    """The same mistake, with a mean that hides it."""

    def loss(self, outputs, batch):
        return ((outputs - batch["targets"]) ** 2).mean(axis=-1)


class Scalar(Squared):
    def loss(self, outputs, batch):
        return optax.squared_error(outputs[:, 0], batch["targets"]).mean()


class Contrastive(Squared):
    compares_examples = True

    def loss(self, outputs, batch):
        return ((outputs - outputs[:, 0]) ** 2).mean(axis=-1)


class FittedByBatch(Squared):
    def loss(self, outputs, batch):
        return optax.squared_error(outputs[:, 0], batch["targets"])

    def fitted(self, outputs, batch):
        return (self.loss(outputs, batch) < 0.1).all()


def config_of(task, targets, kind="round", **task_options):
    TARGETS.clear()
    TARGETS.update(targets if isinstance(targets, dict) else {"train": targets})
    load_dataset.cache_clear()
    study_dataset.__globals__["_dataset"].cache_clear()
    config = default_config(kind)
    config.name, config.max_train_steps = "shapes", 10
    config.data.name = f"{__name__}.open_split"
    config.data.input_key, config.data.target_key = "x", "y"
    config.data.batch_size = 4
    config.model.hidden_sizes = (4,)
    name = task if "." in task else f"{__name__}.{task}"
    config.task = {"name": name, **task_options}
    if "." not in task:
        config.evaluation.selection_metric = "squared_error"
    if kind == "lr_sweep":
        config.sweep.learning_rates = (0.1, 0.2)
    return parse_config(config)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "Squared",
            r"gives loss of shape \(batch, batch\).*should be \(batch,\).*"
            r"outputs are \(batch, 1\), targets \(batch\)",
        ),
        ("Hidden", r"array of shape \(batch, batch\), every example with every other"),
        ("Scalar", r"gives loss of shape \(\); it should be \(batch,\)"),
    ],
)
def test_shapes_that_broadcast_are_refused_with_both_shapes(task, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_study(config_of(task, [float(i) for i in range(12)]))
    assert "config.task" in str(caught.value) and "config.model" not in str(caught.value)


def test_a_task_that_compares_examples_says_so():
    check_study(config_of("Contrastive", [float(i) for i in range(12)]))


def test_fitted_is_one_answer_for_each_example():
    with pytest.raises(ConfigError, match=r"fitted gives bool of shape \(\); it should be bool"):
        check_study(config_of("FittedByBatch", [float(i) for i in range(12)], "lr_sweep"))


CLASSIFICATION = "budgetflow.tasks.Classification"


@pytest.mark.parametrize("in_memory_bytes", [2**30, 0])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (list(range(1, 11)), "example 9 has the target 10, but .* integers from 0 to 9; so have 1"),
        ([1, -1, 0, 1], "example 1 has the target -1"),
        ([0, 1, 2, 12], "example 3 has the target 12"),
        ([[0], [1], [2], [3]], r"example 0 has the target \[0\], but .* class numbers"),
        ([0.0, 1.0, 2.0, 3.0], "example 0 has the target 0.0, but .* integers"),
        (list(np.eye(10)[:4] * 2), "example 0 has the target .*add up to 1"),
        (list(np.eye(7)[:4]), "example 0 has the target .* class numbers"),
    ],
)
def test_targets_outside_the_classes_are_named(targets, message, in_memory_bytes):
    config = config_of(CLASSIFICATION, targets, num_classes=10)
    config = parse_config_with(config, in_memory_bytes)
    with pytest.raises(ConfigError, match=f"config.data.train_split = 'train': {message}"):
        check_study(config)
    good = {"train": [0, 1, 2, 3], "validation": targets}
    config = parse_config_with(config_of(CLASSIFICATION, good, num_classes=10), in_memory_bytes)
    with pytest.raises(ConfigError, match="validation_split = 'validation': "):
        check_study(config)


def parse_config_with(config, in_memory_bytes):
    from budgetflow.config.keys import replace_fields

    return replace_fields(config, {"data.in_memory_bytes": in_memory_bytes})


def test_a_bad_label_of_a_stream_is_named_when_it_is_read():
    targets = [i % 10 for i in range(1000)]
    targets[5] = 10
    config = parse_config_with(config_of(CLASSIFICATION, targets, num_classes=10), 0)
    dataset = study_dataset(config)
    run = start_trial(dataset, config, Schedule(0.1, constant_steps=250))
    with pytest.raises(ConfigError, match="example 5 has the target 10"):
        run.advance(250)


def trained(targets, num_classes):
    config = config_of(CLASSIFICATION, targets, num_classes=num_classes)
    run = start_trial(study_dataset(config), config, Schedule(0.1, constant_steps=10))
    return run.advance(10).row


def test_booleans_and_one_hot_labels_are_class_numbers():
    numbers = [0, 1, 1, 0, 1, 0, 0, 1]
    expected = trained(numbers, 2)
    assert trained([bool(n) for n in numbers], 2) == expected
    for kind in (np.float32, np.int32, bool):
        row = trained([np.eye(2, dtype=kind)[n] for n in numbers], 2)
        assert row == pytest.approx(expected, rel=1e-5)


def test_a_sweep_needs_more_than_one_class():
    with pytest.raises(ConfigError, match="all 12 examples have the target 3"):
        check_study(config_of(CLASSIFICATION, [3] * 12, "lr_sweep", num_classes=5))
    check_study(config_of(CLASSIFICATION, [3] * 12, num_classes=5))


def test_an_error_of_a_task_is_not_blamed_on_the_model():
    class_count = {"num_classes": 0}
    with pytest.raises(ConfigError, match=r"config\.task.*num_classes = 0") as caught:
        check_study(config_of(CLASSIFICATION, [0, 1, 2, 3], **class_count))
    assert "config.model" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"config\.task.*set config\.task\.num_classes"):
        check_study(config_of(CLASSIFICATION, [0, 1, 2, 3]))


class NoModule:
    def __init__(self, input_shape, num_outputs, *, rngs):
        pass

    def __call__(self, inputs):
        return inputs


class WrongShape(nnx.Module):
    def __init__(self, input_shape, num_outputs, *, rngs):
        pass

    def __call__(self, inputs):
        return jnp.zeros((len(inputs), 3))


class ReturnsNothing(WrongShape):
    def __call__(self, inputs):
        return None


class Raises(WrongShape):
    def __call__(self, inputs):
        raise KeyError("nobody")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("NoModule", "gives NoModule, not an nnx.Module"),
        ("WrongShape", r"gives outputs \(batch, 3\) for inputs \(batch, 8, 8, 1\); expected"),
        ("ReturnsNothing", r"gives outputs None"),
        ("Raises", "KeyError.*nobody"),
    ],
)
def test_what_a_model_does_wrong_is_named(digits, model, message):
    config = small_config(model={"name": f"{__name__}.{model}"})
    with pytest.raises(ConfigError, match=rf"config\.model.*{message}"):
        start_trial(digits, config, Schedule(0.1, constant_steps=3))


class Dots(nnx.Module):
    """Two inputs by name, outputs as a dict."""

    def __init__(self, input_shape, num_outputs, *, rngs):
        assert input_shape == {"a": (4,), "b": (4,)}
        self.linear = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, inputs):
        return {"dot": (self.linear(inputs["a"]) * inputs["b"]).sum(-1), "a": inputs["a"]}


class DotTask:
    def num_outputs(self, _):
        return None

    def loss(self, outputs, batch):
        return optax.squared_error(outputs["dot"], batch["targets"]["y"] + batch["targets"]["z"])

    def metrics(self, outputs, batch):
        return {"masked": self.loss(outputs, batch) * (batch["inputs"]["b"][:, 0] > 0)}


def open_pairs(split):
    rng = np.random.default_rng({"train": 0, "validation": 1}[split])
    a, b = rng.normal(size=(2, 64, 4)).astype(np.float32)
    y = (a * b).sum(-1)
    return [{"a": i, "b": j, "y": k, "z": k / 2} for i, j, k in zip(a, b, y, strict=True)]


@pytest.mark.parametrize("in_memory_bytes", [2**30, 0])
def test_several_inputs_targets_and_outputs_reach_model_and_task_by_name(in_memory_bytes):
    config = small_config(
        data__name=f"{__name__}.open_pairs",
        data__input_key=("a", "b"),
        data__target_key=("y", "z"),
        data__batch_size=16,
        data__in_memory_bytes=in_memory_bytes,
        model={"name": f"{__name__}.Dots"},
        task={"name": f"{__name__}.DotTask"},
        evaluation__selection_metric="masked",
        optimizer={"name": "adam"},
    )
    load_dataset.cache_clear()
    check_study(config)
    run = start_trial(study_dataset(config), config, Schedule(0.05, constant_steps=400))
    first, last = run.advance(1).row, run.advance(400).row
    # The answer is 1.5 times the identity.
    assert last["validation_loss"] < 0.01 < first["validation_loss"]
    kernel = np.asarray(run.state.params["linear"]["kernel"])
    np.testing.assert_allclose(kernel, 1.5 * np.eye(4), atol=0.2)


class OwnTokens(nnx.Module):
    """Reads bytes as tokens, without saying so."""

    def __init__(self, input_shape, num_outputs, *, rngs):
        self.embed = nnx.Embed(256, num_outputs, rngs=rngs)

    def __call__(self, inputs):
        return self.embed(inputs.astype(int)).mean(axis=1)


class SayingTokens(OwnTokens):
    scale_uint8 = False


def open_bytes(split):
    rng = np.random.default_rng(0)
    return [{"x": rng.integers(0, 256, 5).astype(np.uint8), "y": i % 2} for i in range(32)]


def test_what_bytes_mean_is_declared_not_guessed():
    def config_for(model, scale=None):
        return small_config(
            data__name=f"{__name__}.open_bytes",
            data__input_key="x",
            data__target_key="y",
            data__batch_size=16,
            data__scale_uint8=scale,
            model={"name": f"{__name__}.{model}"},
            task={"name": CLASSIFICATION, "num_classes": 2},
        )

    with pytest.raises(ConfigError, match=r"config\.data\.scale_uint8 is missing: .*OwnTokens"):
        check_study(config_for("OwnTokens"))
    losses = []
    for config in (
        config_for("OwnTokens", False),
        config_for("SayingTokens"),
        config_for("SayingTokens", True),
    ):
        check_study(config)
        run = start_trial(study_dataset(config), config, Schedule(0.5, constant_steps=60))
        losses.append(run.advance(60).row["train_loss"])
    # As pixels nearly all bytes are the token 0, which tells nothing.
    assert losses[0] == losses[1] < 0.5 < losses[2]
