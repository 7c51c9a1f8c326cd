"""What a round's trials say of each other: did the earlier choice hold, which ideas are better?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from budgetflow.playbook.common.measurement import Selection, TrialRecord
from budgetflow.playbook.common.seed_noise import pooled_noise
from budgetflow.playbook.derived.ideas import IdeaResult, judge
from budgetflow.playbook.derived.ranking_held import Held, Setting, held


def whether_held(
    earlier: Sequence[TrialRecord],
    promoted: int,
    trials: Sequence[TrialRecord],
    selection: Selection,
    resolution: float,
) -> Held | None:
    """Whether an earlier round's choice held, by the settings of it that were run again.

    Args:
        earlier: the earlier round's trials.
        promoted: the number of the one that was its choice.
        trials: the later round's.
        selection: what selects steps and trials.
        resolution: the smallest step of the metric; 0 if it has none.

    Returns:
        None where fewer than two settings were run again, or the choice was not.
    """
    before = by_setting(trial for trial in earlier if not trial.failed)
    after = by_setting(trial for trial in trials if trial.role in ("best", "rerun"))
    choice = next(_setting(trial) for trial in earlier if trial.trial == promoted)
    settings = [
        Setting(
            hyperparameters=again[0].hyperparameters,
            earlier=tuple(cost(trial, selection) for trial in before[key]),
            later=tuple(cost(trial, selection) for trial in again),
            promoted=key == choice,
        )
        for key, again in after.items()
        if key in before
    ]
    if len(settings) < 2 or not any(setting.promoted for setting in settings):
        return None
    groups = ([cost(trial, selection) for trial in group] for group in before.values())
    return held(settings, pooled_noise(groups, resolution), resolution)


def ideas_ledger(
    trials: Sequence[TrialRecord], selection: Selection, resolution: float
) -> tuple[IdeaResult, ...]:
    """Which of a round's ideas are better than the same setting without them, seed by seed."""
    ideas: dict[str, dict[int, float]] = {}
    for trial in trials:
        if trial.idea is not None:
            ideas.setdefault(trial.idea, {})[trial.seed] = cost(trial, selection)
    without = {t.seed: cost(t, selection) for t in trials if t.role in ("baseline", "best")}
    return judge(ideas, without, resolution=resolution) if ideas else ()


def cost(trial: TrialRecord, selection: Selection) -> float:
    """The selection metric at a trial's best step, lower being better; infinite if it diverged."""
    best = None if trial.diverged else selection.best(trial.rows)
    return selection.cost(best) if best else math.inf


def by_setting(trials: Iterable[TrialRecord]) -> Mapping[str, list[TrialRecord]]:
    """Trials that differ in nothing but their seed, together, by their setting."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(_setting(trial), []).append(trial)
    return groups


def _setting(trial: TrialRecord) -> str:
    others = {name: value for name, value in trial.hyperparameters.items() if name != "seed"}
    return json.dumps(others, sort_keys=True)
