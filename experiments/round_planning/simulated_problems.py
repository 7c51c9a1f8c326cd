"""Synthetic losses: what a setting costs at each step, its truth known, for simulated studies.

A loss is that of a base learning rate and a decay (one of two surfaces below), times what a model
and a weight decay make of it, times noise. Every number is drawn at random for each problem.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import numpy as np

from budgetflow.config import choices, log_uniform
from budgetflow.config.search_space import Dimension
from budgetflow.engine.schedules import Schedule

PRODUCTION_STEPS = 400
# The playbook asks for 40; ten make the simulation fast, and no noise hangs on their number.
EVALUATIONS = 10
RATE, DECAY = "schedule.base_learning_rate", "schedule.decay_fraction"
MODEL, WEIGHT_DECAY = "model.hidden_sizes", "regularization.weight_decay"
MODELS = ((32,), (64,), (128,))
DECAYS = (0.1, 0.2, 0.4, 0.8)


class Surface(Protocol):
    """The loss of a base learning rate and a decay, over the steps of a run."""

    def losses(self, rates: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The expected loss after some steps: [trials, steps]; infinite if it diverged.

        Args:
            rates: the learning rate of each update: [trials, updates].
            steps: after which.
        """


@dataclasses.dataclass(frozen=True)
class NoisyQuadratic:
    """The noisy quadratic model: SGD on a quadratic loss with gradient noise.

    Schaul et al. 2013 (arXiv:1206.1106); Zhang et al. 2019 (arXiv:1907.04164), whose noise has the
    Hessian's covariance, as here; Wu et al. 2018 (arXiv:1803.02021), who show the short-horizon
    bias in it. With a learning rate of a_t, the second moment of each eigendirection of curvature h
    becomes m <- (1 - a_t h)^2 m + a_t^2 v h, and the loss is a floor and half the sum of h m. The
    batch size is a part of v.

    Attributes:
        curvatures: the eigenvalues, the largest being 1: above a learning rate of 2 it diverges.
        start: the second moments at the start, such that the loss is 1 above its floor.
        noise: v.
        floor: the lowest loss.
    """

    curvatures: np.ndarray
    start: np.ndarray
    noise: float
    floor: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> NoisyQuadratic:
        """A random one: condition numbers from 30 to 3,000."""
        curvatures = np.geomspace(1, 10 ** -rng.uniform(1.5, 3.5), 24)
        start = curvatures ** -rng.uniform(0.3, 1.0)
        start *= 2 / np.sum(curvatures * start)
        noise = 10 ** rng.uniform(-2.5, -0.5)
        return cls(curvatures, start, noise, 10 ** rng.uniform(-1.5, 0))

    def losses(self, rates: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """See :class:`Surface`."""
        h, moments = self.curvatures, np.tile(self.start, (len(rates), 1))
        found, due = np.empty((len(rates), len(steps))), {int(s): i for i, s in enumerate(steps)}
        with np.errstate(over="ignore", invalid="ignore"):
            for number, rate in enumerate(rates.T[:, :, None], start=1):
                moments = (1 - rate * h) ** 2 * moments + rate**2 * (self.noise * h)
                if number in due:
                    found[:, due[number]] = self.floor + moments @ h / 2
        return np.where(found < 10 * (self.floor + 1), found, math.inf)


@dataclasses.dataclass(frozen=True)
class AnnealedPowerLaw:
    """A power law in the sum of the learning rates, with a term for their annealing.

    Tissue et al. 2024 (arXiv:2408.11029): L = L0 + A S1^-a - C S2, where S1 is the sum of the
    learning rates and S2 that of the momentum m_t = l m_{t-1} + (r_{t-1} - r_t) of their decreases.
    Luo et al. 2025 (arXiv:2503.12811) add a constant to S1, for the steps before, as here.

    Both fit a single peak learning rate, so three things are ours, to compare several: the loss of
    a constant learning rate r is higher by K r, which annealing takes away again, so that C =
    K (1 - l); a learning rate counts r / (1 + r^2) in S1, the most at 1, since too high ones make
    less of a step; and above 3 it diverges. So the longer a run, the lower its best base learning
    rate, as Bjorck et al. 2024 (arXiv:2409.19913) find.

    Attributes:
        amplitude, exponent, before: A, a and the constant in S1.
        noise: K.
        memory: l.
        floor: L0.
    """

    amplitude: float
    exponent: float
    before: float
    noise: float
    memory: float
    floor: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> AnnealedPowerLaw:
        """A random one: decays take effect within 4 to 40 steps."""
        return cls(
            amplitude=10 ** rng.uniform(-0.5, 0.5),
            exponent=rng.uniform(0.2, 0.8),
            before=rng.uniform(0.5, 2),
            noise=10 ** rng.uniform(-1.5, 0.3),
            memory=1 - 1 / 10 ** rng.uniform(0.6, 1.6),
            floor=10 ** rng.uniform(-1, 0),
        )

    def losses(self, rates: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """See :class:`Surface`."""
        peak = rates[:, :1]
        progress = self.before + np.cumsum(rates / (1 + peak**2), axis=1)[:, steps - 1]
        momentum, annealed = np.zeros(len(rates)), np.zeros(len(rates))
        s2 = np.empty_like(rates)
        s2[:, 0] = 0
        for t in range(1, rates.shape[1]):
            momentum = self.memory * momentum + rates[:, t - 1] - rates[:, t]
            annealed = annealed + momentum
            s2[:, t] = annealed
        noise = self.noise * (peak - (1 - self.memory) * s2[:, steps - 1])
        found = self.floor + self.amplitude * progress**-self.exponent + noise
        return np.where(peak <= 3, found, math.inf)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A workload whose truth is known.

    Attributes:
        surface: the loss of a base learning rate and a decay.
        lowest: the lowest loss of any of these at the length of production.
        space: what the first round searches; a playbook's tag is each field's own.
        offsets, offset_drifts: what each model adds to the loss, as a share of it: at the length of
            production, and for each factor of ten in length.
        weight_decay: the best one at the length of production.
        weight_decay_drift: the power of the length that the best one goes with: -1 if it is the
            inverse of the length (Wang and Aitchison 2024, arXiv:2405.13698), 0 if it stays.
        weight_decay_matters: how much is lost by a factor of ten, as a share of the loss.
        noise: the standard deviation between seeds, as a share of the loss.
        luck_kept: the correlation of a run's noise with that of the shorter run that it continues.
    """

    surface: Surface
    lowest: float
    space: tuple[Dimension, ...]
    offsets: tuple[float, ...]
    offset_drifts: tuple[float, ...]
    weight_decay: float
    weight_decay_drift: float
    weight_decay_matters: float
    noise: float
    luck_kept: float

    @property
    def kind(self) -> str:
        """The surface's name."""
        return type(self.surface).__name__

    def means(self, settings: list[dict[str, Any]], schedules: list[Schedule]) -> np.ndarray:
        """The true mean loss at each evaluation, of schedules of one length: [trials, evals]."""
        length = schedules[0].total_steps
        base = np.array([schedule.base_learning_rate for schedule in schedules])
        decay = np.array([schedule.decay_steps for schedule in schedules])
        losses = self.surface.losses(linear_rates(base, decay, length), evaluation_steps(length))
        return losses * np.array([self._factor(s, length) for s in settings])[:, None]

    @property
    def best_cost(self) -> float:
        """The lowest true mean loss of any setting at the length of production: the oracle's.

        Of the models, the best; the weight decay's factor is 1 at its best.
        """
        return self.lowest * (1 + min(self.offsets))

    def _factor(self, setting: dict[str, Any], length: int) -> float:
        """What a model and a weight decay make of the loss."""
        longer = math.log10(length / PRODUCTION_STEPS)
        model = MODELS.index(tuple(setting[MODEL]))
        offset = self.offsets[model] + self.offset_drifts[model] * longer
        away = math.log10(setting[WEIGHT_DECAY] / self.weight_decay)
        away -= self.weight_decay_drift * longer
        return (1 + max(offset, -0.9)) * (1 + self.weight_decay_matters * away**2)


def draw_problem(rng: np.random.Generator, surface: type | None = None, **fixed: Any) -> Problem:
    """A random problem; how much of it transfers is random, too.

    Args:
        rng: the generator.
        surface: which one; either with equal probability if not given.
        fixed: attributes that are given, not drawn.
    """
    drawn = (NoisyQuadratic, AnnealedPowerLaw)[int(rng.integers(2))]
    made = (surface or drawn).draw(rng)
    best_rate, lowest = best_of(made)
    # A user does not know where the best learning rate is in a range that holds it.
    low = best_rate / 300 ** rng.uniform(0.2, 0.9)
    drift = rng.choice([0.0, 0.3, 1.0])
    offsets = rng.normal(size=3) * 10 ** rng.uniform(-2.5, -0.7)
    drifts = drift * rng.normal(size=3) * np.std(offsets)
    values: dict[str, Any] = {
        "surface": made,
        "lowest": lowest,
        "space": (
            log_uniform(RATE, low, 300 * low),
            choices(DECAY, *DECAYS),
            choices(MODEL, *MODELS),
            log_uniform(WEIGHT_DECAY, 1e-4, 1.0),
        ),
        "offsets": tuple(np.maximum(offsets, -0.5).tolist()),
        "offset_drifts": tuple(drifts.tolist()),
        "weight_decay": 10 ** rng.uniform(-3.2, -0.8),
        "weight_decay_drift": float(rng.uniform(-1, 0.3)),
        "weight_decay_matters": 10 ** rng.uniform(-2.5, -1),
        "noise": 10 ** rng.uniform(-3, -1.5),
        "luck_kept": rng.uniform(0, 0.8),
    }
    return Problem(**values | fixed)


def best_of(surface: Surface) -> tuple[float, float]:
    """The best base learning rate at the length of production, and its loss by the best decay.

    Found on a grid of both, twice refined.
    """
    low, high, first, last = 1e-3, 4.0, 1 / PRODUCTION_STEPS, 1.0
    for _ in range(3):
        base, share = np.geomspace(low, high, 20), np.geomspace(first, last, 12)
        bases, shares = (each.ravel() for each in np.meshgrid(base, share))
        decays = np.maximum(1, np.round(shares * PRODUCTION_STEPS))
        rates = linear_rates(bases, decays, PRODUCTION_STEPS)
        costs = surface.losses(rates, evaluation_steps(PRODUCTION_STEPS)).min(axis=1)
        at, step, wider = costs.argmin(), base[1] / base[0], share[1] / share[0]
        low, high = bases[at] / step, bases[at] * step
        first, last = shares[at] / wider, min(shares[at] * wider, 1.0)
    return float(bases[at]), float(costs.min())


def linear_rates(base: np.ndarray, decay: np.ndarray, length: int) -> np.ndarray:
    """The learning rates of :class:`Schedule` with a linear decay to 0, of many: [n, length]."""
    left = (length - np.arange(length)) / np.asarray(decay)[:, None]
    return np.asarray(base)[:, None] * np.minimum(left, 1)


def evaluation_steps(length: int) -> np.ndarray:
    """When a run is evaluated, its last step included."""
    return np.round(np.linspace(length / EVALUATIONS, length, EVALUATIONS)).astype(int)
