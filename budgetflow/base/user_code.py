"""Errors that a user's own code raises, as one line that names the code and the place in it."""

from __future__ import annotations

import contextlib
import os
import sysconfig
import traceback
from collections.abc import Iterator

from budgetflow.base.errors import ConfigError, UserError

# Errors and their texts: left out of the keys of results, see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

# Frames in these folders are no user's: the standard library, installed packages, this package.
_LIBRARIES = tuple(
    os.path.realpath(folder) + os.sep
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        os.path.dirname(os.path.dirname(__file__)),
    }
)


@contextlib.contextmanager
def user_code(field: str, path: str | None = None) -> Iterator[None]:
    """Turns whatever a call of a user's code raises into a ConfigError of one line.

        with user_code("config.model.name", "my_lab.models.ResNet"):
            model = model_class(...)

    Errors of budgetflow's own pass through, and so does Ctrl-C.

    Args:
        field: the config field that names the code, or a file.
        path: what the field names: the code's import path.

    Raises:
        ConfigError: from the error, with its type, message, and place in the user's file.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # some modules exit where they are imported
        what = field if path is None else f"{field} = {path!r}"
        raise ConfigError(
            f"{what} raised {type(error).__name__}: {_message(error)}{location(error)}"
        ) from error


def location(error: BaseException) -> str:
    """The place in a user's file that an error came from, as " (file.py:12)"; "" if in none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_shown(error.filename)}:{error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        # The names of code that lies in no file begin with "<".
        if not frame.filename.startswith("<") and not _is_library(frame.filename):
            return f" ({_shown(frame.filename)}:{frame.lineno})"
    return ""


def _message(error: BaseException) -> str:
    text = str(error.msg if isinstance(error, SyntaxError) else error).strip()
    return text.splitlines()[0] if text else "no message"


def _is_library(filename: str) -> bool:
    return os.path.realpath(filename).startswith(_LIBRARIES)


def _shown(filename: str) -> str:
    """A path from the working directory or in full, whichever is shorter."""
    return min(os.path.relpath(filename), os.path.abspath(filename), key=len)
