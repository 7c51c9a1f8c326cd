"""Which hyperparameters' preferred values are other ones at the end than early in the run?"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from trials import Study

# One name for what submissions call differently.
SAME_FIELD = {"warmup_factor": "warmup", "warmup_steps_fraction": "warmup"}
WHOLE_SETTING = "the whole setting"
MIN_SETTINGS = 3


@dataclasses.dataclass
class Preference:
    """How often a hyperparameter's preferred value stayed, over pools of repetitions.

    Attributes:
        pools: how many pools tried two values or more.
        same, up, down: in how many the value of the end's best setting is the early best's, a
            higher one or a lower one.
        by_chance: the sum over pools of the chance that a setting drawn blindly has the same.
        submissions: those that the pools are of.
    """

    pools: int = 0
    same: int = 0
    up: int = 0
    down: int = 0
    by_chance: float = 0.0
    submissions: set[str] = dataclasses.field(default_factory=set)


def preferences(studies: Iterable[Study], fraction: float) -> dict[str, Preference]:
    """What each field's preference does from a fraction of the run to its end.

    A setting's error is its mean over the repetitions that have all settings of the pool at the
    fraction.

    Returns:
        By field, and for the setting as a whole under :data:`WHOLE_SETTING`.
    """
    pools: dict[tuple[str, str], list[Study]] = collections.defaultdict(list)
    for study in studies:
        pools[study.pool].append(study)
    found: dict[str, Preference] = collections.defaultdict(Preference)
    for (submission, _), repetitions in pools.items():
        settings = _hyperparameters(repetitions)
        early, end = (_means(repetitions, f, fraction) for f in (fraction, 1.0))
        if len(early) < MIN_SETTINGS:
            continue
        before, after = (min(means, key=lambda n: means[n]) for means in (early, end))
        for field in (WHOLE_SETTING, *settings[before]):
            values = {
                number: {WHOLE_SETTING: number, **settings[number]}[field] for number in early
            }
            if len(set(values.values())) > 1:
                _count(found[field], values, before, after)
                found[field].submissions.add(submission)
    return dict(found)


def _count(row: Preference, values: Mapping[int, Any], before: int, after: int) -> None:
    row.pools += 1
    row.same += values[before] == values[after]
    row.up += values[after] > values[before]
    row.down += values[after] < values[before]
    row.by_chance += float(np.mean([value == values[before] for value in values.values()]))


def _hyperparameters(repetitions: Iterable[Study]) -> dict[int, dict[str, Any]]:
    """The hyperparameters of each trial number, the same in all repetitions."""
    found: dict[int, dict[str, Any]] = {}
    for study in repetitions:
        for trial in study.trials:
            fields = {
                SAME_FIELD.get(k, k): v
                for k, v in trial.hyperparameters.items()
                if isinstance(v, int | float)
            }
            if "beta1" in fields:
                fields["one_minus_beta1"] = round(1 - fields.pop("beta1"), 10)
            if found.setdefault(trial.trial, fields) != fields:
                raise ValueError(f"{study.pool}: trial {trial.trial} has other hyperparameters")
    return found


def _means(repetitions: Iterable[Study], at: float, fraction: float) -> dict[int, float]:
    """The mean of each setting at a point, over the repetitions with all of the pool's settings."""
    repetitions = list(repetitions)
    early = [study.log_errors(fraction) for study in repetitions]
    numbers = max((set(costs) for costs in early), key=len, default=set())
    complete = [s for s, costs in zip(repetitions, early, strict=True) if numbers <= set(costs)]
    costs = [study.log_errors(at) for study in complete]
    return {n: float(np.mean([c[n] for c in costs])) for n in sorted(numbers)}
