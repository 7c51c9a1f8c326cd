import os
import sys
import textwrap

import numpy as np
import pytest

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.base.import_path import import_object
from budgetflow.base.user_code import user_code
from budgetflow.config.schedule import ScheduleConfig, resolve_schedule
from budgetflow.engine.optimizers import optimizer_spec
from budgetflow.engine.training.optimizer_check import check_update


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Writes a user's module "lab", to be imported anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lab", raising=False)

    def write(text):
        (tmp_path / "lab.py").write_text(textwrap.dedent(text))
        return tmp_path / "lab.py"

    yield write
    sys.modules.pop("lab", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit('no GPU')", "raised SystemExit: no GPU .*lab.py:2"),
        ("raise SystemExit", "raised SystemExit: no message .*lab.py:1"),
        ("def Net(:\n    pass", r"raised SyntaxError: invalid syntax .*lab.py:1"),
        ("x = 1\nassert x == 2, 'two\\nlines'", "raised AssertionError: two .*lab.py:2"),
        ("import json\njson.loads('{')", "raised JSONDecodeError: .*lab.py:2"),
        ("import not_installed", "raised ModuleNotFoundError: .*'not_installed' .*lab.py:1"),
        ("from json import lods", "raised ImportError: .*lab.py:1"),
        ("class Net: pass\n\nNett = 3", "lab has no 'Ne'; did you mean 'Net'"),
        ("Ne = 3", "'Ne' is of type int, not a class or function"),
        ("def __getattr__(name):\n    raise OSError(name)", "raised OSError: Ne .*lab.py:2"),
    ],
)
def test_what_importing_raises_is_one_line(lab, text, message):
    lab(text)
    with pytest.raises(ConfigError, match=message) as caught:
        import_object("lab.Ne", "config.model.name")
    assert str(caught.value).startswith("config.model.name = 'lab.Ne'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("budgetflow.model.MLP", "no module 'budgetflow.model'; did you mean 'models'"),
        ("budgetfow.models.MLP", "no module 'budgetfow'; did you mean 'budgetflow'"),
        ("budgetflow.engine.models.mlp", "'mlp' is of type module, .*did you mean 'MLP'"),
    ],
)
def test_what_cannot_be_found_is_named_with_the_nearest(path, message):
    with pytest.raises(ConfigError, match=message):
        import_object(path, "config.model.name")


def test_the_place_is_the_innermost_in_the_users_own_code(lab):
    path = lab("import numpy as np\ndef f():\n    return g()\ndef g():\n    return np.stack([])\n")
    function = import_object("lab.f", "config.x")
    with pytest.raises(ConfigError) as caught, user_code("config.x", "lab.f"):
        function()
    assert isinstance(caught.value.__cause__, ValueError)
    shown = min(os.path.relpath(path), str(path), key=len)
    assert str(caught.value).startswith("config.x = 'lab.f' raised ValueError: need at least")
    assert str(caught.value).endswith(f" ({shown}:5)")


def test_ctrl_c_and_errors_of_our_own_pass_through():
    for error in (KeyboardInterrupt(), UserError("said already")):
        with pytest.raises(type(error)) as caught, user_code("config.x", "lab.f"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def make(learning_rate): return None", "returns None; should be an optax"),
        ("def make(learning_rate): return (1, 2)", "returns a tuple"),
        ("def make(learning_rate): yield 1", "returns a generator"),
        ("def make(learning_rate): return 'sgd'", "returns a str"),
        ("def make(learning_rate):\n  if learning_rate > 1: pass", "TracerBool.*lab.py:2"),
        (
            "def make(learning_rate):\n  raise KeyError('beta')",
            "KeyError: 'beta' .*lab.py:2",
        ),
        ("def make(rate): pass", "has no argument learning_rate"),
        ("def make(**options): pass", "returns None"),
    ],
)
def test_an_optimizer_that_is_none_is_named(lab, text, message):
    lab(text)
    with pytest.raises(ConfigError, match=message):
        check_update(optimizer_spec({"name": "lab.make"}), {"w": np.ones((2, 3))}, False, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(step): return None", "returns NoneType for a step"),
        ("def f(step): return 0.1, 0.2", "returns tuple"),
        ("def f(step): yield step", "returns generator"),
        ("def f(step): return '0.1'", "returns str"),
        ("def f(step): return step.reshape(1)", r"returns an array of shape \(1,\)"),
        ("def f(step):\n    return [0.1, 0.2][step]", "raised TracerIntegerConversion.*lab.py:2"),
        ("def f(): return 0.1", "raised TypeError: f.. takes 0 positional"),
    ],
)
def test_a_function_that_is_no_schedule_is_named(lab, text, message):
    lab(text)
    with pytest.raises(ConfigError, match=message):
        resolve_schedule(ScheduleConfig(function="lab.f"), 10)
