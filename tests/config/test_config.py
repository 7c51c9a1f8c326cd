import dataclasses

import pytest
from conftest import REPOSITORY, small_config

from budgetflow.base.errors import ConfigError
from budgetflow.config import building_on, default_config, load_config_file, log_uniform
from budgetflow.studies.kinds import parse_study as parse_config


@pytest.mark.parametrize("kind", ["lr_sweep", "round"])
def test_the_default_config_needs_only_a_length(kind):
    config = default_config(kind)
    with pytest.raises(ConfigError, match="max_train_steps is missing"):
        parse_config(config)
    config.max_train_steps = 10
    assert parse_config(config).max_train_steps == 10


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("configs/*.py")), ids=lambda p: p.name)
def test_every_config_that_ships_is_accepted(path):
    config = parse_config(load_config_file(path))
    assert config.name == path.stem
    assert f"--config=configs/{path.name}" in path.read_text()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_train_step": 3}, "config.max_train_step does not exist.*'max_train_steps'"),
        ({"data__batchsize": 3}, "config.data.batchsize does not exist.*'batch_size'"),
        ({"max_train_steps": 0}, "config.max_train_steps = 0"),
        ({"data__batch_size": -1}, "config.data.batch_size = -1"),
        ({"schedule__base_learning_rate": float("inf")}, "base_learning_rate = inf"),
        ({"schedule__base_learning_rate": 0.0}, "greater than"),
        ({"schedule__decay": "linaer"}, "'none', 'linear', 'cosine', '1-sqrt'"),
        ({"regularization__dropout_rate": -0.1}, "dropout_rate = -0.1"),
        ({"search__promote_trials": 2}, "needs a round to build on"),
        ({"model": {"hidden_sizes": (3,)}}, "config.model.name is missing"),
    ],
)
def test_a_bad_value_is_refused_by_name(fields, message):
    with pytest.raises(ConfigError, match=message):
        small_config(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule__decay": "linear"}, "constant learning rates"),
        ({"search__space": (log_uniform("optimizer.momentum", 0.1, 0.9),)}, "varies nothing else"),
        ({"sweep__learning_rates": ()}, "is empty"),
        ({"sweep__learning_rates": (0.1, 0.1)}, "twice"),
        ({"sweep__learning_rates": (0.1, -0.1)}, "greater than"),
        ({"model__dropout_rate": 0.5}, "looks like regularization"),
    ],
)
def test_a_sweep_cannot_deceive_itself(fields, message):
    with pytest.raises(ConfigError, match=message):
        small_config("lr_sweep", **fields)


def test_a_locked_config_refuses_unknown_keys_when_assigned():
    with pytest.raises(AttributeError, match="batch_size"):
        default_config("round").data.batchsize = 5


def test_a_study_starts_from_the_workload_it_builds_on(tmp_path):
    first = tmp_path / "first.py"
    first.write_text(
        "from budgetflow.config import default_config\n"
        "def get_config():\n"
        "    config = default_config('lr_sweep')\n"
        "    config.max_train_steps = 100\n"
        "    config.data.batch_size = 32\n"
        "    config.model = {'name': 'my_lab.Net', 'depth': 3}\n"
        "    return config\n"
    )
    config = parse_config(building_on(first, "round"))
    assert config.data.batch_size == 32
    assert config.model == {"name": "my_lab.Net", "depth": 3}
    assert config.builds_on == str(first)
    assert config.kind == "round" and config.max_train_steps is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(: pass", r"broken.py raised SyntaxError: .*broken.py:1\)"),
        ("x = 1", "defines no get_config"),
        ("def get_config(): return 3", "returns int, not a ConfigDict"),
        (
            "from budgetflow.config import default_config\n"
            "def get_config():\n    default_config('round').max_train_step = 3",
            "did you mean .max_train_steps",
        ),
        (
            "from budgetflow.config import uniform\n"
            "def get_config():\n    return uniform('optimizer.momentum', 0.9, 0.1)",
            "needs low < high",
        ),
    ],
)
def test_a_broken_config_file_is_one_line_of_error(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config_file(path)
    assert "\n" not in str(caught.value)


def test_a_missing_config_file_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"roundd\.py; did you mean 'round\d\.py'"):
        load_config_file(REPOSITORY / "configs" / "roundd.py")


def test_every_field_is_set_from_a_config():
    config = default_config("round")
    names = {f.name for f in dataclasses.fields(small_config())}
    assert set(config) == names


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "clip_gradient_norm",
            0.0,
            "config.clip_gradient_norm = 0.0: should be greater than or equal to 1e-30",
        ),
        (
            "weight_decay_mask",
            "kernels",
            "config.weight_decay_mask = 'kernels': should be 'all' or",
        ),
    ],
)
def test_an_impossible_clipping_or_mask_is_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        small_config(**{field: value})
