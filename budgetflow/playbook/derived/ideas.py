"""The ledger of ideas: which are better than the baseline by more than the noise between seeds?

An idea is a named patch of the config. It runs beside the baseline, with the same seeds and the
same length, and goes on to the next, longer round only if it is better.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from budgetflow.playbook.common.measurement import Selection, TrialRecord
from budgetflow.playbook.common.seed_noise import Noise, with_floor

# The error rate, over all ideas together.
ALPHA = 0.05
# With two, the t-distribution has a single degree of freedom and nothing real is ever shown.
MIN_SEEDS = 3

Status = Literal["promoted", "not_better", "worse", "cannot_tell", "diverged"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdeaResult:
    """A row of the ledger of ideas. Costs are such that lower is better.

    Attributes:
        name: of the idea.
        status: "promoted" if it is better by more than the noise; "worse" if it is worse by more;
            "not_better" if it is neither; "cannot_tell" where too few seeds are common, or their
            noise is unknown; "diverged" if it did so in any seed.
        seeds: how many seeds both it and the baseline have.
        diverged: how many seeds of the idea diverged.
        difference: the idea's mean cost minus the baseline's over the common seeds: negative if the
            idea is better. None without any.
        relative: the difference as a fraction of the baseline's mean; None if that is 0.
        low, high: the interval of the difference for this idea alone, of confidence
            1 - 2 ``alpha``: a single idea is promoted where ``high`` is below 0.
        p_better: of the one-sided test that it is no better, adjusted by Holm for all ideas.
        p_worse: the same that it is no worse.
        ideas: how many entered.
        alpha: the error rate of a promotion, over all of them together.
    """

    name: str
    status: Status
    seeds: int
    diverged: int
    difference: float | None = None
    relative: float | None = None
    low: float | None = None
    high: float | None = None
    p_better: float | None = None
    p_worse: float | None = None
    ideas: int
    alpha: float


def ideas_ledger(trials: Sequence[TrialRecord], selection: Selection) -> tuple[IdeaResult, ...]:
    """The results of a round's ideas, each compared with the same setting without it, by seed."""
    ideas: dict[str, dict[int, float]] = {}
    for trial in trials:
        if trial.idea is not None:
            ideas.setdefault(trial.idea, {})[trial.seed] = selection.cost_of(trial)
    without = {t.seed: selection.cost_of(t) for t in trials if t.role in ("baseline", "best")}
    return judge(ideas, without, resolution=selection.resolution) if ideas else ()


def judge(
    ideas: Mapping[str, Mapping[int, float]],
    baseline: Mapping[int, float],
    resolution: float = 0.0,
) -> tuple[IdeaResult, ...]:
    """The ledger: which ideas are better than the baseline.

    A paired, one-sided t-test over the seeds that both have (as ``scipy.stats.ttest_rel``), which
    takes three; and Holm's procedure over all ideas that entered, also those that could not be
    tested. So with normal differences, the probability that any idea at all is promoted that is no
    better is at most alpha (Holm 1979, Scandinavian Journal of Statistics 6). The same for "worse".

    The noise of the differences is never taken to be less than the resolution: where a metric moves
    in steps (one example of a small validation set), the differences of a few seeds can agree by
    chance. Without a resolution, differences that agree exactly show nothing ("cannot_tell"),
    unless they are all 0 ("not_better").

    Measured on 2,000 simulated studies each (1 to 5 ideas, 3 to 7 seeds, no idea better): some idea
    is promoted in 4.7 % of them with normal noise, 3.0 % with heavy tails (Student's t of 2 degrees
    of freedom), 4.3 % with a baseline four times as noisy, 3.0 % with the error rate of 100
    examples at 2 % (4.3 % without the resolution). An idea better by 3 standard deviations between
    seeds is promoted by 5 seeds in 98 % where it is alone, 77 % beside four that are no better; by
    3 seeds in 76 % and 26 %.

    Args:
        ideas: name to the cost of each seed, such that lower is better; NaN or infinite if it
            diverged.
        baseline: the cost of each seed; those in which it diverged are left out.
        resolution: the smallest step of the metric, like one example's worth of an error rate.

    Returns:
        A result for each idea, in the order given.
    """
    tested = []
    for name, costs in ideas.items():
        common = [s for s in costs if math.isfinite(costs[s] + baseline.get(s, math.nan))]
        diverged = sum(not math.isfinite(cost) for cost in costs.values())
        result = IdeaResult(
            name=name,
            status="diverged" if diverged else "cannot_tell",
            seeds=len(common),
            diverged=diverged,
            ideas=len(ideas),
            alpha=ALPHA,
        )
        if common:
            pairs = np.array([(costs[seed], baseline[seed]) for seed in common])
            result = _tested(result, pairs, resolution)
        tested.append(result)
    p_better = _holm([result.p_better for result in tested])
    p_worse = _holm([result.p_worse for result in tested])
    return tuple(map(_judged, tested, p_better, p_worse))


def _tested(result: IdeaResult, pairs: np.ndarray, resolution: float) -> IdeaResult:
    """A result with its difference and, where it can be tested, interval and unadjusted p-values.

    Args:
        result: of the idea, so far.
        pairs: [seeds, 2]: the costs of the idea and of the baseline.
        resolution: the smallest step of the metric.
    """
    from scipy.special import stdtr, stdtrit  # imported where needed: it takes a fifth of a second

    differences = pairs[:, 0] - pairs[:, 1]
    count, mean, before = len(pairs), float(differences.mean()), float(pairs[:, 1].mean())
    result = dataclasses.replace(
        result, difference=mean, relative=mean / abs(before) if before else None
    )
    if result.diverged or count < MIN_SEEDS:
        return result
    if not differences.any():
        return dataclasses.replace(result, low=0.0, high=0.0, p_better=1.0, p_worse=1.0)
    estimate = Noise(float(differences.std(ddof=1)), count - 1)
    noise = with_floor(estimate, float(abs(pairs).max()), resolution)
    if noise is None:
        return result
    error = noise.sd / math.sqrt(count)
    margin = error * float(stdtrit(count - 1, 1 - result.alpha))
    return dataclasses.replace(
        result,
        low=mean - margin,
        high=mean + margin,
        p_better=float(stdtr(count - 1, mean / error)),
        p_worse=float(stdtr(count - 1, -mean / error)),
    )


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted by Holm's procedure for all of them; None counts as 1."""
    adjusted, highest = list(p_values), 0.0
    ascending = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    for rank, (p, i) in enumerate(ascending):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p))
        adjusted[i] = highest
    return adjusted


def _judged(result: IdeaResult, p_better: float | None, p_worse: float | None) -> IdeaResult:
    """A result with its p-values adjusted, and what they say."""
    if p_better is None or p_worse is None:
        return result
    status: Status = "not_better"
    if p_better <= result.alpha:
        status = "promoted"
    elif p_worse <= result.alpha:
        status = "worse"
    return dataclasses.replace(result, status=status, p_better=p_better, p_worse=p_worse)
