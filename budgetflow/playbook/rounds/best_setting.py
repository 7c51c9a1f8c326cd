"""How much the best trial's figure can bear: its interval, and the edges that it lies at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budgetflow.config.search_space import Dimension
from budgetflow.playbook.derived.narrowing import Edge, edge

CONFIDENCE = 0.95


def binomial_interval(count: int, examples: int) -> tuple[float, float]:
    """The exact 95 % interval of a rate of which ``count`` of ``examples`` were seen.

    Clopper and Pearson 1934, "The use of confidence or fiducial limits".
    """
    from scipy.special import betaincinv  # imported where needed: it takes a fifth of a second

    tail = (1 - CONFIDENCE) / 2
    low = betaincinv(count, examples - count + 1, tail) if count else 0.0
    high = betaincinv(count + 1, examples - count, 1 - tail) if count < examples else 1.0
    return float(low), float(high)


def edges(space: Sequence[Dimension], hyperparameters: dict[str, Any]) -> dict[str, Edge]:
    """The hyperparameters of a trial that lie at an end of what was searched, and at which.

    Args:
        space: the search space.
        hyperparameters: config field to value.
    """
    ends = {d.name: edge(d, hyperparameters[d.name]) for d in space if d.name in hyperparameters}
    return {name: end for name, end in ends.items() if end is not None}
