"""The noise between runs that differ in nothing but their seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

# Differences below this fraction of the costs are rounding (of float32, with room), not noise.
ROUNDING = 1e-6


class Noise(NamedTuple):
    """A standard deviation between seeds, and the degrees of freedom that it is estimated with."""

    sd: float
    degrees_of_freedom: float


def pooled_noise(groups: Iterable[Sequence[float]], resolution: float = 0.0) -> Noise | None:
    """The standard deviation within groups of costs, pooled over those of two costs or more.

    Args:
        groups: the costs of each setting, one per seed. One that diverged says nothing of the
            noise: groups with a cost that is not finite are left out.
        resolution: the smallest step of the metric, like one example's worth of an error rate: the
            noise is never taken to be less, since seeds that happen to agree do not show that there
            is none.

    Returns:
        None where no group has two costs, or where all costs agree and no resolution is given.
    """
    usable = [g for g in groups if len(g) > 1 and all(map(math.isfinite, g))]
    if not usable:
        return None
    freedom = sum(len(group) - 1 for group in usable)
    squares = sum(float(np.var(group)) * len(group) for group in usable)
    scale = max(abs(cost) for group in usable for cost in group)
    return with_floor(Noise(math.sqrt(squares / freedom), freedom), scale, resolution)


def with_floor(noise: Noise, scale: float, resolution: float) -> Noise | None:
    """The noise, at least the resolution; None if it is neither above 0 nor above rounding.

    Args:
        noise: as estimated.
        scale: how large the costs are.
        resolution: the smallest step of the metric.
    """
    sd = max(noise.sd, resolution)
    return noise._replace(sd=sd) if sd > ROUNDING * scale else None
