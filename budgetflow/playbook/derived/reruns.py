"""Which settings of an earlier round to run again in a longer one, to see whether it held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from budgetflow.playbook.common.competing import Competition
from budgetflow.playbook.common.measurement import TrialRecord


def choose_reruns(competition: Competition, count: int) -> tuple[int, ...]:
    """The numbers of the trials to run again beside the winner, chosen to tell most.

    Only trials that compete: a hopeless one that loses again shows nothing. The first is the
    runner-up, the likeliest to overtake the winner. The ranks behind it are cut into as many equal
    parts as are left to choose, so that a rank correlation has a range to work with; of each part,
    the trial is taken whose hyperparameters are the farthest from those chosen before (the winner's
    among them), so that what is transferred is tested over the search space. A distance is the
    mean over the hyperparameters: for numbers, of how many of the values tried lie in between, as a
    share (so no scale has to be known); for others, of whether they differ. Of equally far trials,
    the better one is taken. Trials that differ from a better one in nothing but the seed are no
    settings of their own.

    Args:
        competition: of the earlier round's trials; the best of them is its winner.
        count: how many to choose; there may be fewer.

    Raises:
        ValueError: the count is negative.
    """
    if count < 0:
        raise ValueError(f"{count} trials to run again: it should be 0 or more")
    settings: list[tuple[TrialRecord, dict[str, Any]]] = []
    for trial, _ in competition.competing:
        setting = {k: v for k, v in trial.hyperparameters.items() if k != "seed"}
        if all(setting != known for _, known in settings):
            settings.append((trial, setting))
    distance = _distances([setting for _, setting in settings])
    slots = min(count, len(settings) - 1)
    chosen = list(range(min(slots, 1) + 1))
    if slots > 1:
        for part in np.array_split(np.arange(2, len(settings)), slots - 1):
            # The first of equally far ones is the better one.
            farthest = np.argmax(distance[part][:, chosen].min(axis=1))
            chosen.append(int(part[farthest]))
    return tuple(settings[i][0].trial for i in chosen[1:])


def _distances(settings: Sequence[dict[str, Any]]) -> np.ndarray:
    """How far any two settings are apart, from 0 to 1: see :func:`choose_reruns`."""
    fields = list(dict.fromkeys(field for setting in settings for field in setting))
    total = np.zeros((len(settings), len(settings)))
    for field in fields:
        values = [setting.get(field) for setting in settings]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            tried, ranks = np.unique(np.array(values, float), return_inverse=True)
            places = ranks / max(len(tried) - 1, 1)
            total += abs(places[:, None] - places)
        else:
            total += np.array([[one != other for other in values] for one in values], float)
    return total / max(len(fields), 1)
