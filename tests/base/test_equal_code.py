"""Digests that earlier versions recorded count as today's where the code computes the same."""

import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from budgetflow.base import equal_code
from budgetflow.base.equal_code import latest, with_todays_digests
from budgetflow.base.source_code import framework_source

NOW = framework_source()["source"]
SHIPPED = dict(equal_code.EQUAL)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    equal = {"first": "second", "second": NOW, "a b": "c", "c": "d", "p1": "p2"}
    monkeypatch.setattr(equal_code, "EQUAL", equal)


def key(source, code, **more):
    return {"seed": 0, "code": code, "budgetflow": {"source": source, **more}}


def test_the_latest_of_a_chain_of_equal_code_counts():
    assert [latest(digest) for digest in ("first", "second", NOW, "other")] == [
        NOW,
        NOW,
        NOW,
        "other",
    ]


def test_a_key_of_the_first_version_is_todays_where_code_computes_the_same():
    modules = {"budgetflow.models.dropout": "a", "budgetflow.models.mlp": "b"}
    code = {"model.name": modules, "task.name": {"my_lab": "e"}}
    recorded = key("first", code, version="0.1.0")
    assert with_todays_digests(recorded) == key(
        NOW, {"model.name": {"budgetflow": "d"}, "task.name": {"my_lab": "e"}}
    )
    today = key(
        NOW, {"kind": {"budgetflow": "p2"}, "task.name": {"my_lab": "f", "budgetflow": "g"}}
    )
    assert with_todays_digests(recorded, today) == key(
        NOW,
        {
            "model.name": {"budgetflow": "d"},
            "task.name": {"my_lab": "e", "budgetflow": "g"},
            "kind": {"budgetflow": "p2"},
        },
    )


def test_a_key_of_a_later_version_is_todays_digest_by_digest():
    code = {"kind": {"budgetflow": "p1", "my_lab": "e"}, "model.name": {"budgetflow": "x"}}
    renewed = with_todays_digests(key("second", code), key(NOW, {"task.name": {"budgetflow": "y"}}))
    assert renewed == key(
        NOW, {"kind": {"budgetflow": "p2", "my_lab": "e"}, "model.name": {"budgetflow": "x"}}
    )


@pytest.mark.parametrize(
    "recorded",
    [
        key("other", {"model.name": {"budgetflow.models.mlp": "b"}}, version="0.1.0"),
        key("other", {"model.name": {"budgetflow": "x"}}),
        key(NOW, {}),
        {},
    ],
)
def test_what_was_recorded_of_other_code_stays_as_it_is(recorded):
    assert with_todays_digests(recorded) == recorded


def test_what_the_first_version_trained_is_still_reused(monkeypatch):
    """Fails where engine/ has changed; if no number has: scripts/record_equal_code REVISION."""
    monkeypatch.setattr(equal_code, "EQUAL", SHIPPED)
    assert latest("898d8bba6ee6ed31") == NOW
    assert not {NOW} & SHIPPED.keys()


DIGESTS = """
from budgetflow.base.equal_code import latest
from budgetflow.base.source_code import framework_source
print(framework_source()["source"], *map(latest, {digests}))
"""


@pytest.mark.slow
def test_a_tool_records_that_changed_code_computes_the_same(tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, copy], check=True)
    for folder in ("budgetflow", "scripts"):  # as they are now, committed or not
        shutil.copytree(REPOSITORY / folder, copy / folder, dirs_exist_ok=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", *identity, "commit", "--quiet", "--all", "--allow-empty", "--message=now"]
    subprocess.run(command, cwd=copy, check=True)

    def digests(*others):
        program = DIGESTS.format(digests=others)
        command = [sys.executable, "-c", program]
        result = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True)
        return result.stdout.split()

    (before,) = digests()
    schedules = copy / "budgetflow" / "engine" / "schedules.py"
    text = schedules.read_text()
    schedules.write_text(text + "\n\nADDED = 1\n")
    now, not_equal = digests(before)
    assert now != before == not_equal
    command = [sys.executable, copy / "scripts" / "record_equal_code", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "digests of HEAD are those of other code today" in result.stdout
    assert digests(before, "898d8bba6ee6ed31") == [now, now, now]
    # A change that is undone ends the chain where it began.
    subprocess.run([*command[:2], "HEAD"], check=True, capture_output=True)
    schedules.write_text(text)
    subprocess.run(command, check=True, capture_output=True)
    assert digests(before)[0] == digests(before)[1] == before
