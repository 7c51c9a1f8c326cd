"""Are stated probabilities that an early leader ends first borne out?"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from trials import Study

from budgetflow.playbook.common.seed_noise import Noise
from budgetflow.playbook.derived.earlier_choice import ChoiceVerdict, Setting, judge_choice

MIN_TRIALS = 3
# Of the noise: as of five repetitions, since it differs between workloads.
FREEDOM = 4
# Of a median absolute deviation, to the standard deviation of a normal distribution.
MAD_TO_SD = 1.4826


@dataclasses.dataclass(frozen=True)
class Forecast:
    """A stated probability that the leader ends first, and whether it did.

    Attributes:
        family: of the workload.
        said: the probability.
        came: whether the leader ended first.
    """

    family: str
    said: float
    came: bool


@dataclasses.dataclass(frozen=True)
class Race:
    """What a study's trials had reached by a fraction of the run, and where they ended.

    Attributes:
        study: of these trials.
        numbers: the trials that had been evaluated often enough by then.
        early, end: the logarithms of their lowest errors by then and at the end.
    """

    study: Study
    numbers: Sequence[int]
    early: np.ndarray
    end: np.ndarray

    @property
    def leader_ends_first(self) -> bool:
        """Whether the leader ends first."""
        return bool(self.end[self.early.argmin()] == self.end.min())

    @property
    def spread(self) -> float:
        """How far apart its trials are by then, as a standard deviation."""
        return max(robust_sd(self.early), 1e-9)

    @property
    def moves(self) -> np.ndarray:
        """How far each trial moves from then to the end beside the others."""
        moves = self.end - self.early
        return moves - np.median(moves)


def races(studies: Iterable[Study], fraction: float) -> list[Race]:
    """The studies of which three trials or more can be compared at a fraction of the run."""
    found = []
    for study in studies:
        early, end = study.log_errors(fraction), study.log_errors(1.0)
        if len(early) >= MIN_TRIALS:
            values = [np.array([costs[number] for number in early]) for costs in (early, end)]
            found.append(Race(study, list(early), *values))
    return found


def seeds_noise(others: Sequence[Race]) -> Callable[[Race], float]:
    """Noise between repetitions, of the early value and of the end's: the median variance each."""
    groups: dict[tuple[str, ...], list[tuple[float, float]]] = collections.defaultdict(list)
    for race in others:
        for number, *values in zip(race.numbers, race.early, race.end, strict=True):
            groups[(*race.study.pool, str(number))].append(tuple(values))
    variances = [np.var(values, axis=0, ddof=1) for values in groups.values() if len(values) > 1]
    sd = math.sqrt(np.median(variances, axis=0).sum()) if variances else math.nan
    return lambda race: sd


def moves_noise(others: Sequence[Race]) -> Callable[[Race], float]:
    """How far trials move beside each other, in units of how far apart they are early."""
    moves = np.concatenate([race.moves / race.spread for race in others])
    return lambda race: robust_sd(moves) * race.spread


def forecasts(
    found: Sequence[Race], noise_from: Callable[[Sequence[Race]], Callable[[Race], float]]
) -> list[Forecast]:
    """What would have been said of each race, with noise from the other families of workloads."""
    said = []
    for family in sorted({race.study.family for race in found}):
        sd = noise_from([race for race in found if race.study.family != family])
        for race in (race for race in found if race.study.family == family):
            leader = int(race.early.argmin())
            settings = [
                Setting({}, (float(cost),), (float(cost),), i == leader)
                for i, cost in enumerate(race.early)
            ]
            noise = Noise(max(sd(race), 1e-9), FREEDOM)
            probability = judge_choice(settings, noise).probability_still_best
            said.append(Forecast(family, probability, race.leader_ends_first))
    return said


def recalibrated(found: Sequence[Forecast]) -> list[Forecast]:
    """Forecasts mapped to how often such ones came true on the other families of workloads.

    By a logistic regression on the log odds (Platt 1999), left out one by one.
    """
    from sklearn.linear_model import LogisticRegression

    said = np.array([forecast.said for forecast in found]).clip(0.001, 0.999)
    odds = np.log(said / (1 - said))[:, None]
    came = np.array([f.came for f in found])
    families = np.array([forecast.family for forecast in found])
    mapped = said.copy()
    for family in set(families):
        here = families == family
        model = LogisticRegression().fit(odds[~here], came[~here])
        mapped[here] = model.predict_proba(odds[here])[:, 1]
    return [
        dataclasses.replace(forecast, said=float(probability))
        for forecast, probability in zip(found, mapped, strict=True)
    ]


def with_repetitions(
    found: Sequence[Race], judged: Sequence[int], checked: Sequence[int]
) -> list[tuple[ChoiceVerdict, bool, bool]]:
    """What ``held`` says by some repetitions' ends, and what other repetitions show.

    The choice is the leader by its mean over the judged repetitions at the fraction of the run.

    Returns:
        The facts; whether the choice has the lowest mean in the checked repetitions; and whether
        the setting that the judged ones prefer has a lower mean there than the choice.
    """
    pools: dict[tuple[str, str], list[Race]] = collections.defaultdict(list)
    for race in found:
        pools[race.study.pool].append(race)
    results = []
    for pool in pools.values():
        early, ends = (
            {
                race.study.repetition: dict(zip(race.numbers, costs, strict=True))
                for race, costs in of
            }
            for of in ([(r, r.early) for r in pool], [(r, r.end) for r in pool])
        )
        if not set(ends) >= {*judged, *checked}:
            continue
        numbers = sorted(set.intersection(*(set(ends[r]) for r in (*judged, *checked))))
        if len(numbers) < MIN_TRIALS:
            continue
        before, after = (
            [tuple(float(costs[r][n]) for r in judged) for n in numbers] for costs in (early, ends)
        )
        choice = int(np.argmin([np.mean(costs) for costs in before]))
        facts = judge_choice(
            [
                Setting({}, *costs, promoted=i == choice)
                for i, costs in enumerate(zip(before, after, strict=True))
            ]
        )
        check = np.array([np.mean([ends[r][n] for r in checked]) for n in numbers])
        preferred = choice if facts.preferred is None else facts.preferred
        results.append((facts, check.argmin() == choice, bool(check[preferred] < check[choice])))
    return results


def robust_sd(values: np.ndarray) -> float:
    """The standard deviation of a normal distribution with the median deviation of these values."""
    return float(MAD_TO_SD * np.median(abs(values - np.median(values))))
