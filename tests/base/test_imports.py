"""The floors of the house: each part of the library imports only from below."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import budgetflow

PACKAGE = Path(budgetflow.__file__).parent
# A floor may import from those it names here, and from itself. Modules that hold nothing but the
# names of others, which configs and folders know them by, are none.
FLOORS = {
    "base": set(),
    "testing": {"base", "engine", "config", "playbook", "studies"},
    "engine": {"base"},
    "config": {"base", "engine"},
    "playbook": {"base", "engine.schedules", "config.search_space"},
    "studies": {"base", "engine", "config", "playbook"},
    "cluster": {"base", "engine", "config", "playbook", "studies"},
    "results": {
        *("base", "config.search_space", "engine.checkpoints", "engine.schedules", "playbook"),
        "studies.store",
    },
    # Imported when a model is restored, not before.
    "results.restoring": {"base", "engine", "config", "results", "studies.store"},
    "cli": {"base", "engine", "config", "playbook", "studies", "cluster", "results"},
}
NAMES = {
    *("models", "tasks", "metrics", "schedules", "errors", "data"),
    *("launch", "report", "show", "check"),
}


def part_of(module):
    return module.split(".")[1]


def imports(path):
    """The budgetflow modules that a file imports, wherever in it, but for types alone."""
    tree = ast.parse(path.read_text())
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If)]
    blocks = [n for n in blocks if ast.unparse(n.test) == "TYPE_CHECKING"]
    for_types = {id(inner) for block in blocks for inner in ast.walk(block)}
    for node in (n for n in ast.walk(tree) if id(n) not in for_types):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("budgetflow."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("budgetflow"):
            is_package = (PACKAGE.parent / Path(*node.module.split("."))).is_dir()
            if is_package:
                yield from (f"{node.module}.{name.name}" for name in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.name))
def test_every_module_imports_only_from_below(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        return
    part = parts[0]
    if part in NAMES:
        assert len(path.read_text().splitlines()) < 15
        return
    for module in imports(path):
        allowed = FLOORS.get(".".join(parts), FLOORS[part] | {part})
        names = {part_of(module), ".".join(module.split(".")[1:3])}
        assert names & allowed, f"{path} imports {module}"


def modules_after(statement):
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_decisions_need_no_jax_and_no_files():
    files = [p.relative_to(PACKAGE.parent) for p in PACKAGE.glob("playbook/*/*.py")]
    names = [".".join(p.with_suffix("").parts) for p in files]
    loaded = modules_after(f"import {', '.join(names)}")
    assert "budgetflow.playbook.sweep.policy" in loaded
    assert not {"jax", "flax", "optax", "orbax", "tensorflow_datasets"} & loaded


def test_reading_never_imports_training():
    loaded = modules_after(
        "import budgetflow.results.report.page, budgetflow.results.terminal.progress"
    )
    assert "budgetflow.results.report.page" in loaded
    assert not {name for name in loaded if name.startswith("budgetflow.engine.training")}
    assert "jax" not in loaded


def test_a_launch_begins_without_scipy():
    loaded = modules_after("import budgetflow.cli.launch")
    assert "budgetflow.playbook.forecasts.study_forecast" in loaded
    assert not {name for name in loaded if name.startswith("scipy")}
