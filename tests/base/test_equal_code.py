"""Digests that earlier versions recorded count as today's where the code computes the same."""

import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from budgetflow.base.equal_code import EQUAL
from budgetflow.base.source_code import framework_source, policy_digests, source_digests
from budgetflow.studies.kinds import KINDS
from budgetflow.studies.store import recorded_code
from budgetflow.studies.store.recorded_code import latest, with_todays_digests

NOW = framework_source()["source"]


@pytest.fixture
def table(monkeypatch):
    equal = {
        **{"first": "second", "second": NOW, "a b": "c", "c": "d", "p1": "p2"},
        "first lr_sweep": "p1",
    }
    monkeypatch.setattr(recorded_code, "EQUAL", equal)


def key(source, code, kind="round", **more):
    return {"seed": 0, "kind": kind, "code": code, "budgetflow": {"source": source, **more}}


def test_the_latest_of_a_chain_of_equal_code_counts(table):
    assert [latest(name) for name in ("first", "second", NOW, "other")] == [NOW, NOW, NOW, "other"]


def test_a_key_of_the_first_version_is_todays_where_code_computes_the_same(table):
    modules = {"budgetflow.models.dropout": "a", "budgetflow.models.mlp": "b"}
    code = {"model.name": modules, "task.name": {"my_lab": "e"}}
    today = {"model.name": {"budgetflow": "d"}, "task.name": {"my_lab": "e"}}
    assert with_todays_digests(key("first", code, version="0.1.0")) == key(NOW, today)
    # It recorded nothing of what decides: its own kinds of study are in the table.
    recorded = key("first", code, "lr_sweep", version="0.1.0")
    today["kind"] = {"budgetflow": "p2"}
    assert with_todays_digests(recorded) == key(NOW, today, "lr_sweep")


def test_a_key_of_a_later_version_is_todays_digest_by_digest(table):
    code = {"kind": {"budgetflow": "p1", "my_lab": "e"}, "model.name": {"budgetflow": "x"}}
    today = {"kind": {"budgetflow": "p2", "my_lab": "e"}, "model.name": {"budgetflow": "x"}}
    assert with_todays_digests(key("second", code, "lr_sweep")) == key(NOW, today, "lr_sweep")


@pytest.mark.parametrize(
    "recorded",
    [
        key("other", {"model.name": {"budgetflow.models.mlp": "b"}}, version="0.1.0"),
        key("other", {"model.name": {"budgetflow": "x"}}),
        key(NOW, {}),
        {},
    ],
)
def test_what_was_recorded_of_other_code_stays_as_it_is(table, recorded):
    assert with_todays_digests(recorded) == recorded


CONFIGURABLE = (
    *(f"models.{model}" for model in ("MLP", "ConvNet", "ResNet", "Transformer")),
    *(f"tasks.{task}" for task in ("Classification", "LanguageModeling", "Regression")),
    *(f"data.{name}" for name in ("text.pydoc_topics", "diabetes.diabetes")),
    *("data.fashion_mnist.fashion_mnist", "data.augment.augment_images"),
)


def test_what_the_first_version_trained_is_still_reused():
    """Fails where such code has changed; if no number has: scripts/record_equal_code REVISION."""
    policies = {policy_digests(kind.decide, None)["budgetflow"] for kind in KINDS.values()}
    of_configs = {source_digests(f"budgetflow.{n}", "")["budgetflow"] for n in CONFIGURABLE}
    today = {NOW} | policies | of_configs
    assert {latest(digest) for digest in EQUAL} == today
    assert not today & EQUAL.keys()
    assert latest("898d8bba6ee6ed31") == NOW


DIGESTS = """
from budgetflow.studies.store.recorded_code import latest
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
    commit = ["git", *identity, "commit", "--quiet", "--allow-empty", "--message=now"]
    for command in (["git", "add", "--all"], commit):
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
    command = [sys.executable, copy / "scripts" / "record_equal_code.py", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "digests of HEAD are those of other code today" in result.stdout
    assert digests(before, "898d8bba6ee6ed31") == [now, now, now]
    # A change that is undone ends the chain where it began.
    subprocess.run([*command[:2], "HEAD"], check=True, capture_output=True)
    schedules.write_text(text)
    subprocess.run(command, check=True, capture_output=True)
    assert digests(before)[0] == digests(before)[1] == before
