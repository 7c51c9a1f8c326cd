"""What processes send each other comes back exactly, and a message makes nothing but values."""

import dataclasses
import json
import os
import struct
import sys

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from budgetflow.base.errors import ConfigError, DamagedFileError, UserError
from budgetflow.base.messages import from_bytes, to_bytes
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Add, Advance, Conclude, TrialRecord
from budgetflow.playbook.common.outcomes import Outcome

BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", bits.to_bytes(8))[0])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | BITS | st.text()
KEYS = PLAIN | st.tuples(st.integers(), st.text())


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnOutcome(Outcome):
    """The outcome of a user's own kind of study."""

    told: tuple[float, ...]


def containers(values):
    return (
        st.lists(values)
        | st.lists(values).map(tuple)
        | st.dictionaries(KEYS, values)
        | st.builds(Add, st.dictionaries(st.integers(), st.dictionaries(st.text(), values)))
        | st.builds(Advance, st.lists(values).map(tuple), values, values)
    )


def assert_same(found, value):
    """Compares types, the order of keys and the bits of floats, all the way down."""
    assert type(found) is type(value)
    if isinstance(value, float):
        assert struct.pack(">d", found) == struct.pack(">d", value)
    elif isinstance(value, list | tuple):
        assert len(found) == len(value)
        for one, other in zip(found, value, strict=True):
            assert_same(one, other)
    elif isinstance(value, dict):
        assert_same(list(found.items()), list(value.items()))
    elif dataclasses.is_dataclass(value):
        assert_same(vars(found), vars(value))
    else:
        assert found == value


@given(st.recursive(PLAIN, containers, max_leaves=20))
def test_a_value_comes_back_exactly(value):
    assert_same(from_bytes(to_bytes(value)), value)


def test_what_policies_and_readers_find_comes_back_exactly():
    schedule = Schedule(base_learning_rate=0.1, warmup_steps=2, constant_steps=3)
    rows = ({"step": 3, "train_loss": float("nan"), "validation_error_rate": -0.0},)
    record = TrialRecord(0, {"model.sizes": (3, 4)}, schedule, 1, 5, status="running", rows=rows)
    outcome = OwnOutcome(max_train_steps=None, steps_trained=5, told=(float("inf"), 1e-320))
    values = {7: record, "decision": Conclude(outcome), "folder": epath.Path("gs://bucket/runs")}
    assert_same(from_bytes(to_bytes(values)), values)


@pytest.mark.parametrize(
    "error",
    [
        UserError("one\ntwo"),
        ConfigError("x"),
        DamagedFileError("x"),
        OSError(28, "No space left on device", "/w/x"),
        FileNotFoundError(2, "No such file or directory", "/w/x"),
        OSError(18, "Invalid cross-device link", "/w/x", None, "/v/x"),
        PermissionError("without a number"),
    ],
    ids=repr,
)
def test_an_error_comes_back_with_all_that_it_says(error):
    found = from_bytes(to_bytes((None, error)))[1]
    assert (type(found), str(found), found.args) == (type(error), str(error), error.args)
    if isinstance(error, OSError):
        names = ("errno", "strerror", "filename", "filename2")
        assert [getattr(found, n) for n in names] == [getattr(error, n) for n in names]


def test_of_an_unknown_error_the_nearest_base_is_sent():
    class OwnError(ConfigError):
        pass

    assert type(from_bytes(to_bytes(OwnError("x")))) is ConfigError
    assert type(from_bytes(to_bytes(BrokenPipeError(32, "x")))) is ConnectionError


@dataclasses.dataclass(frozen=True)
class Foreign:
    x: int


@pytest.mark.parametrize(
    "value",
    [np.float64(0.5), np.arange(3), {1, 2}, b"x", Foreign(1), os.getcwd, Outcome, object()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_known_value_is_not_sent(value):
    with pytest.raises(TypeError, match="cannot be sent between processes"):
        to_bytes({"a": [value]})


def a_dataclass(module, name, **fields):
    return {"dataclass": [module, name, {"dict": [[k, v] for k, v in fields.items()]}]}


LAZY = {"module_name": "this", "adhoc_kwargs": None, "error_callback": None}
MEASUREMENT = "budgetflow.playbook.common.measurement"


@pytest.mark.parametrize(
    "content",
    [
        a_dataclass("etils.epy.lazy_imports_utils", "LazyModule", **LAZY),
        a_dataclass("numpy", "memmap", filename="made", dtype="uint8", mode="w+"),
        a_dataclass("os", "mkdir", path="made"),
        a_dataclass("this", "x"),
        a_dataclass(__name__, "Foreign", x=1),
        a_dataclass("budgetflow.base.processes", "exit_at_once", status=0),
        a_dataclass(MEASUREMENT, "Advance", trials=1),  # lacks a field
        a_dataclass(MEASUREMENT, "Conclude", outcome=1, more=2),
        a_dataclass(MEASUREMENT, "Schedule.__init__"),
        {"error": ["SystemExit", "3"]},
        {"error": ["memmap", "made", "uint8", "w+"]},
        {"eval": "1"},
        {"tuple": [], "dict": []},
        {"float": "00"},
        {},
    ],
    ids=str,
)
def test_a_message_of_anything_else_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        from_bytes(json.dumps({"tuple": [content]}).encode())
    assert not list(tmp_path.iterdir()) and "this" not in sys.modules
