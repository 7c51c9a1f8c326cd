"""The floors of the house: each part of the library imports only from below."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import budgetflow

PACKAGE = Path(budgetflow.__file__).parent
# A part may import from those it names here, and from itself.
GROUND = {
    "decays",
    "errors",
    "fields",
    "files",
    "forecast_ledger",
    "import_path",
    "kept",
    "metrics",
    "processes",
    "stopping",
    "schedules",
    "schedule_config",
    "source_code",
    "user_code",
}
FLOORS = {
    "errors": set(),
    "files": {"errors"},
    "forecast_ledger": {"files"},
    "kept": {"errors", "files"},
    "user_code": {"errors"},
    "import_path": {"errors", "user_code"},
    "processes": {"errors"},
    "stopping": {"errors", "processes"},
    "fields": set(),
    "metrics": set(),
    "source_code": {"import_path", "kept"},
    "decays": {"schedules"},  # for its types alone
    "schedules": {"decays", "errors", "import_path"},
    "schedule_config": {"decays", "errors", "fields", "schedules", "user_code"},
    "models": GROUND,
    "tasks": GROUND,
    "optimizers": GROUND,
    "data": GROUND,
    "small_checkpoints": set(),
    "checkpoints": GROUND | {"refusals", "small_checkpoints"},
    "playbook": {"config.search_space", "errors", "import_path", "schedules"},
    "config": GROUND,
    "command_line": {"config", "errors"},
    "workdir": {"errors"},
    "refusals": {"errors"},
    "check": {"command", "results"},
    "training": GROUND | {"config", "models", "tasks", "optimizers", "data"},
    "studies": GROUND | {"config", "playbook", "training", "tasks", "data", "checkpoints"},
    "results": GROUND | {"config.search_space", "playbook", "studies.trial", "checkpoints"},
    # Imported when a model is restored, not before.
    "results.restoring": GROUND | {"config", "data", "training", "checkpoints", "results"},
    "report": {"command", "errors", "files", "results"},
    "cluster": GROUND | {"config", "playbook", "studies", "training"},
    "launch": GROUND
    | {
        "cluster",
        "command_line",
        "config",
        "playbook",
        "studies",
        "results",
        "training.mesh",
        "workdir",
    }
    | {"dry_run", "in_python", "refusals", "watching"},
    "dry_run": {"config", "processes", "results", "studies", "training.mesh"},
    "watching": {"processes", "results", "studies"},
    "in_python": {"launch", "results"},
    "show": {"command", "errors", "results"},
    "command": {"errors"},
}


def part_of(module):
    return module.split(".")[1]


def imports(path):
    """The budgetflow modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
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
    assert part in FLOORS, f"{part} has no floor: give it one in this test"
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
    names = [p.stem for p in PACKAGE.glob("playbook/*.py") if p.stem != "__init__"]
    loaded = modules_after(f"from budgetflow.playbook import {', '.join(names)}")
    assert "budgetflow.playbook.lr_sweep" in loaded
    assert not {"jax", "flax", "optax", "orbax", "tensorflow_datasets"} & loaded


def test_reading_never_imports_training():
    loaded = modules_after(
        "import budgetflow.results.reading, budgetflow.results.report, budgetflow.results.terminal"
    )
    assert "budgetflow.results.report" in loaded
    assert not {name for name in loaded if name.startswith("budgetflow.training")}
    assert "jax" not in loaded


def test_a_launch_begins_without_scipy():
    loaded = modules_after("import budgetflow.launch")
    assert "budgetflow.playbook.study_forecast" in loaded
    assert not {name for name in loaded if name.startswith("scipy")}
