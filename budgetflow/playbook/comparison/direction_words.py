"""How a configuration departs from the one a number of steps was found on, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from budgetflow.playbook.comparison.direction import Departure, Direction, Varied

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

_MEASURE = "config.kind = 'comparison' measures it"


def departures(rows: Sequence[Departure], found_by: str, factor: float) -> Iterator[str]:
    """What a study that takes its length from a sweep should know.

    Args:
        rows: how its config departs from the one that the sweep trained.
        found_by: the sweep's name.
        factor: ``config.max_train_steps_factor``, by which the answer is multiplied.
    """
    more, fewer, either = (_of(rows, way) for way in ("more", "fewer", "either"))
    if more:
        times = f"config.max_train_steps_factor = {factor:g}"
        if factor > 1:
            stands = f"{times} stands for that, unmeasured ({_MEASURE})"
        else:
            stands = f"{times} makes no allowance for that; how much is unmeasured ({_MEASURE})"
        yield (
            f"The answer of {found_by} was found on another configuration. Here "
            f"{in_words(more)} {_verb(more, 'brings', 'bring')} more gradient noise or "
            f"regularization, so more steps are needed: {stands}."
        )
    if fewer:
        yield (
            f"{_start(in_words(fewer))} {_verb(fewer, 'makes', 'make')} gradients less noisy than "
            f"in {found_by}, so fewer steps may do; the longer run is the safe side."
        )
    if either:
        yield (
            f"{_start(in_words(either))} can push the number of steps either way from the answer "
            f"of {found_by}: {'; '.join(dict.fromkeys(row.reason for row in either))}."
        )


def in_words(rows: Sequence[Departure]) -> str:
    """The changes of some fields, as the subject of a sentence."""
    changes = [f"{row.field} = {_shown(row.after)} instead of {_shown(row.before)}" for row in rows]
    if len(changes) == 1:
        return changes[0]
    return f"{', '.join(changes[:-1])} and {changes[-1]}"


def _of(rows: Sequence[Departure], direction: Direction) -> list[Departure]:
    return [row for row in rows if row.direction == direction]


def _verb(rows: Sequence[Departure], one: str, several: str) -> str:
    return one if len(rows) == 1 else several


def _start(text: str) -> str:
    """A text that begins with a field, for the beginning of a sentence."""
    return f"config.{text}"


def _shown(value: Any) -> str:
    if isinstance(value, Varied):
        numbers = all(isinstance(v, int | float) for v in value.values)
        if numbers and len(value.values) > 1:
            return f"{min(value.values):g} to {max(value.values):g}"
        return " or ".join(_shown(v) for v in value.values)
    return f"{value:g}" if isinstance(value, float) else str(value)
