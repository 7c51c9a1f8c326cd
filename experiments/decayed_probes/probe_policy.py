"""Decayed probes: which trunk to go on with, by short decays that branch off each.

Runs at a constant learning rate are hard to compare while it is high: their losses are dominated by
noise that a decay would take away, most where the learning rate is highest. So each trunk is asked
what it would give by a short decay, a tenth of the steps so far, at checkpoints that grow; the
trunk, not the decayed run, goes on (as Hägele et al. 2024, arXiv:2405.18392, branch cooldowns off).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class ProbeSettings:
    """How trunks are probed.

    Attributes:
        first_step: the first checkpoint.
        last_step: the last one at most; what is then not decided is decided by its probes.
        growth: how many times as far each checkpoint is as the one before.
        decay_fraction: of the steps so far, those of a probe.
        keep: the share of the trunks that goes on from a checkpoint at most; 1 for all.
        seed_noise: the standard deviation of a cost between seeds: two costs are told apart by
            ``clear`` times that of their difference.
        clear: see ``seed_noise``.
    """

    first_step: int
    last_step: int
    growth: float = 2.0
    decay_fraction: float = 0.1
    keep: float = 0.5
    seed_noise: float = 0.0
    clear: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.first_step <= self.last_step:
            raise ValueError(
                f"first_step = {self.first_step}: should be from 1 to last_step = {self.last_step}"
            )
        if not self.growth > 1:
            raise ValueError(f"growth = {self.growth}: should be more than 1")
        for name in ("decay_fraction", "keep"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: should be in (0, 1]")
        for name in ("seed_noise", "clear"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: should be 0 or more")

    @property
    def distinct(self) -> float:
        """Costs further apart than this are told apart beyond the noise between seeds."""
        return self.clear * math.sqrt(2) * self.seed_noise

    def probe_steps(self, step: int) -> int:
        """The updates of a probe off a trunk at a step."""
        return max(1, round(self.decay_fraction * step))


@dataclasses.dataclass(frozen=True)
class Probe:
    """What to do next: train the trunks to a step, and a probe off each."""

    trials: tuple[int, ...]
    step: int


@dataclasses.dataclass(frozen=True)
class Winner:
    """The end: the trial whose trunk goes on to the full length.

    Attributes:
        trial: its number.
        step: where its trunk stands.
        is_clear: whether no other trial was within the noise between seeds, or left.
        steps: the updates that were spent, on trunks and probes of all trials.
        eliminated: trial to the step of the probe by which it was left behind, in that order.
    """

    trial: int
    step: int
    is_clear: bool
    steps: int
    eliminated: dict[int, int]


def checkpoints(settings: ProbeSettings) -> tuple[int, ...]:
    """The steps at which trunks are probed, ascending."""
    steps: list[int] = []
    at = float(settings.first_step)
    while round(at) <= settings.last_step:
        if not steps or round(at) > steps[-1]:
            steps.append(round(at))
        at *= settings.growth
    return tuple(steps)


def next_step(
    settings: ProbeSettings, trials: tuple[int, ...], probes: Mapping[int, Mapping[int, float]]
) -> Probe | Winner:
    """What decayed probes do next.

    A trial is left behind where its probe is worse than the best one's beyond the noise between
    seeds; of the others the better part goes on, :attr:`ProbeSettings.keep` of all that were
    probed. It ends with one left, or at the last checkpoint.

    Args:
        settings: the policy's.
        trials: all contenders, one or more.
        probes: step -> trial -> the cost of its probe (lower is better; infinite or NaN where it
            diverged). Of a checkpoint all that are asked for, or none.
    """
    going = tuple(sorted(trials))
    if not going:
        raise ValueError("no trial to probe")
    eliminated: dict[int, int] = {}
    steps = before = 0
    close: list[int] = list(going)
    for step in checkpoints(settings):
        if step not in probes:
            return Probe(going, step)
        steps += len(going) * (step - before + settings.probe_steps(step))
        costs = {trial: _cost(probes[step][trial]) for trial in going}
        ranked = sorted(going, key=lambda trial: (costs[trial], trial))
        best = costs[ranked[0]]
        # All are equal where all diverged.
        close = [t for t in ranked if costs[t] == best or costs[t] - best <= settings.distinct]
        kept = close[: max(1, math.floor(settings.keep * len(going)))]
        eliminated |= {trial: step for trial in reversed(ranked) if trial not in kept}
        going, before = tuple(sorted(kept)), step
        if len(going) == 1:
            break
    # Of several that are left at the last checkpoint, the best one there.
    winner = close[0]
    left = (trial for trial in reversed(close) if trial in going and trial != winner)
    eliminated |= dict.fromkeys(left, before)
    return Winner(winner, before, len(close) == 1, steps, eliminated)


def _cost(cost: float) -> float:
    return cost if math.isfinite(cost) else math.inf
