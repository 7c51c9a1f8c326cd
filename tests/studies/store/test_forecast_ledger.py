import json

import pytest
from etils import epath

from budgetflow.results.checking import ledger_checks
from budgetflow.studies.store.forecast_ledger import LEDGER, add_to_ledger, read_ledger


def add(folder, *names):
    add_to_ledger(folder, [{"name": name, "came": 1.25} for name in names], lambda r: r["name"])


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_a_ledger_has_one_line_of_each_name(folder):
    assert read_ledger(folder).rows == ()
    add(folder, "a", "b")
    add(folder, "b", "c")
    assert [row["name"] for row in read_ledger(folder).rows] == ["a", "b", "c"]
    lines = (folder / LEDGER).read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "damage", [lambda line: line.replace("1.25", "1.26"), lambda line: line[:20], lambda line: "[]"]
)
def test_a_damaged_line_is_named_and_the_others_are_read_and_kept(folder, damage):
    add(folder, "a", "b", "c")
    lines = (folder / LEDGER).read_text().splitlines()
    (folder / LEDGER).write_text("\n".join([lines[0], damage(lines[1]), lines[2]]) + "\n")
    ledger = read_ledger(folder)
    assert [row["name"] for row in ledger.rows] == ["a", "c"]
    (words,) = ledger.damaged
    assert "line 2 of" in words and LEDGER in words
    (check,) = ledger_checks(folder)
    assert check.damage() == words
    add(folder, "d")
    assert [row["name"] for row in read_ledger(folder).rows] == ["a", "c", "d"]
    assert len(read_ledger(folder).damaged) == 1
