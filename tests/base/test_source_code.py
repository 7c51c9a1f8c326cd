"""A user's code that changed is noticed, wherever it stands, and comments are not code."""

import ast
import hashlib
import importlib
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
    found = source_digests("budgetflow.models.MLP", "config.model.name")
    assert set(found) == {"budgetflow.models.mlp", "budgetflow.models.dropout"}


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


def test_budgetflows_own_source_counts_but_for_what_only_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr("budgetflow.base.disk_cache.FOLDER", tmp_path / "kept")
    before = framework_source()
    assert before["version"] and before["source"]
    package = tmp_path / "budgetflow"
    (package / "results").mkdir(parents=True)
    (package / "training.py").write_text("x = 1")
    monkeypatch.setattr("budgetflow.__file__", str(package / "__init__.py"))

    def source():
        framework_source.cache_clear()
        return framework_source()["source"]

    try:
        first = source()
        (package / "results" / "figures.py").write_text("y = 1")
        assert source() == first
        (package / "training.py").write_text('"""Trains."""\nx = (1)  # as it was')
        assert source() == first
        (package / "training.py").write_text("x = 2")
        assert source() != first
        # It is kept, and not parsed again.
        now = source()
        monkeypatch.setattr(ast, "parse", None)
        assert source() == now
    finally:
        framework_source.cache_clear()


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
