"""An expected figure with its interval, and the reason where there is none."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

# How often an interval is to hold what comes …
LEVEL = 0.9
# … and half of such an interval, in standard deviations.
SPREADS = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclasses.dataclass(frozen=True)
class Expected:
    """A figure that a run is expected to end with.

    Attributes:
        value: the middle.
        low, high: the ends of the interval.
    """

    value: float
    low: float
    high: float

    def holds(self, measured: float) -> bool:
        """Whether the interval holds the figure that came."""
        return self.low <= measured <= self.high

    def width_needed(self, measured: float) -> float:
        """How many times as wide a loss's interval had to be for the loss that came.

        Above 1 for a miss; NaN for NaN.
        """
        return abs(math.log(measured / self.value)) / math.log(self.high / self.value)


@dataclasses.dataclass(frozen=True)
class CannotTell:
    """The reason why there is no forecast."""

    reason: str


def wider_after(widths_needed: Sequence[float]) -> float:
    """The factor on the next intervals, after the widths that earlier ones needed.

    So wide that :data:`LEVEL` of the earlier ones would have held, counting the next one as a miss
    that may come; at least 1.
    """
    if not widths_needed:
        return 1.0
    rank = min(math.ceil(LEVEL * (len(widths_needed) + 1)), len(widths_needed))
    return max(1.0, sorted(widths_needed)[rank - 1])
