"""``forecasts.jsonl`` in a workdir: every forecast that a longer round has scored, one a line.

Each line carries its own checksum. A damaged one is named and stays as it is; the others are read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from budgetflow.base.files import CHECKSUM, checksum_of, json_text, read_lines, write_text

LEDGER = "forecasts.jsonl"


@dataclasses.dataclass(frozen=True)
class Ledger:
    """What a ledger holds.

    Attributes:
        rows: of its lines that are as they were written, in their order.
        damaged: the others, in words.
    """

    rows: tuple[dict[str, Any], ...] = ()
    damaged: tuple[str, ...] = ()


def read_ledger(workdir: epath.Path) -> Ledger:
    """Reads the ledger of a workdir; no file is an empty one."""
    path = workdir / LEDGER
    rows, damaged = [], []
    for number, line in enumerate(read_lines(path), start=1):
        row = _row(line)
        if row is None:
            damaged.append(f"line {number} of {path} is damaged (delete it, if no copy is at hand)")
        else:
            rows.append(row)
    return Ledger(tuple(rows), tuple(damaged))


def add_to_ledger(
    workdir: epath.Path, rows: Sequence[dict[str, Any]], name: Callable[[dict[str, Any]], str]
) -> None:
    """Adds rows to a workdir's ledger, but for those it holds already; whoever calls has it alone.

    Args:
        workdir: where it lies.
        rows: as JSON values.
        name: of a row: what no two rows of a ledger have in common.
    """
    names = {name(row) for row in read_ledger(workdir).rows}
    new = [row for row in rows if name(row) not in names]
    if not new:
        return
    lines = [line.decode(errors="replace") for line in read_lines(workdir / LEDGER)]
    lines += [json_text({**row, CHECKSUM: checksum_of(row)}) for row in new]
    write_text(workdir / LEDGER, "".join(f"{line}\n" for line in lines))


def _row(line: bytes) -> dict[str, Any] | None:
    """What a line holds, without its checksum; None if it is damaged."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or row.pop(CHECKSUM, None) != checksum_of(row):
        return None
    return row
