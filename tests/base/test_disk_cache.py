import sys

import pytest

from budgetflow.base import disk_cache
from budgetflow.base.disk_cache import cached_text
from budgetflow.base.files import read_json


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(disk_cache, "FOLDER", tmp_path / "kept")
    return tmp_path / "kept"


def never():
    raise AssertionError("it is kept")


def test_a_text_is_made_once_until_what_it_depends_on_changes(folder):
    assert cached_text("script", "1.0", lambda: "ä") == "ä"
    assert cached_text("script", "1.0", never) == "ä"
    assert cached_text("script", "1.1", lambda: "b") == "b"
    assert cached_text("script", "1.1", never) == "b"
    assert cached_text("another", "1.1", lambda: "c") == "c"


@pytest.mark.parametrize("damaged", ["", "[1]", "{}", '{"of": "1.0"}', '{"of": "0.9", "text": ""}'])
def test_what_is_kept_is_for_speed_only(folder, damaged):
    path = folder / "script.json"
    folder.mkdir()
    path.write_text(damaged)
    assert cached_text("script", "1.0", lambda: "as it is") == "as it is"
    assert read_json(path)["text"] == "as it is"


def test_a_changed_character_is_noticed(folder):
    cached_text("script", "1.0", lambda: "as it is")
    path = folder / "script.json"
    path.write_text(path.read_text().replace("as it is", "as it was"))
    assert cached_text("script", "1.0", lambda: "as it is") == "as it is"


def test_nothing_is_kept_where_python_keeps_nothing(folder, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert cached_text("script", "1.0", lambda: "a") == "a"
    assert not folder.exists()
