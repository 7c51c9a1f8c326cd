"""Errors of the file system that holds studies, as one line that says what to do."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from etils import epath

from budgetflow.base.errors import UserError

# Errors and their texts: left out of the keys of results, see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

# Errors of writing name no file: these concern the studies' disk all the same.
_FULL = {errno.ENOSPC: "its disk is full", errno.EDQUOT: "its disk quota is used up"}
_WHY = _FULL | {
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOENT: "it, or its folder, is gone",
    errno.ENOTDIR: "a part of its path is a file",
    errno.EIO: "its disk does not work (input/output error)",
    errno.ESTALE: "its network file system has lost it",
}


def as_user_error(error: BaseException, folder: epath.PathLike | None = None) -> UserError | None:
    """The user error for an error of the file system; None if it is another kind of error.

    Args:
        error: what was raised; TensorStore's errors, which Orbax passes on, hold a number.
        folder: where the studies lie: an error that names a file elsewhere gives None. Where the
            folder is None, any file that is named is the studies' own.
    """
    numbers = re.findall(r"os_error_code='(\d+)'", str(error))
    if numbers:
        # TensorStore's own words name the file, in quotation marks.
        number, name = int(numbers[0]), next(iter(re.findall(r'"(/[^"]*)"', str(error))), None)
    elif isinstance(error, OSError) and error.errno is not None:
        number, name = error.errno, error.filename2 or error.filename
    else:
        return None
    if number not in _WHY:
        return None
    if name is None:
        if number not in _FULL and str(folder) not in str(error):
            return None
        name = folder or "the studies' folder"
    elif folder is not None and not epath.Path(str(name)).is_relative_to(folder):
        return None
    remedy = "free some space" if number in _FULL else "mend that"
    return UserError(
        f"{name} cannot be written or read: {_WHY[number]}. What is recorded is safe; {remedy} and "
        "launch again to go on from there"
    )


@contextlib.contextmanager
def clear_file_system_errors(folder: epath.PathLike) -> Iterator[None]:
    """Turns errors of the file system that holds a folder into user errors of one line.

    Raises:
        UserError: from such an error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (user_error := as_user_error(error, folder)) is None:
            raise
        raise user_error from error
