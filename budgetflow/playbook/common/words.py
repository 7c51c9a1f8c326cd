"""Words for studies of any kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

# So many are written out, where there may be more.
MOST_NUMBERS = 8


def words(name: str) -> str:
    """A name in words: "error_rate" is "error rate"."""
    return name.replace("_", " ")


def counted(number: int, what: str) -> str:
    """A number of things: "1 trial", "2 trials"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def first_of(numbers: Sequence[int]) -> str:
    """The first few of several numbers: "3, 5"; "0, 1, 2, 3, 4, 5, 6, 7, …"."""
    more = ", …" if len(numbers) > MOST_NUMBERS else ""
    return f"{', '.join(map(str, numbers[:MOST_NUMBERS]))}{more}"


def metrics_in_words(split: str, values: dict[str, float]) -> list[str]:
    """The metrics of a checkpoint on a split, like "validation error rate 0.0125"."""
    return [f"{split} {words(name)} {_in_digits(value)}" for name, value in values.items()]


def _in_digits(value: float | None) -> str:
    """A figure to four digits; "undefined" if it is none (JSON's null) or NaN."""
    return "undefined" if value is None or math.isnan(value) else f"{value:.4g}"


def gone_on(code: str) -> str:
    """What it means that a study was gone on with after its code had changed.

    Args:
        code: what of it changed, in words.
    """
    return (
        f"Not all of this study ran with the same code: {code} changed on the way, and it was gone "
        "on with under --same_results, which vouches that this changes no number."
    )


def in_words(value: Any) -> str:
    """A hyperparameter's value, in four digits where it is no whole number below ten million.

    Steps are whole, which JSON may have made floats of.
    """
    if not isinstance(value, float):
        return str(value)
    return str(int(value)) if value.is_integer() and abs(value) < 1e7 else f"{value:.4g}"
