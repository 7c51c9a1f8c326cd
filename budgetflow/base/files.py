"""Atomic writing and checked reading of the small files in a study's folder, local or gs://.

Every JSON object carries the checksum of its content, so that a changed character is noticed even
where the file is still JSON, and a person may still read it. Files of earlier versions carry none.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

from etils import epath

from budgetflow.base.errors import DamagedFileError

# The key of a file's checksum, and how its value begins: who changes either leaves the other.
CHECKSUM, _HASH = "checksum", "sha256:"


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes ``text`` so that a reader sees the old file or the new one, never a part of it."""
    path = epath.Path(path)
    # Always the same name: what a kill left is overwritten, since each file has one writer.
    partial = path.parent / f".{path.name}.partial"
    try:
        partial.write_text(text)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
    partial.replace(path)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically. Non-finite numbers become null."""
    value = finite(value)
    if isinstance(value, dict):
        value = {**value, CHECKSUM: checksum_of(value)}
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_fields(path: epath.PathLike, fields: dict[str, Any]) -> None:
    """Like :func:`write_json`, but a field a line, which takes a quarter of the time."""
    lines = [f"  {json.dumps(name)}: {json_text(value)}" for name, value in fields.items()]
    as_read = json.loads("{" + ",".join(lines) + "}")
    lines.append(f'  "{CHECKSUM}": "{_checksum_as_read(as_read)}"')
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_json(path: epath.PathLike) -> Any:
    """Reads a JSON file, without its checksum.

    Raises:
        DamagedFileError: the file is not JSON, or not what was written.
    """
    return read_checked(path)[0]


def read_checked(path: epath.PathLike) -> tuple[Any, str | None]:
    """Reads a JSON file like :func:`read_json`; also its checksum, None if it carries none."""
    try:
        value = json.loads(epath.Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        return value, None
    recorded = value.pop(CHECKSUM, None)
    misnamed = any(isinstance(v, str) and v.startswith(_HASH) for v in value.values())
    if recorded is None and not misnamed:
        return value, None
    if recorded != _checksum_as_read(value):
        raise DamagedFileError(f"{path} is damaged: its checksum is that of another content")
    return value, recorded


def checksum_of(value: Any) -> str:
    """The checksum of what is written as JSON, however it is laid out in a file."""
    return _checksum_as_read(json.loads(json.dumps(value)))


def _checksum_as_read(value: Any) -> str:
    return checksum_of_lines([json.dumps(value, sort_keys=True).encode()])


def checksum_of_lines(lines: Iterable[bytes]) -> str:
    """The checksum of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line + b"\n")
    return _HASH + digest.hexdigest()


def write_rows(path: epath.PathLike, rows: Iterable[dict[str, Any]]) -> str:
    """Writes one JSON object a line, atomically; returns the checksum of the lines."""
    lines = [json_text(row) for row in rows]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return checksum_of_lines(line.encode() for line in lines)


def checksum_of_rows(rows: Iterable[dict[str, Any]]) -> str:
    """The checksum of what :func:`write_rows` writes, without writing it."""
    return checksum_of_lines(json_text(row).encode() for row in rows)


def read_lines(path: epath.PathLike) -> list[bytes]:
    """The lines of a file; no file has none."""
    try:
        return epath.Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []


def read_rows(path: epath.PathLike, lines: list[bytes] | None = None) -> list[dict[str, Any]]:
    """Reads what :func:`write_rows` wrote; no file is no rows. Null numbers come back as NaN.

    Args:
        path: the file.
        lines: its lines, if they have been read already.

    Raises:
        DamagedFileError: a line is not a JSON object; the message names the line.
    """
    path = epath.Path(path)
    lines = read_lines(path) if lines is None else lines
    try:
        rows = json.loads(b"[" + b",".join(lines) + b"]")  # at once: a tenth of the time
        if len(rows) != len(lines) or not all(map(_is_row, rows)):
            raise ValueError("not a measurement a line")
    except ValueError:
        rows = [_row(path, number, line) for number, line in enumerate(lines, start=1)]
    for row in rows:
        if None in row.values():
            row.update({key: math.nan for key, value in row.items() if value is None})
    return rows


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("step"), int)


def _row(path: epath.Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if not _is_row(row):
            raise ValueError("not a measurement")
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged in line {number}: {error}") from error
    return row


def json_text(value: Any) -> str:
    """``value`` as JSON, in one line. Non-finite numbers become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:  # rare, and to look for them takes longer than all else
        return json.dumps(finite(value))


def finite(value: Any) -> Any:
    """``value`` with every non-finite float replaced by None, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
