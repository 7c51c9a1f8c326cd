"""A user's code that changed is noticed, wherever it stands, and comments are not code."""

import ast
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
import textwrap

import pytest

from budgetflow.base import source_code
from budgetflow.base.source_code import framework_source, source_digests

MODELS = """
from flax import nnx

from own_lab import layers
from .blocks import activation


class Net(nnx.Module):
    '''A small network.'''

    def __init__(self, input_shape, num_outputs, *, rngs):
        self.hidden = nnx.Linear(64, 16, rngs=rngs)
        self.output = nnx.Linear(16, num_outputs, rngs=rngs)

    def __call__(self, inputs):
        import own_helpers

        x = activation(self.hidden(layers.flat(inputs)))
        return own_helpers.scaled(self.output(x))
"""
FILES = {
    "own_lab/__init__.py": "",
    "own_lab/models.py": MODELS,
    "own_lab/layers.py": "def flat(x):\n    return x.reshape(len(x), -1)\n",
    "own_lab/blocks.py": "from jax.nn import relu as activation\n",
    "own_lab/plots.py": "COLOR = 'blue'\n",
    "own_helpers.py": "def scaled(x):\n    return 1.0 * x\n",
    "own_unrelated.py": "import own_lab.models\n",
}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder of a user's own code; a function that changes a file of it."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        for name in [n for n in sys.modules if n.startswith("own_")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        source_code._digests.cache_clear()

    write(FILES)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    write({})


def digests():
    return source_digests("own_lab.models.Net", "config.model.name")


def test_the_module_and_all_that_it_imports_of_its_package_and_folder_count(lab):
    assert set(digests()) == {
        "own_lab",
        "own_lab.models",
        "own_lab.layers",
        "own_lab.blocks",
        "own_helpers",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own_lab/models.py", MODELS.replace("64, 16", "64, 17").replace("(16, num", "(17, num")),
        ("own_lab/layers.py", "def flat(x):\n    return x.reshape(len(x), -1) / 2\n"),
        ("own_lab/blocks.py", "from jax.nn import tanh as activation\n"),
        ("own_lab/__init__.py", "import jax\n"),
        ("own_helpers.py", "def scaled(x):\n    return 2.0 * x\n"),
    ],
)
def test_a_change_of_code_is_a_change_of_that_modules_digest(lab, name, text):
    before = digests()
    lab({name: text})
    after = digests()
    changed = {module for module in before if before[module] != after[module]}
    assert changed == {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")}


def test_comments_docstrings_formatting_and_other_files_change_nothing(lab):
    before = digests()
    lab(
        {
            "own_lab/models.py": MODELS.replace(
                "'''A small network.'''", "'''Ours.'''  # the best"
            ).replace("*, rngs):\n", "*,\n                 rngs):\n"),
            "own_lab/plots.py": "COLOR = 'red'\n",
            "own_unrelated.py": "import own_lab\n",
        }
    )
    assert digests() == before


def test_where_an_object_is_defined_counts_not_where_it_is_imported_from():
    public = source_digests("budgetflow.models.MLP", "config.model.name")
    assert public == source_digests("budgetflow.engine.models.mlp.MLP", "config.model.name")
    assert set(public) == {"budgetflow"}
    assert public != source_digests("budgetflow.models.ConvNet", "config.model.name")


CODE = r'''
"""Doc."""
import os as o, sys
from . import a
async def f(x: int, /, *args, y=None, **k) -> "str":
    """Doc."""
    with open(x) as g, b:
        yield f"{x!r:>4}{{}} {y=}"
    match x:
        case {"a": [1, *_], **rest} if rest: return lambda z: z ** -2
        case C(p=3) | None: pass
    try:
        raise E from None
    except* ValueError as e:
        del x[1:2, ...], x.y
    return [a async for a in b if not a] + [1, 2.5, b"c", 1j, True, "\u00e9"]
@dec
class D(B, metaclass=M):
    x: int = (w := 5)
    global q
'''


def test_digests_are_the_same_for_every_python():
    text = repr(source_code._code(ast.parse(CODE)))
    # As found on 3.11, 3.12 and 3.13.
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "b50518858988fd8e"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A small budgetflow; a function that changes files of it and gives what is digested."""
    package = tmp_path / "budgetflow"
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr("budgetflow.base.disk_cache.FOLDER", tmp_path / "cache")
    monkeypatch.setattr(source_code, "PACKAGE", package)
    cached = (source_code._own_modules, framework_source, source_code._digests)

    def write(files):
        """The digests of states, of what decides, and of a model."""
        for name, text in files.items():
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True) if text is None else path.write_text(text)
        for function in cached:
            function.cache_clear()
        modules = ("budgetflow.playbook.policy", "budgetflow.engine.models.mlp")
        policy, model = (dict(source_code._digests(module))["budgetflow"] for module in modules)
        return framework_source()["source"], policy, model

    yield write
    for function in cached:
        function.cache_clear()


STEP = """
from budgetflow.base.errors import refuse
from budgetflow.base.numbers import half, twice

def step(x):
    if x < 0:
        raise ValueError(f"{x} is negative")
    return half(x)
"""
OWN = {
    "__init__.py": "from budgetflow.engine.step import step\n",
    "base/__init__.py": "",
    "base/errors.py": "def refuse(): pass\n",
    "base/numbers.py": "def half(x): return x / 2\ndef twice(x): return x * 2\n",
    "engine/__init__.py": "",
    "engine/step.py": STEP,
    "engine/models/__init__.py": "from budgetflow.engine.models.mlp import size\n",
    "engine/models/mlp.py": "size = 4\n",
    "playbook/__init__.py": "",
    "playbook/policy.py": "from budgetflow.playbook.words import said\nfrom typing import Any\n"
    "def decide(): return said(3)\n",
    "playbook/words.py": "CHANGES_NO_RESULT = True\ndef said(x): return f'{x} steps'\n",
    "results/page.py": "width = 80\n",
}


@pytest.mark.parametrize(
    ("files", "changed"),
    [
        # Words, comments, texts of errors, readers and names change nothing.
        ({"playbook/words.py": OWN["playbook/words.py"].replace("steps", "updates")}, ""),
        ({"engine/step.py": STEP.replace("is negative", "is below 0") + "# done\n"}, ""),
        ({"results/page.py": "width = 100\n"}, ""),
        ({"__init__.py": "from budgetflow.engine.step import step as other\n"}, ""),
        (
            {
                "base/numbers.py": None,
                "base/arithmetic.py": OWN["base/numbers.py"],
                "engine/step.py": STEP.replace("base.numbers", "base.arithmetic"),
            },
            "",
        ),
        # What computes a state does, whatever it lies in, and so does what is imported from where.
        ({"engine/step.py": STEP.replace("half(x)", "half(x) * 1")}, "states"),
        ({"engine/step.py": STEP.replace("half, twice", "twice as half, twice")}, "states"),
        ({"base/numbers.py": OWN["base/numbers.py"].replace("x / 2", "x / 3")}, "states"),
        ({"engine/more.py": "import jax\n"}, "states"),
        ({"base/errors.py": "def refuse(): return 1\n"}, "states"),
        # What a config names counts where it names it; what decides, for outcomes.
        ({"engine/models/mlp.py": "size = 5\n"}, "model"),
        ({"engine/models/conv.py": "size = 5\n"}, ""),
        ({"playbook/policy.py": OWN["playbook/policy.py"].replace("3", "4")}, "policy"),
        ({"playbook/words.py": "def said(x): return f'{x} steps'\n"}, "policy"),
    ],
)
def test_of_budgetflow_what_can_change_a_result_counts(own, files, changed):
    before, after = own(OWN), own(files)
    names = ("states", "policy", "model")
    pairs = zip(names, before, after, strict=True)
    assert " ".join(name for name, then, now in pairs if then != now) == changed
    assert own(OWN | {name: None for name in files if name not in OWN}) == before


def test_the_digests_of_budgetflow_are_kept_between_processes(own, monkeypatch):
    before = own(OWN)
    monkeypatch.setattr(ast, "parse", None)
    assert own({}) == before


def test_a_users_code_that_builds_on_budgetflows_models_knows_them(lab):
    lab({"own_lab/layers.py": "from budgetflow.models import MLP\n" + FILES["own_lab/layers.py"]})
    assert set(digests()) >= {"budgetflow", "own_lab.layers"}
    lab({"own_lab/layers.py": "from budgetflow import launch\n" + FILES["own_lab/layers.py"]})
    assert "budgetflow" not in digests()


def test_all_of_the_engine_counts_but_what_configs_name():
    own = source_code._own_modules()
    engine = {n for n, module in own.items() if ".engine." in n and not module.is_names}
    engine.remove("budgetflow.engine.training.timing")  # it takes times, from which nothing follows
    named = {
        "budgetflow.engine.tasks",
        *(f"budgetflow.engine.models.{m}" for m in ("conv", "dropout", "mlp", "resnet")),
        "budgetflow.engine.models.transformer",
        *(f"budgetflow.engine.data.{d}" for d in ("augment", "diabetes", "fashion_mnist", "text")),
    }
    assert engine - source_code._closure(source_code._engine()) == named


CONFIG = """
from budgetflow.config import building_on, default_config

def get_config():
    config = {make}
    config.max_train_steps = {steps}
    config.evaluation.evaluations = 2
    config.model = {{"name": "own_lab.models.Net"}}
    config.search.promote_trials = {promote}
    return config
"""


def launch(folder, config):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "budgetflow.launch",
            f"--config={folder / config}",
            f"--workdir={folder / 'runs'}",
        ],
        capture_output=True,
        text=True,
        cwd=folder,
    )


@pytest.mark.slow
def test_another_model_behind_the_same_name_is_never_gone_on_with(lab, tmp_path):
    (tmp_path / "first.py").write_text(
        CONFIG.format(make="default_config('round')", steps=20, promote=0)
    )
    (tmp_path / "second.py").write_text(
        CONFIG.format(
            make=f"building_on({str(tmp_path / 'first.py')!r}, 'round')", steps=40, promote=1
        )
    )
    assert launch(tmp_path, "first.py").returncode == 0
    outcome = (tmp_path / "runs" / "first" / "outcome.json").read_text()
    lab({"own_lab/blocks.py": "from jax.nn import tanh as activation\n"})
    for config in ("first.py", "second.py"):
        result = launch(tmp_path, config)
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert "the code behind config.model.name (own_lab.blocks)" in line
        assert (
            "undo the change, vouch with --same_results that it changes no number, give another "
            "--workdir or config.name, or delete that folder"
        ) in line
    assert (tmp_path / "runs" / "first" / "outcome.json").read_text() == outcome
    assert not (tmp_path / "runs" / "second").exists()
    # The remedies work: another workdir, and undoing the change.
    lab({"own_lab/blocks.py": "# As it was.\nfrom jax.nn import relu as activation\n"})
    result = launch(tmp_path, "second.py")
    assert result.returncode == 0, result.stderr
    assert "were taken over" in result.stdout


ROUND = """
from budgetflow.config import building_on, default_config

def get_config():
    config = {make}
    config.max_train_steps = {steps}
    config.evaluation.evaluations = 2
    config.model = {{"name": "budgetflow.models.MLP", "hidden_sizes": (8,)}}
    config.search.promote_trials = {promote}
    return config
"""


@pytest.mark.slow
def test_a_word_in_a_message_or_another_file_name_leaves_all_that_was_trained(tmp_path):
    """Of a copy of the whole package: a sentence is worded anew, a module renamed, then a number.

    So nothing of a complete study is refused, and the next round takes over its steps.
    """
    package = tmp_path / "budgetflow"
    shutil.copytree(source_code.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    make = "default_config('round')"
    (tmp_path / "first.py").write_text(ROUND.format(make=make, steps=20, promote=0))
    make = f"building_on({str(tmp_path / 'first.py')!r}, 'round')"
    for name, steps in {"second": 40, "third": 60, "fourth": 80}.items():
        (tmp_path / f"{name}.py").write_text(ROUND.format(make=make, steps=steps, promote=1))

    def reused(config):
        assert launch(tmp_path, "first.py").returncode == 0  # complete, and not refused
        result = launch(tmp_path, f"{config}.py")
        assert result.returncode == 0, result.stderr
        outcome = json.loads((tmp_path / "runs" / config / "outcome.json").read_text())
        return outcome["steps_reused"]

    assert reused("second") == 20
    words = package / "playbook" / "rounds" / "words.py"
    text = words.read_text()
    words.write_text(text.replace("bit for bit, instead of", "bit for bit, rather than"))
    assert words.read_text() != text
    files = [path for path in package.rglob("*.py") if path.name != "equal_code.py"]
    for file in files:
        text = file.read_text()
        file.write_text(
            text.replace("engine.training.apply import", "engine.training.moved import")
        )
    (package / "engine/training/apply.py").rename(package / "engine/training/moved.py")
    assert reused("third") == 20
    step = package / "engine" / "training" / "moved.py"
    step.write_text(step.read_text() + "\nADDED = 1\n")
    result = launch(tmp_path, "fourth.py")
    assert result.returncode == 2 and "budgetflow's code" in result.stderr
