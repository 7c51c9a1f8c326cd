"""Settings: what trials have in common that differ in nothing but their seed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from budgetflow.playbook.measurement import Selection, TrialRecord

SEED = "seed"


@dataclasses.dataclass(frozen=True)
class TriedSetting:
    """Values of the hyperparameters, and the trials that had them, by seed.

    Attributes:
        hyperparameters: config field to value, without the seed.
        trials: one for each seed.
        costs: of each, the selection metric at its best step, with its sign such that lower is
            better; infinite if it diverged.
    """

    hyperparameters: dict[str, Any]
    trials: tuple[TrialRecord, ...]
    costs: tuple[float, ...]

    @property
    def cost(self) -> float:
        """The mean over its seeds."""
        return float(np.mean(self.costs))


def setting_key(hyperparameters: dict[str, Any]) -> str:
    """What settings are the same by: all hyperparameters but the seed."""
    others = {name: value for name, value in hyperparameters.items() if name != SEED}
    return json.dumps(others, sort_keys=True)


def tried_settings(trials: Iterable[TrialRecord], selection: Selection) -> list[TriedSetting]:
    """The settings of some trials, best first; of equally good ones that of the first trial."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(setting_key(trial.hyperparameters), []).append(trial)
    found = [_tried(sorted(group, key=lambda t: t.seed), selection) for group in groups.values()]
    return sorted(found, key=lambda setting: setting.cost)


def _tried(trials: Sequence[TrialRecord], selection: Selection) -> TriedSetting:
    values = {k: v for k, v in trials[0].hyperparameters.items() if k != SEED}
    costs = [_cost(trial, selection) for trial in trials]
    return TriedSetting(values, tuple(trials), tuple(costs))


def _cost(trial: TrialRecord, selection: Selection) -> float:
    best = None if trial.diverged else selection.best(trial.rows)
    return selection.cost(best) if best else math.inf
