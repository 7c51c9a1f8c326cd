"""Every remedy that a message names is tried: what was refused is accepted once it is followed."""

import numpy as np
import pytest
from conftest import run
from flax import nnx

from budgetflow.base.errors import UserError
from budgetflow.cli import command_line
from budgetflow.cli.command_line import flag_values
from budgetflow.cli.launch import check, load_chain
from budgetflow.cli.launch_flags import FLAGS
from budgetflow.config import choices, default_config, uniform
from budgetflow.engine.data.source import load_dataset
from budgetflow.studies.study import _dataset


def open_plain(split):
    """Records that say neither how many classes there are nor what bytes mean."""
    rng = np.random.default_rng(0)
    return [
        {"x": rng.integers(0, 256, (4, 4, 1)).astype(np.uint8), "y": i % 3, "z": i % 5}
        for i in range(24)
    ]


def open_mixed(split):
    records = open_plain(split)
    records[5]["x"] = records[5]["x"] / 255
    return records


def as_floats(record):
    """Mends :func:`open_mixed`: all images as float32 in [0, 1]."""
    image = record["x"]
    return {**record, "x": np.float32(image / 255 if image.dtype == np.uint8 else image)}


def open_nan(split):
    records = [{"x": np.ones(3, np.float32), "y": i % 3} for i in range(24)]
    records[7]["x"] = np.asarray([1, np.nan, 1], np.float32)
    return records


def without_nan(record):
    return {**record, "x": np.nan_to_num(record["x"])}


class Flat(nnx.Module):
    """A model that does not say what bytes mean."""

    def __init__(self, input_shape, num_outputs, *, rngs):
        self.linear = nnx.Linear(int(np.prod(input_shape)), num_outputs, rngs=rngs)

    def __call__(self, inputs):
        return self.linear(inputs.reshape(len(inputs), -1))


OWN = {
    "data.name": f"{__name__}.open_plain", "data.input_key": "x", "data.target_key": "y",
    "data.batch_size": 4, "model.name": f"{__name__}.Flat", "task.num_classes": 3,
    "data.scale_uint8": True,
}  # fmt: skip
SPACE = (uniform("regularization.dropout_rate", 0.0, 0.5),)
# What is refused, the remedy as the message has it, and the remedy.
REMEDIES = {
    "classes": ({**OWN, "task.num_classes": None}, "set config.task.num_classes",
                {"task.num_classes": 3}),
    "bytes": ({**OWN, "data.scale_uint8": None}, "config.data.scale_uint8 is missing.*set True",
              {"data.scale_uint8": False}),
    "feature": ({**OWN, "data.target_key": "yy"}, r"\(config.data.target_key\); did you mean 'y'",
                {"data.target_key": "y"}),
    "mixed": ({**OWN, "data.name": f"{__name__}.open_mixed"}, "config.data.transform can make",
              {"data.transform": f"{__name__}.as_floats"}),
    "nan": ({**OWN, "data.name": f"{__name__}.open_nan"}, "mend the data .config.data.transform",
            {"data.transform": f"{__name__}.without_nan"}),
    "labels": ({**OWN, "data.target_key": "z"}, "class numbers, integers from 0 to 2",
               {"task.num_classes": 5}),
    "decay": ({"optimizer": {"name": "adamw", "weight_decay": 0.1}},
              "set config.regularization.weight_decay",
              {"optimizer": {"name": "adamw"}, "regularization.weight_decay": 0.1}),
    "grid": ({"search.space": SPACE, "search.method": "grid"}, "config.search.method to 'halton'",
             {"search.method": "halton"}),
    "power": ({"schedule.power": 2.0}, "config.schedule.decay = 'polynomial'",
              {"schedule.decay": "polynomial"}),
    "drops": ({"schedule.decay": "step"}, "drop_steps .or drop_fractions. go together",
              {"schedule.drop_fractions": (0.5,)}),
    "accumulation": ({"gradient_accumulation": 3}, "nearest that fits: 2 or 4",
                     {"gradient_accumulation": 4}),
    "metric": ({"evaluation.selection_metric": "losss"}, "did you mean 'loss'",
               {"evaluation.selection_metric": "loss"}),
    "linesearch": ({"optimizer": {"name": "lbfgs"}}, "with config.optimizer.linesearch = None",
                   {"optimizer": {"name": "lbfgs", "linesearch": None}}),
}  # fmt: skip


def config_of(fields):
    load_dataset.cache_clear()
    _dataset.cache_clear()
    config = default_config("round")
    config.name, config.max_train_steps = "remedy", 20
    config.model = {"name": "budgetflow.models.MLP"}
    for name, value in fields.items():
        section, _, key = name.rpartition(".")
        owner = config[section] if section else config
        owner[key] = value
    return config


@pytest.mark.parametrize("kind", REMEDIES)
def test_what_a_message_asks_for_is_accepted(kind, tmp_path):
    fields, message, remedy = REMEDIES[kind]
    with pytest.raises(UserError, match=message):
        check(load_chain(config_of(fields)), str(tmp_path))
    check(load_chain(config_of(fields | remedy)), str(tmp_path))


def test_it_can_be_followed_by_flag_too(tmp_path):
    path = tmp_path / "mine.py"
    fields = {name: value for name, value in OWN.items() if name != "task.num_classes"}
    path.write_text(
        "from budgetflow.config import default_config\n\ndef get_config():\n"
        "    config = default_config('round')\n    config.max_train_steps = 20\n"
        "    config.model = {}\n"
        + "".join(f"    config.{name} = {value!r}\n" for name, value in fields.items())
        + "    return config\n"
    )

    def checked(*more):
        arguments = ["launch", f"--config={path}", *more]
        config = command_line.parse(arguments, flag_values(FLAGS))
        return check(load_chain(config), str(tmp_path / "r"))

    with pytest.raises(UserError, match=r"set config\.task\.num_classes"):
        checked()
    checked("--config.task.num_classes=3")
    with pytest.raises(UserError, match=r"config\.task\.num_clases .*did you mean 'num_classes'"):
        checked("--config.task.num_clases=3")


def test_none_is_a_choice(tmp_path):
    config = config_of({"search.space": (choices("optimizer.momentum", None, 0.9),)})
    config.search.method = "grid"
    outcome, _ = run(config, tmp_path)
    assert outcome["trials"] == 2


def test_results_of_another_config_go_elsewhere(tmp_path):
    first, second = config_of({}), config_of({"seed": 1})
    run(first, tmp_path)
    with pytest.raises(UserError, match=r"give another --workdir or config\.name"):
        run(second, tmp_path)
    run(second, tmp_path / "elsewhere")
    second.name = "another"
    run(second, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"remedy", "elsewhere", "another"}
