import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import finite, read_json, read_rows, write_json, write_rows, write_text

NUMBERS = st.floats() | st.integers(-(2**53), 2**53)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"step": st.integers(0, 10**12), "train_loss": st.floats(), "note": st.text(max_size=5)}
    ),
    max_size=6,
)

modest = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("files"))


def without_non_finite(value):
    if isinstance(value, dict):
        return {key: without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@modest
@given(value=VALUES)
def test_json_comes_back_with_null_for_every_non_finite_number(folder, value):
    path = folder / "value.json"
    write_json(path, value)
    assert read_json(path) == without_non_finite(value)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_finite_looks_into_every_container_and_keeps_what_is_finite():
    value = {"a": [1.5, math.nan, (math.inf, 2)], "b": {"c": -math.inf, "d": True, "e": "nan"}}
    assert finite(value) == {"a": [1.5, None, [None, 2]], "b": {"c": None, "d": True, "e": "nan"}}


def test_missing_folders_are_made_and_nothing_but_the_file_is_left(tmp_path):
    path = tmp_path / "study" / "trials" / "0000" / "trial.json"
    write_json(path, {"step": 1})
    write_json(path, {"step": 2})
    assert read_json(path) == {"step": 2}
    assert [file.name for file in path.parent.iterdir()] == ["trial.json"]


@pytest.mark.parametrize(
    "failing_write",
    [
        lambda path: write_json(path, {"fine": 1, "not JSON": object()}),
        lambda path: write_rows(path, [{"step": 2}, {"step": object()}]),
        lambda path: write_text(path, "x" * 100_000 + "\ud800"),  # cannot be encoded
    ],
    ids=["write_json", "write_rows", "write_text"],
)
def test_a_write_that_fails_leaves_the_old_file(tmp_path, failing_write):
    path = tmp_path / "file"
    write_rows(path, [{"step": 1}])
    with pytest.raises((TypeError, UnicodeEncodeError)):
        failing_write(path)
    assert read_rows(path) == [{"step": 1}]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path):
    path = tmp_path / "value.json"
    contents = [list(range(20_000)), ["short"]]
    write_json(path, contents[0])
    problems, done = [], threading.Event()

    def read():
        while not done.is_set():
            try:
                if read_json(path) not in contents:
                    problems.append("other content")
            except Exception as error:
                problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        write_json(path, contents[i % 2])
    done.set()
    reader.join()
    assert problems == []


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "value.json"
    program = (
        "import itertools, sys; from budgetflow.base.files import write_json\n"
        "for i in itertools.count(): write_json(sys.argv[1], [i] * 50_000)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, os.fspath(path)])
    while not path.exists() and writer.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    value = read_json(path)
    assert len(value) == 50_000
    assert len(set(value)) == 1


@modest
@given(
    value=st.dictionaries(st.text(max_size=3), SCALARS, max_size=4),
    keep=st.floats(0, 1),
)
def test_a_truncated_json_file_is_refused_by_name(folder, value, keep):
    path = folder / "truncated.json"
    write_json(path, value)
    content = path.read_bytes().rstrip()
    path.write_bytes(content[: int(keep * (len(content) - 1))])
    with pytest.raises(DamagedFileError, match=r"truncated\.json"):
        read_json(path)


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": \xff\xfe}', b"\x00" * 40])
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / "outcome.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


@modest
@given(rows=ROWS)
def test_rows_come_back_with_nan_for_every_non_finite_number(folder, rows):
    path = folder / "measurements.jsonl"
    write_rows(path, rows)
    back = read_rows(path)
    assert len(back) == len(rows)
    for written, read in zip(rows, back, strict=True):
        assert read.keys() == written.keys()
        assert (read["step"], read["note"]) == (written["step"], written["note"])
        if math.isfinite(written["train_loss"]):
            assert read["train_loss"] == written["train_loss"]
        else:
            assert math.isnan(read["train_loss"])


def test_no_file_is_no_rows(tmp_path):
    assert read_rows(tmp_path / "measurements.jsonl") == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b'{"step": 2, "train_lo',
        b"[2]",
        b"2",
        b"null",
        b'{"train_loss": 0.5}',
        b'{"step": "2"}',
        b'{"step": 2.5}',
        b'{"step": null}',
        b'{"step": 2, "note": "\xff"}',
        b"\x00\x00\x00\x00",
    ],
)
def test_a_damaged_row_is_refused_with_the_file_and_line_named(tmp_path, line):
    path = tmp_path / "measurements.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(DamagedFileError) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert "line 2" in str(caught.value)
