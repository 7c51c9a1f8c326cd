"""The search space of the next, longer round, by the tags and the results of this one.

The tags (:mod:`budgetflow.playbook.derived.transfer_tags`) decide what becomes of each
hyperparameter, the trials that compete for the best result how far to look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from budgetflow.base.errors import ConfigError, nearest, shown
from budgetflow.config.search_space import BASE_LEARNING_RATE, Action, Dimension, Tag, Value
from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import Selection, TrialRecord, by_setting
from budgetflow.playbook.derived.narrowing import Edge, How, Narrowed, edge, in_order, narrow
from budgetflow.playbook.derived.next_length import SWEEP_FACTORS, NextLength, next_length
from budgetflow.playbook.derived.transfer_tags import default_tag

ACTIONS: tuple[Action, ...] = get_args(Action)
Overrides = Mapping[str, Action | Dimension]

_BY_TAG: dict[Tag, Action] = {
    "very_likely": "pinned",
    "likely": "winner_only",
    "might": "narrowed",
    "unlikely": "swept",
}
DECAY_LENGTHS = ("schedule.decay_steps", "schedule.decay_fraction")
# The fields of a schedule that are swept by default: cheap, since runs share the steps before their
# decays. The others, such as the decay's family, come with the winner.
SWEPT_AROUND_WINNER = (BASE_LEARNING_RATE, *DECAY_LENGTHS)


class NothingToCarryOverError(ValueError):
    """Every trial diverged, so that there is no winner to start the next round from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedField:
    """What will become of a hyperparameter of a round that has not run yet.

    Attributes:
        field: the config field.
        tag: how likely its best value is to transfer.
        tagged_by: whether the tag is the config's or the playbook's.
        action: "pinned" to the winner's value; "winner_only", the same for an architecture and
            others that are not settled but not looked at again; "narrowed" to a neighbourhood of
            the winner's value; "swept" anew.
        overridden: whether the action is the config's instead of the tag's.
    """

    field: str
    tag: Tag
    tagged_by: Literal["config", "playbook"]
    action: Action
    overridden: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class CarriedField(PlannedField):
    """What becomes of a hyperparameter in the next round, with the evidence.

    All values are those of the next round's length: a warmup of a tenth of 1,000 steps is one of a
    twentieth of 2,000.

    Attributes:
        value: the winner's.
        searched: how the next round looks for another value: anew within ("whole") or around
            ("around") what was tried, close to the trials that compete ("spread"), in all of it
            since they are too few to tell ("too_few"), in a dimension of the config's
            ("dimension"); None if it does not.
        distribution, low, high, values: of the dimension that is searched; None and () if none is,
            as where a single choice is left.
        low_before, high_before, values_before: of the dimension that was searched.
        competing: how many different settings compete for the best result.
        competing_low, competing_high: the ends of their values; None for values without an order.
        competing_values: their different values, for choices, the winner's first.
        at_edge: whether the winner lies at an end of what was tried.
    """

    value: Value
    searched: How | None = None
    distribution: Literal["choices", "uniform", "log_uniform"] | None = None
    low: float | None = None
    high: float | None = None
    values: tuple[Value, ...] = ()
    low_before: float | None = None
    high_before: float | None = None
    values_before: tuple[Value, ...] = ()
    competing: int = 0
    competing_low: float | None = None
    competing_high: float | None = None
    competing_values: tuple[Value, ...] = ()
    at_edge: Edge | None = None

    @property
    def dimension(self) -> Dimension | None:
        """The dimension that the next round searches; None if it has the winner's value alone."""
        if self.distribution is None:
            return None
        ends: dict[str, Any] = {"low": self.low, "high": self.high} if self.low is not None else {}
        return Dimension(self.field, self.distribution, self.values, **ends, tag=self.tag)

    @property
    def searched_dimension(self) -> Dimension:
        """The dimension that a further round is derived from: a pinned value is the only choice."""
        dimension = self.dimension or Dimension(self.field, "choices", (self.value,))
        return dataclasses.replace(dimension, tag=self.tag if self.tagged_by == "config" else None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derivation:
    """The search space of the next round.

    Attributes:
        rows: what becomes of each dimension of the search space.
        best_trial: the winner, whose values are carried over.
        no_schedule_because: why no rule carries its schedule over to the next length; the lengths
            of its schedule then stay as they are, in steps.
    """

    rows: tuple[CarriedField, ...]
    best_trial: int
    no_schedule_because: str | None = None

    @property
    def winner(self) -> dict[str, Value]:
        """The winner's setting, at the next round's length."""
        return {row.field: row.value for row in self.rows}

    @property
    def space(self) -> tuple[Dimension, ...]:
        """The dimensions that are searched."""
        return tuple(row.dimension for row in self.rows if row.dimension)


def plan(space: Sequence[Dimension], overrides: Overrides) -> tuple[PlannedField, ...]:
    """The plan for each dimension of a round that has not run yet.

    Raises:
        ConfigError: an override is of no dimension, or no action.
    """
    _check_overrides(space, overrides)
    return tuple(_planned(dimension, overrides) for dimension in space)


def derive(
    space: Sequence[Dimension],
    records: Sequence[TrialRecord],
    selection: Selection,
    overrides: Overrides,
    *,
    max_train_steps: int,
) -> Derivation:
    """The next round's search space, by the tags of this one and the results of its trials.

    - "very_likely" is pinned to the winner's value, "likely" has the winner's value only.
    - "might" is narrowed to a neighbourhood of the trials that compete for the best result
      (:func:`budgetflow.playbook.common.competing.compete`; hopeless and diverged ones change
      nothing) by :func:`budgetflow.playbook.derived.narrowing.narrow`.
    - "unlikely" is swept: the base learning rate at half, once and twice the winner's; the decay's
      length at the same of the winner's in steps (as carried over to the next length by
      :func:`budgetflow.playbook.common.transfer.transfer`) and of the winner's share of the run, as
      far as they fit; all of the original dimension for any other field that the config itself tags
      so. The rest of a schedule has the winner's value only.

    Args:
        space: of the round.
        records: its trials.
        selection: what selects trials.
        overrides: by field, an action in place of the tag's, or the dimension to search.
        max_train_steps: the next round's length.

    Raises:
        ConfigError: an override is of no dimension, or no action.
        NothingToCarryOverError: every trial diverged.
        ValueError: the next round is shorter, or the winner has no value of a dimension.
    """
    _check_overrides(space, overrides)
    competing = [trial for trial, _ in compete(records, selection).competing]
    if not competing:
        raise NothingToCarryOverError(
            f"all {len(records)} trials diverged: there is no setting to carry over to a longer "
            "run; look for a lower learning rate or a longer warmup"
        )
    best = competing[0]
    at_length = next_length(best.schedule, max_train_steps)
    rows = []
    for before in space:
        having = [trial for trial in competing if before.name in trial.hyperparameters]
        if best not in having:
            raise ValueError(f"trial {best.trial}, the best, has no value of {before.name}")
        # Other seeds of a setting say nothing about the spread of a value.
        settings = [trials[0] for trials in by_setting(having).values()]
        values = [at_length.value_in(trial, before.name) for trial in settings]
        planned, dimension = _planned(before, overrides), at_length.dimension(before)
        searched = _searched(planned, dimension, values, at_length, overrides.get(before.name))
        rows.append(_carried(planned, dimension, values, searched))
    return Derivation(
        rows=tuple(rows), best_trial=best.trial, no_schedule_because=at_length.no_rule_because
    )


def _planned(dimension: Dimension, overrides: Overrides) -> PlannedField:
    field = dimension.name
    tag = dimension.tag or default_tag(field)
    action = _BY_TAG[tag]
    is_schedule = field.startswith("schedule.") and field not in SWEPT_AROUND_WINNER
    if action == "swept" and dimension.tag is None and is_schedule:
        action = "winner_only"
    override = overrides.get(field)
    if override is not None:
        action = "swept" if isinstance(override, Dimension) else override
    return PlannedField(
        field=field,
        tag=tag,
        tagged_by="config" if dimension.tag else "playbook",
        action=action,
        overridden=override is not None,
    )


def _searched(
    planned: PlannedField,
    dimension: Dimension,
    values: Sequence[Value],
    at_length: NextLength,
    override: Action | Dimension | None,
) -> Narrowed | None:
    """The dimension to search; None if the winner's value stays.

    Args:
        planned: what becomes of the hyperparameter.
        dimension: the one that was searched, at the next round's length.
        values: of the different settings that compete, the winner's first.
        at_length: the way to the next round's length.
        override: the config's.
    """
    if isinstance(override, Dimension):
        return Narrowed("dimension", override)
    if planned.action == "narrowed":
        return narrow(dimension, values)
    if planned.action != "swept":
        return None
    field, value = dimension.name, values[0]
    if field not in SWEPT_AROUND_WINNER:
        return Narrowed("whole", _with(dimension, value))
    if not isinstance(value, int | float) or not value:
        return None  # a schedule without a decay has none to sweep
    if field in DECAY_LENGTHS:
        around = at_length.decay_lengths(field, value)
    else:
        around = [factor * value for factor in SWEEP_FACTORS]
    distinct = tuple(dict.fromkeys(around))
    return Narrowed("around", Dimension(field, "choices", distinct)) if distinct[1:] else None


def _with(dimension: Dimension, value: Value) -> Dimension:
    """A dimension extended to hold a value."""
    if dimension.distribution != "choices":
        assert isinstance(value, int | float)
        low, high = min(dimension.low, value), max(dimension.high, value)
        return dataclasses.replace(dimension, low=low, high=high)
    return dataclasses.replace(dimension, values=tuple(dict.fromkeys((value, *dimension.values))))


def _carried(
    planned: PlannedField, before: Dimension, values: Sequence[Value], searched: Narrowed | None
) -> CarriedField:
    """The row of a hyperparameter; for the arguments see :func:`_searched`."""
    is_range = before.distribution != "choices"
    numbers = in_order(values)
    after: dict[str, Any] = {}
    if searched is not None and (dimension := searched.dimension):
        after = {"distribution": dimension.distribution, "values": dimension.values}
        if dimension.distribution != "choices":
            after |= {"low": dimension.low, "high": dimension.high}
    return CarriedField(
        **vars(planned),
        value=values[0],
        searched=searched.how if searched else None,
        **after,
        low_before=before.low if is_range else None,
        high_before=before.high if is_range else None,
        values_before=before.values,
        competing=len(values),
        competing_low=min(numbers, default=None),
        competing_high=max(numbers, default=None),
        competing_values=() if is_range else tuple(dict.fromkeys(values)),
        at_edge=edge(before, values[0]),
    )


def _check_overrides(space: Sequence[Dimension], overrides: Overrides) -> None:
    names = [dimension.name for dimension in space]
    for field, override in overrides.items():
        if field not in names:
            raise ConfigError(
                f"carry-over override of {field!r}, which the search space does not vary; "
                f"{nearest(field, names)}"
            )
        if isinstance(override, Dimension):
            if override.name != field:
                raise ConfigError(
                    f"carry-over override of {field!r} is a dimension of {override.name!r}; "
                    f"did you mean {field!r}?"
                )
        elif override not in ACTIONS:
            raise ConfigError(
                f"carry-over override of {field!r} = {shown(override)}: neither a dimension nor "
                f"an action; {nearest(str(override), ACTIONS)}"
            )
