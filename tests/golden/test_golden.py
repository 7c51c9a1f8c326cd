"""What studies of every kind find, whole and word for word, as it has been found before.

Trials follow formulas (simulation.py); all else is the real thing, from a config to outcome.json.
Where an outcome is meant to change, write the files anew and read what git says of them:

    BUDGETFLOW_GOLDEN=write python -m pytest tests/golden/test_golden.py
"""

import json
import math
import os
from pathlib import Path

import pytest
from scenarios import SCENARIOS

FOLDER = Path(__file__).parent
# Of figures that a fit has a part in; all others are the same to the last bit.
FITTED, TOLERANCE = ("forecast", "receipts", "held", "ideas", "rank_correlation"), 1e-9


def differences(expected, found, where="", tolerance=0.0):
    """Where two JSON values differ, a line each."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            if key not in expected or key not in found:
                yield f"{where}.{key} is {'new' if key in found else 'missing'}"
                continue
            loose = TOLERANCE if key in FITTED else tolerance
            yield from differences(expected[key], found[key], f"{where}.{key}", loose)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{where}: {len(found)} items instead of {len(expected)}"
        for number, (before, now) in enumerate(zip(expected, found, strict=False)):
            yield from differences(before, now, f"{where}[{number}]", tolerance)
    elif type(expected) is not type(found):
        yield f"{where}: {found!r} instead of {expected!r}"
    elif isinstance(expected, float):
        if not math.isclose(expected, found, rel_tol=tolerance, abs_tol=tolerance / 1000):
            yield f"{where}: {found!r} instead of {expected!r}"
    elif expected != found:
        yield f"{where}:\n  {found!r} instead of\n  {expected!r}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_found_is_found_again(name, tmp_path, monkeypatch):
    found = json.loads(json.dumps(SCENARIOS[name](tmp_path, monkeypatch)))
    path = FOLDER / f"{name}.json"
    if os.environ.get("BUDGETFLOW_GOLDEN") == "write":
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert "\n".join(differences(json.loads(path.read_text()), found)) == ""


def test_every_file_has_a_scenario():
    assert {path.stem for path in FOLDER.glob("*.json")} == {*SCENARIOS}
