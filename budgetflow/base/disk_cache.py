"""What takes a second to make, kept for the next process beside what Python has compiled."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import read_json, write_json

FOLDER = Path(__file__).parents[1] / "__pycache__"


def kept(name: str, of: str, make: Callable[[], str]) -> str:
    """A text as it was made before, or made now.

    It is kept where Python may keep what it compiles, and not where it may not.

    Args:
        name: of the file.
        of: all that the text depends on; one of something else is made anew.
        make: makes it.
    """
    path = FOLDER / f"{name}.json"
    with contextlib.suppress(OSError, DamagedFileError, KeyError, TypeError):
        known = read_json(path)
        if known["of"] == of:
            return str(known["text"])
    text = make()
    if not sys.dont_write_bytecode:
        with contextlib.suppress(OSError):  # where others installed it
            write_json(path, {"of": of, "text": text})
    return text
