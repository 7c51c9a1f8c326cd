"""The folder that holds studies: local, or in a bucket."""

from __future__ import annotations

import os
import tempfile

from etils import epath

from budgetflow.base.errors import UserError, shown


def open_workdir(workdir: str, flag: str = "--workdir") -> epath.Path:
    """The folder that --workdir (or another flag) names, as an absolute path; creates nothing.

    Raises:
        UserError: it cannot be a folder, or cannot be reached or written.
    """
    where = f"{flag}={workdir}"
    scheme, is_url, _ = workdir.partition("://")
    if not workdir or not workdir.isprintable():
        raise UserError(f"{flag}={workdir!r}: should be a folder, such as runs or gs://bucket/runs")
    try:
        path = absolute(workdir)
        is_there, is_folder = path.exists(), path.is_dir()
    except KeyError as error:
        raise UserError(
            f"{where}: {scheme}:// is not known; use a folder, gs://… or s3://…"
        ) from error
    except Exception as error:  # a missing library, no credentials, no network
        raise UserError(f"{where} cannot be reached: {type(error).__name__}: {error}") from error
    if is_there and not is_folder:
        raise UserError(f"{where} is a file; name a folder")
    if not is_url and "\\" in os.fspath(path):
        raise UserError(f"{where}: checkpoints cannot lie under a backslash; name another folder")
    if not is_url:
        _check_writable(os.fspath(path), where)
    return path


def absolute(path: epath.PathLike) -> epath.Path:
    """A path as Orbax needs it; that of a bucket is absolute already."""
    given = os.fspath(path)
    return epath.Path(given if "://" in given else os.path.abspath(os.path.expanduser(given)))


def _check_writable(path: str, where: str) -> None:
    """Checks that a local folder can be made or written to, by its nearest parent that exists."""
    existing = path
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    too_long = [part for part in path.split(os.sep) if len(os.fsencode(part)) > 255]
    try:
        if too_long:
            raise OSError(f"{shown(too_long[0])} is too long for a name")
        with tempfile.TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"{where} cannot be written: {error.strerror or error}; name another folder"
        ) from error
