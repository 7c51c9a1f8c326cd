"""What the file system refuses while studies run, in one line that says what to do."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from etils import epath

from budgetflow.base.errors import UserError

# Errors of these kinds concern the studies' disk even where no file is named, as in writing.
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
_REMEDY = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
}


def refusal(error: BaseException, folder: epath.PathLike | None = None) -> UserError | None:
    """What the file system refused, for people; None if the error is of another kind.

    Args:
        error: what was raised; TensorStore's errors, which Orbax hands on, hold a number.
        folder: where the studies lie: an error that names a file elsewhere is no refusal. None
            where whatever file is named is the studies' own.
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
    remedy = _REMEDY.get(number, "mend that")
    return UserError(
        f"{name} cannot be written or read: {_WHY[number]}. What is recorded is safe; {remedy} and "
        "launch again to go on from there"
    )


@contextlib.contextmanager
def told_in_one_line(folder: epath.PathLike) -> Iterator[None]:
    """Makes refusals of the file system that holds a folder into errors of one line.

    Raises:
        UserError: it refused something.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (told := refusal(error, folder)) is None:
            raise
        raise told from error
