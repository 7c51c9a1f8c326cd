"""Digests that earlier versions recorded count as today's where the code computes the same."""

import pytest

from budgetflow.base import equal_code
from budgetflow.base.equal_code import latest, with_todays_digests
from budgetflow.base.source_code import framework_source

NOW = framework_source()["source"]


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
