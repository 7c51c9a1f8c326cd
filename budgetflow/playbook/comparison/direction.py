"""Which way a change of the configuration pushes the number of steps that training needs.

The playbook, "Deciding how long to train": what increases the variance of the gradient across
batches (smaller batches, more augmentation, some regularization such as dropout) tends to raise the
number of steps; a better optimizer or a better schedule can lower it; where the architecture or the
data changes, it may change either way. These are directions and no amounts; kind "comparison"
measures the amount (:mod:`budgetflow.playbook.comparison.policy`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Direction = Literal["more", "fewer", "either", "none"]

# Of data.transform: its randomness switched off, as for a sweep, and on.
NOT_RANDOM, RANDOM = "without randomness", "with randomness"
# Of the sections whose every strength adds noise: the reason.
_ADDS_NOISE = {
    "regularization": "regularization adds gradient noise, or works against the fit itself",
    "augmentation": "augmentation adds gradient noise",
}
_OPTIMIZER = "a better optimizer needs fewer steps, a worse one more"
# Of other sections and fields: the direction, and the reason.
_OTHERS: dict[str, tuple[Direction, str]] = {
    "model": ("either", "another architecture can need more steps or fewer"),
    "data": ("either", "other data can need more steps or fewer"),
    "task": ("either", "another task or loss can need more steps or fewer"),
    "optimizer": ("either", _OPTIMIZER),
    "clip_gradient_norm": ("either", _OPTIMIZER),
    "ema_decay": ("either", _OPTIMIZER),
    "weight_decay_mask": ("either", "other parameters decay, which can need more steps or fewer"),
    "schedule": ("either", "a better schedule needs fewer steps, a worse one more"),
    "precision": ("either", "rounding can need more steps or fewer"),
    "seed": ("none", "another seed draws another sample of the same noise"),
    "gradient_accumulation": ("none", "the update is that of the whole batch all the same"),
    "mesh": ("none", "where a trial runs changes no more than the order of sums"),
}


@dataclasses.dataclass(frozen=True)
class Varied:
    """The values that a field can have in the trials of a study: all, or the ends of a range."""

    values: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """A field that differs between two configurations.

    Attributes:
        field: its dotted key.
        before, after: its values without and with the change; a :class:`Varied` where a study
            varies it.
        expected: which way the playbook says that this pushes the number of steps; "either" where
            it does not say.
    """

    field: str
    before: Any
    after: Any
    expected: Direction = "either"


class Departure(NamedTuple):
    """A change from the configuration on which a number of steps was found.

    Attributes:
        change: what differs.
        reason: why it pushes the number of steps that way.
    """

    change: Change
    reason: str


def directions(changed: Mapping[str, tuple[Any, Any]]) -> tuple[Departure, ...]:
    """Which way each change of a field pushes the number of steps.

    Args:
        changed: dotted key of the config to the values before and after.
    """
    rows = []
    for field, (before, after) in changed.items():
        values = after.values if isinstance(after, Varied) else (after,)
        ways_and_reasons = {_direction(field, before, value) for value in values if value != before}
        if not ways_and_reasons:
            continue
        direction, reason = ways_and_reasons.pop()
        if any(way != direction for way, _ in ways_and_reasons):
            direction, reason = "either", "its values lie on both sides"
        change = Change(field=field, before=before, after=after, expected=direction)
        rows.append(Departure(change, reason))
    return tuple(rows)


def _direction(field: str, before: Any, after: Any) -> tuple[Direction, str]:
    """The direction of one change, and the reason."""
    section = field.partition(".")[0]
    if field == "data.batch_size":
        if after < before:
            return "more", "smaller batches have noisier gradients"
        return "fewer", "larger batches have less noisy gradients"
    if (before, after) == (NOT_RANDOM, RANDOM):
        return "more", "a random transform is augmentation, which adds gradient noise"
    if section in _ADDS_NOISE and all(isinstance(value, int | float) for value in (before, after)):
        if after > before:
            return "more", _ADDS_NOISE[section]
        return "fewer", f"{_ADDS_NOISE[section]}, and there is less of it"
    return _OTHERS.get(section, ("either", "nothing is known of this field"))
