import numpy as np
import pytest
from conftest import REPOSITORY

from budgetflow.base.errors import ConfigError
from budgetflow.cli import command_line
from budgetflow.cli.launch_flags import FLAGS
from budgetflow.config import choices, load_config_file
from budgetflow.studies.kinds import parse_study as parse_config

SWEEP = str(REPOSITORY / "configs" / "lr_sweep.py")


def parsed(*arguments):
    values = command_line.flag_values(FLAGS)
    return parse_config(command_line.parse(["launch", *arguments], values))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config.sweep.learning_rates=(0.1, 0.2)"],
        ["--config.sweep.learning_rates=[0.1, 0.2]"],
        ["--config.sweep.learning_rates=0.1,0.2"],
        ["--config.sweep.learning_rates", "0.1,0.2"],
        ["--config.sweep.learning_rates=0.1", "--config.sweep.learning_rates=0.2"],
        ["--config.sweep.learning_rates", "0.1", "--config.sweep.learning_rates", "0.2"],
    ],
)
def test_a_tuple_is_set_in_every_form(arguments):
    assert parsed(f"--config={SWEEP}", *arguments).sweep.learning_rates == (0.1, 0.2)


def test_flags_come_in_any_order_and_the_last_holds():
    values = command_line.flag_values(FLAGS)
    arguments = ["--config.seed", "1", "--dry_run", "--config", SWEEP, "--config.seed=2"]
    assert command_line.parse(["launch", *arguments], values).seed == 2
    assert values.dry_run


def test_arguments_that_the_file_leaves_out_can_be_set():
    config = parsed(
        f"--config={SWEEP}",
        "--config.task.num_classes=5",
        "--config.model.width",
        "32",
        "--config.optimizer.momentum=None",
        "--config.optimizer.nesterov",
        "--config.model.act=tanh",
        "--config.regularization.input_noise=0.5",
    )
    assert config.task["num_classes"] == 5
    assert (config.model["width"], config.model["act"]) == (32, "tanh")
    assert config.optimizer["momentum"] is None
    assert config.optimizer["nesterov"] is True
    assert config.regularization["input_noise"] == 0.5


def test_what_is_none_or_a_word_stays_so():
    config = parsed(f"--config={SWEEP}", "--config.name=2024", "--config.data.test_split=None")
    assert (config.name, config.data.test_split) == ("2024", None)


def test_help_lists_the_keys_as_they_are_in_the_file():
    of_sweep = command_line.config_keys_help(["x", f"--config={SWEEP}"])
    assert "--config.max_train_steps=2000" in of_sweep
    assert "--config.max_train_steps=None" in command_line.config_keys_help(["x"])


@pytest.fixture
def write(tmp_path):
    def write(body, argument=""):
        path = tmp_path / "mine.py"
        path.write_text(
            "import pathlib\nimport numpy as np\nfrom ml_collections import ConfigDict\n"
            "from budgetflow.config import default_config\n"
            f"def get_config({argument}):\n    {body}\n"
        )
        return path

    return write


def test_a_config_file_may_hold_numpy_numbers_paths_and_lists(write):
    path = write(
        "config = default_config('lr_sweep'); config.max_train_steps = np.int64(10);"
        "config.optimizer.momentum = np.float32(0.5); config.model.hidden_sizes = np.array([3, 4]);"
        "config.data.data_dir = pathlib.Path('x');"
        "config.model.blocks = [['a', 0]];"
        "config.sweep.learning_rates = list(np.array([0.5, 1])); return config"
    )
    config = parse_config(load_config_file(path))
    assert (config.max_train_steps, type(config.max_train_steps)) == (10, int)
    assert config.optimizer["momentum"] == 0.5
    assert not isinstance(config.optimizer["momentum"], np.generic)
    assert config.model["hidden_sizes"] == (3, 4)
    assert config.data.data_dir == "x"
    assert config.model["blocks"] == (("a", 0),)
    assert config.sweep.learning_rates == (0.5, 1.0)


def test_a_config_dict_of_ones_own_has_the_defaults(write):
    path = write(
        "return ConfigDict({'kind': 'round', 'max_train_steps': 5, 'data': {'name': 'x'}})"
    )
    config = parse_config(load_config_file(path))
    assert (config.data.name, config.data.batch_size, config.name) == ("x", 64, "mine")


def test_a_config_file_takes_an_argument(write):
    path = write("c = default_config('round'); c.max_train_steps = int(n); return c", "n")
    config = parsed(f"--config={path}:7")
    assert (config.max_train_steps, config.name) == (7, "mine_7")


def test_a_config_file_may_define_dataclasses(write):
    path = write(
        "import dataclasses; c = dataclasses.make_dataclass('C', ['a'])(1);"
        "return ConfigDict({'kind': 'round', 'seed': c.a})"
    )
    assert load_config_file(path).seed == 1


def space_flag(tag):
    dimension = {"name": "optimizer.momentum", "distribution": "choices", "values": (0.8, 0.9)}
    return f"--config.search.space=({dimension | {'tag': tag}},)"


def test_a_dimension_of_the_command_line_may_have_a_tag():
    config = f"--config={REPOSITORY / 'configs' / 'round1.py'}"
    (dimension,) = parsed(config, "--config.search.trials=2", space_flag("might")).search.space
    assert dimension == choices("optimizer.momentum", 0.8, 0.9, tag="might")
    with pytest.raises(ConfigError, match=r"space.*tag = 'mihgt': should be .*'might'"):
        parsed(config, "--config.search.trials=2", space_flag("mihgt"))
