"""No kind of study is told from another by its name: one at an import path is treated the same."""

import ast
from pathlib import Path

import pytest

import budgetflow
from budgetflow.studies.kinds import KINDS

PACKAGE = Path(budgetflow.__file__).parent


def compared_names(source):
    """The names of kinds that a module compares something with, or matches, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in TEXT_TESTS:
            operands = [node.func.value, *node.args]
        else:
            continue
        for part in (inner for operand in operands for inner in ast.walk(operand)):
            if isinstance(part, ast.Constant) and part.value in KINDS:
                yield part.lineno, part.value


TEXT_TESTS = ("startswith", "endswith", "count", "find", "index", "__eq__", "__contains__")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_kind_is_compared_by_its_name(path):
    assert list(compared_names(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        'is_race = config["kind"] in ("lr_sweep", "comparison")',
        'if config.kind != "lr_sweep": pass',
        'x = 1 if "round" == kind else 2',
        'match kind:\n    case "cooldowns":\n        pass',
        'kind.startswith("round")',
    ],
)
def test_a_comparison_would_be_found(source):
    assert list(compared_names(source))
