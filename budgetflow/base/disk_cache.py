"""A cache on disk, beside what Python has compiled, for texts that are slow to make."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import read_json, write_json

FOLDER = Path(__file__).parents[1] / "__pycache__"


def cached_text(name: str, of: str, make: Callable[[], str]) -> str:
    """A text from the cache, or made now.

    It is cached only where Python may cache what it compiles.

    Args:
        name: of the file.
        of: all that the text depends on; with another value the text is made anew.
        make: makes it.
    """
    path = FOLDER / f"{name}.json"
    with contextlib.suppress(OSError, DamagedFileError, KeyError, TypeError):
        cached = read_json(path)
        if cached["of"] == of:
            return str(cached["text"])
    text = make()
    if not sys.dont_write_bytecode:
        with contextlib.suppress(OSError):  # where others installed it
            write_json(path, {"of": of, "text": text})
    return text
