"""The search space of the next, longer round: what of this one carries over, by tags and results.

The playbook's order of what is likely to transfer (:mod:`budgetflow.playbook.derived.tags`) says
what becomes of each hyperparameter; the trials that compete for the best result say how far to
look.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from budgetflow.base.errors import ConfigError, nearest, shown
from budgetflow.config.search_space import Action, Dimension, Tag, Value, points
from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import Selection, TrialRecord
from budgetflow.playbook.derived.narrowing import Edge, Narrowed, edge, narrow
from budgetflow.playbook.derived.next_length import SWEEP_FACTORS, NextLength, next_length
from budgetflow.playbook.derived.tags import default_tag

ACTIONS: tuple[Action, ...] = get_args(Action)
Overrides = Mapping[str, Action | Dimension]

_BY_TAG: dict[Tag, Action] = {
    "very_likely": "pinned",
    "likely": "winner_only",
    "might": "narrowed",
    "unlikely": "swept",
}
# What of a schedule is swept by default: cheap, since trunks are shared. The rest of it, such as
# the decay's family, comes with the winner.
BASE_LEARNING_RATE = "schedule.base_learning_rate"
DECAY_LENGTHS = ("schedule.decay_steps", "schedule.decay_fraction")
# Points that are drawn for each one asked for, before one gives up looking for new ones.
_DRAWS = 16


class NothingToCarryOverError(ValueError):
    """Every trial diverged, so that there is no winner to start the next round from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedField:
    """What becomes of a hyperparameter, as far as is known before the round has run.

    Attributes:
        field: the config field.
        tag: how likely its best value is to transfer.
        tagged_by: whose tag it is: the config's, or the playbook's.
        action: "pinned" to the winner's value; "winner_only", the same for an architecture and
            what else is not settled but not looked at again; "narrowed" to a neighbourhood of the
            winner's value; "swept" anew.
        overridden: whether the action is the config's instead of the tag's.
    """

    field: str
    tag: Tag
    tagged_by: Literal["config", "playbook"]
    action: Action
    overridden: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class CarriedField(PlannedField):
    """What becomes of a hyperparameter, and why.

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
        competing_low, competing_high: the ends of their values; None for what has no order.
        competing_values: the different values that they have, for choices, the winner's first.
        at_edge: whether the winner lies at an end of what was tried.
    """

    value: Value
    searched: Literal["whole", "around", "spread", "too_few", "dimension"] | None = None
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
        """What the next round searches; None if it has the winner's value alone."""
        if self.distribution is None:
            return None
        if self.distribution == "choices":
            return Dimension(self.field, "choices", self.values, tag=self.tag)
        assert self.low is not None
        assert self.high is not None
        return Dimension(self.field, self.distribution, low=self.low, high=self.high, tag=self.tag)

    @property
    def searched_dimension(self) -> Dimension:
        """What the round after the next derives its own from: a pinned value is the only choice."""
        dimension = self.dimension or Dimension(self.field, "choices", (self.value,))
        return dataclasses.replace(dimension, tag=self.tag if self.tagged_by == "config" else None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derivation:
    """What the next round searches.

    Attributes:
        rows: what becomes of each dimension of the search space.
        best_trial: the winner, whose values are carried over.
        no_schedule_because: why no rule carries its schedule over to the next length: then the
            lengths of its schedule stay as they are, in steps.
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
        """What is searched."""
        return tuple(row.dimension for row in self.rows if row.dimension)


def plan(space: Sequence[Dimension], overrides: Overrides) -> tuple[PlannedField, ...]:
    """What will become of each dimension of a round that has not run yet.

    Raises:
        ConfigError: an override is of no dimension, or no action.
    """
    _check_overrides(space, overrides)
    return tuple(PlannedField(**_planned(dimension, overrides)) for dimension in space)


def derive(
    space: Sequence[Dimension],
    records: Sequence[TrialRecord],
    selection: Selection,
    overrides: Overrides,
    *,
    max_train_steps: int,
) -> Derivation:
    """What the next round searches, by the tags of a search space and the results of its trials.

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
        known = [trial for trial in competing if before.name in trial.hyperparameters]
        if best not in known:
            raise ValueError(f"trial {best.trial}, the best, has no value of {before.name}")
        dimension = at_length.dimension(before)
        values = [at_length.value_in(trial, before.name) for trial in _different_settings(known)]
        planned = _planned(before, overrides)
        found = _searched(planned, dimension, values, at_length, overrides.get(before.name))
        rows.append(_row(planned, dimension, values, found))
    return Derivation(
        rows=tuple(rows), best_trial=best.trial, no_schedule_because=at_length.no_rule_because
    )


def next_points(derivation: Derivation, seed: int, trials: int) -> list[dict[str, Value]]:
    """The hyperparameters of the next round's new trials: complete settings, all different.

    The winner's own setting is none of them, since it is a trial of the next round anyway. First
    come the sweeps, each value of a swept choice with all else the winner's (the base learning rate
    and the decay's length are cheap: trunks are shared), in turn, the decay's length first, as many
    as there are trials for. The rest are Halton points of all that is searched.

    Args:
        derivation: what is searched.
        seed: for the Halton points.
        trials: how many; fewer where nothing else is left to try.
    """
    if trials < 0:
        raise ValueError(f"{trials} trials; at least 0")
    winner, space = derivation.winner, derivation.space
    swept = [row for row in derivation.rows if row.action == "swept"]
    # A decay that keeps its steps is far from its share of a much longer run: with trials for one
    # thing only, that one tells most (experiments/round_planning).
    swept.sort(key=lambda row: row.field not in DECAY_LENGTHS)
    one_at_a_time = [
        {**winner, row.field: row.values[at]}
        for at in range(max((len(row.values) for row in swept), default=0))
        for row in swept
        if at < len(row.values)
    ]
    drawn: list[dict[str, Any]] = []
    if space and trials:
        drawn = points(space, "halton", _DRAWS * trials, seed)
        if all(d.values for d in space) and math.prod(len(d.values) for d in space) <= len(drawn):
            drawn += points(space, "grid", trials, seed)  # what no draw has hit
    candidates = [*one_at_a_time, *({**winner, **point} for point in drawn)]
    new = {_key(setting): setting for setting in candidates if _key(setting) != _key(winner)}
    return list(new.values())[:trials]


def _planned(dimension: Dimension, overrides: Overrides) -> dict[str, Any]:
    """The fields of a :class:`PlannedField`."""
    field = dimension.name
    tag = dimension.tag or default_tag(field)
    action = _BY_TAG[tag]
    rest_of_schedule = field.startswith("schedule.") and not _is_swept_around(field)
    if action == "swept" and dimension.tag is None and rest_of_schedule:
        action = "winner_only"
    override = overrides.get(field)
    if override is not None:
        action = "swept" if isinstance(override, Dimension) else override
    return {
        "field": field,
        "tag": tag,
        "tagged_by": "config" if dimension.tag else "playbook",
        "action": action,
        "overridden": override is not None,
    }


def _is_swept_around(field: str) -> bool:
    return field in (BASE_LEARNING_RATE, *DECAY_LENGTHS)


def _searched(
    planned: Mapping[str, Any],
    dimension: Dimension,
    values: Sequence[Value],
    at_length: NextLength,
    override: Action | Dimension | None,
) -> Narrowed | None:
    """What is searched of a dimension; None if nothing is.

    Args:
        planned: what becomes of it.
        dimension: what was searched, at the next round's length.
        values: of the different settings that compete, the winner's first.
        at_length: the next round's.
        override: the config's.
    """
    if isinstance(override, Dimension):
        return Narrowed("dimension", override)
    if planned["action"] == "narrowed":
        return narrow(dimension, values)
    if planned["action"] != "swept":
        return None
    field, value = dimension.name, values[0]
    if not _is_swept_around(field):
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
    """A dimension that holds a value, too, if it does not yet."""
    if dimension.distribution != "choices":
        assert isinstance(value, int | float)
        low, high = min(dimension.low, value), max(dimension.high, value)
        return dataclasses.replace(dimension, low=low, high=high)
    others = (other for other in dimension.values if other != value)
    return dataclasses.replace(dimension, values=(value, *others))


def _row(
    planned: Mapping[str, Any],
    before: Dimension,
    values: Sequence[Value],
    found: Narrowed | None,
) -> CarriedField:
    """A row of the table."""
    is_range = before.distribution != "choices"
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    ordered = len(numbers) == len(values)
    searched: dict[str, Any] = {}
    if found is not None and found.dimension is not None:
        after = found.dimension
        searched = {"distribution": after.distribution, "values": after.values}
        if after.distribution != "choices":
            searched |= {"low": after.low, "high": after.high}
    return CarriedField(
        **planned,
        value=values[0],
        searched=found.how if found else None,
        **searched,
        low_before=before.low if is_range else None,
        high_before=before.high if is_range else None,
        values_before=before.values,
        competing=len(values),
        competing_low=min(numbers) if ordered else None,
        competing_high=max(numbers) if ordered else None,
        competing_values=() if is_range else tuple(dict.fromkeys(values)),
        at_edge=edge(before, values[0]),
    )


def _different_settings(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The best trial of each setting: those of other seeds say nothing about a value's spread."""
    best: dict[str, TrialRecord] = {}
    for trial in trials:
        setting = {k: v for k, v in trial.hyperparameters.items() if k != "seed"}
        best.setdefault(_key(setting), trial)
    return list(best.values())


def _key(setting: Mapping[str, Any]) -> str:
    return json.dumps(setting, sort_keys=True)


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
