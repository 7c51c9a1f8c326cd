"""Races of constant learning rates, one for each seed: which trials advance, and what is added.

Trials race in lockstep. Once one fits the training set at step s, the others are trained just far
enough to see whether they fit earlier; so the cost does not depend on the number of steps thought
sufficient. Those with the lowest training loss go first in every stretch, since the sooner one
fits, the fewer steps the others take.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from budgetflow.playbook.common.measurement import (
    LEARNING_RATE,
    SEED,
    Add,
    Advance,
    Decision,
    TrialRecord,
)

# In a trial's hyperparameters: whether it has the change that a comparison is of.
CHANGED = "changed"


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """What a sweep is asked to do.

    Attributes:
        learning_rates: the first grid.
        max_train_steps: N, the steps known or guessed to suffice.
        max_extensions: how many learning rates may be added outside the grid.
        num_train_examples: the size of the training set.
        steps_per_epoch: the updates that it makes.
        fitted_train_loss: the training loss under which a trial counts as fitted; None where every
            example must be.
        refine: the ratio to which the spacing around the best learning rate is halved; None to keep
            that of the grid.
        seeds: the first one's race is over the whole grid, the others' around its best.
        contradicting_examples: how many training examples have the inputs of another one but a
            different label; None where nobody counted. If there are any, the race is to the lowest
            possible error instead of none.
        lowest_train_errors: the fewest training examples that can be wrong.
        lowest_train_loss: the lowest possible mean training loss: the entropy of the labels given
            the inputs.
        lowest_evaluated_error_rate: the highest error rate that a trial with the fewest errors can
            have on those training examples that are evaluated (the first ones).
    """

    learning_rates: tuple[float, ...]
    max_train_steps: int
    max_extensions: int
    num_train_examples: int
    steps_per_epoch: int
    fitted_train_loss: float | None = None
    refine: float | None = None
    seeds: tuple[int, ...] = (0,)
    contradicting_examples: int | None = None
    lowest_train_errors: int = 0
    lowest_train_loss: float = 0.0
    lowest_evaluated_error_rate: float = 0.0

    @property
    def epochs(self) -> float:
        """N in passes over the training set."""
        return self.max_train_steps / self.steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Race:
    """A race that is over.

    Attributes:
        trials: its trials.
        best: the fastest (where none fits, the one with the lowest training loss); None if all
            diverged.
        at_boundary: whether the best learning rate is the lowest or highest of those tried.
        extensions: the learning rates that were added outside the grid.
    """

    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None
    at_boundary: bool
    extensions: int

    @property
    def status(self) -> Literal["found", "at_boundary", "not_fitted"]:
        """SPEC's word for how it ended."""
        if self.best is None or self.best.fitted_at_step is None:
            return "not_fitted"
        return "at_boundary" if self.at_boundary else "found"

    @property
    def steps_to_fit(self) -> int | None:
        """Its answer: the steps that the fastest trial needs; None unless found."""
        return self.best.fitted_at_step if self.best and self.status == "found" else None

    @property
    def rates(self) -> list[float]:
        """The learning rates tried, ascending."""
        return sorted(trial.base_learning_rate for trial in self.trials)


class AfterFit(NamedTuple):
    """The fastest trial, up to an epoch after its fit.

    Attributes:
        held: whether it still fitted.
        step: the last evaluation.
        metric: "train_error_rate" or "train_loss".
        worst: the worst value of the metric after the fit.
    """

    held: bool
    step: int
    metric: str
    worst: float


@functools.lru_cache(maxsize=8)  # Numbers alone, asked for with every decision.
def lockstep_grid(max_train_steps: int) -> tuple[int, ...]:
    """The steps at which trials wait for each other and are evaluated, the last being N.

    Each is at most 1.15 times the one before, so that no trial runs much further than the step that
    decides the race, and at most N / 40 more, so that there are 40 evaluations or more up to N.
    """
    evenly = max_train_steps / 40
    steps = [min(10.0, evenly)]
    while steps[-1] < max_train_steps:
        last = steps[-1]
        steps.append(min(max(1.15 * last, last + 1), last + evenly, max_train_steps))
    return tuple(int(step) for step in np.unique(np.ceil(np.array(steps) - 1e-6)))


def run_race(
    settings: SweepSettings, trials: Sequence[TrialRecord]
) -> tuple[float, ...] | Advance | Race:
    """What a race needs next: learning rates to add, trials to advance, or nothing: it is over.

    Args:
        settings: the sweep's; its seeds do not matter here.
        trials: the trials of one seed.
    """
    tried = {trial.base_learning_rate for trial in trials}
    if missing := tuple(rate for rate in settings.learning_rates if rate not in tried):
        return missing
    trials = [trial for trial in trials if not trial.failed]
    fitted = [t for t in trials if t.fitted_at_step is not None]
    horizon = min((t.fitted_at_step or 0 for t in fitted), default=settings.max_train_steps)
    racing = [t for t in trials if t.step < horizon and t.fitted_at_step is None and not t.diverged]
    if racing:
        grid = lockstep_grid(settings.max_train_steps)
        last = min(t.step for t in racing)
        leaders_first = sorted((t for t in racing if t.step == last), key=train_loss)
        to_step = min(grid[bisect.bisect_right(grid, last)], horizon)
        return Advance(tuple(t.trial for t in leaders_first), to_step)
    rates = sorted(tried)
    fastest = _fastest(fitted or [t for t in trials if not t.diverged])
    best, outward = _best(fastest, rates)
    extensions = _extensions(settings, trials)
    if outward is not None:
        if extensions < settings.max_extensions:
            return (outward,)
    elif fitted and settings.refine is not None:
        between = _between(fastest, rates, settings.refine)
        if between is not None:
            return (between,)
    at_boundary = best is None or best.base_learning_rate in (rates[0], rates[-1])
    return Race(tuple(trials), best, at_boundary, extensions)


def run_races(
    settings: SweepSettings, sides: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]
) -> Decision | list[dict[int, Race]]:
    """The races of every side by their seeds; or what those need next that are not over yet.

    The first seed's are over the whole grid; the others' around its best, once it has an answer on
    every side. Learning rates are added once no race has a trial to advance: so the new trials'
    numbers do not depend on which race came to its end first.

    Args:
        settings: the sweep's.
        sides: the hyperparameters of the first seed's trials, but for the learning rate: of a
            sweep's one side, or of a comparison's, without and with the change.
        trials: those of all races.
    """
    first_seed, *other_seeds = settings.seeds
    of_race: collections.defaultdict[tuple[int, int], list[TrialRecord]]
    of_race = collections.defaultdict(list)
    for trial in trials:
        values = trial.hyperparameters
        of_race[values.get(CHANGED, False), values.get(SEED, first_seed)].append(trial)
    races = {
        (side, first_seed): run_race(settings, of_race[side, first_seed])
        for side in range(len(sides))
    }
    answers = [race for race in races.values() if isinstance(race, Race) and race.status == "found"]
    if len(answers) == len(sides):
        for side, race in enumerate(answers):
            around = _around_best(settings, race)
            races |= {(side, seed): run_race(around, of_race[side, seed]) for seed in other_seeds}
    if advances := [race for race in races.values() if isinstance(race, Advance)]:
        to_step = min(advance.to_step for advance in advances)
        together = (advance.trials for advance in advances if advance.to_step == to_step)
        return Advance(tuple(itertools.chain(*together)), to_step)
    numbers = {trial.trial for trial in trials}
    free = (number for number in itertools.count() if number not in numbers)
    added: dict[int, dict[str, Any]] = {}
    over: list[dict[int, Race]] = [{} for _ in sides]
    for (side, seed), next_of_race in races.items():
        if isinstance(next_of_race, Race):
            over[side][seed] = next_of_race
        elif isinstance(next_of_race, tuple):
            own = sides[side] if seed == first_seed else {**sides[side], SEED: seed}
            added |= {next(free): {LEARNING_RATE: rate, **own} for rate in next_of_race}
    return Add(added) if added else over


def _around_best(settings: SweepSettings, race: Race) -> SweepSettings:
    """The race of another seed: the best learning rate of the first and its two neighbours."""
    assert race.best is not None
    at = race.rates.index(race.best.base_learning_rate)
    nearby = tuple(race.rates[at - 1 : at + 2])
    return dataclasses.replace(settings, learning_rates=nearby, refine=None)


def after_fit(settings: SweepSettings, best: TrialRecord) -> AfterFit | None:
    """What became of a fit; None where nothing was measured after it."""
    after = [row for row in best.rows if row["step"] > (best.fitted_at_step or 0)]
    threshold = settings.fitted_train_loss
    metric = "train_error_rate" if threshold is None else "train_loss"
    if not after or metric not in after[-1]:
        return None
    worst = max(row[metric] if math.isfinite(row[metric]) else math.inf for row in after)
    # A mean of float32 may be off by its last bits.
    lowest = settings.lowest_evaluated_error_rate * (1 + 1e-6)
    held = worst <= lowest if threshold is None else worst < threshold
    return AfterFit(held, after[-1]["step"], metric, worst)


def train_loss(trial: TrialRecord) -> float:
    """The training loss of a trial where it stands; infinite if it is not a number."""
    loss = trial.rows[-1]["train_loss"] if trial.rows else math.inf
    return math.inf if math.isnan(loss) else loss


def _fastest(candidates: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that fitted first (where none fits, those with the lowest training loss), tied.

    By learning rate, ascending.
    """

    def value(trial: TrialRecord) -> float:
        return float(trial.fitted_at_step) if trial.fitted_at_step else train_loss(trial)

    lowest = min((value(t) for t in candidates), default=0.0)
    tied = (t for t in candidates if value(t) == lowest)
    return sorted(tied, key=lambda t: t.base_learning_rate)


def _best(
    fastest: Sequence[TrialRecord], rates: list[float]
) -> tuple[TrialRecord | None, float | None]:
    """Which of equally fast trials is the best, and the learning rate to add outside the grid.

    An interior one goes first, then a smaller learning rate. What to add is the learning rate
    outward of the boundary if one there is as good as any, or None. If every trial diverged, the
    grid is too high.
    """
    if not fastest:
        return None, _outward(rates, down=True)
    interior = [t for t in fastest if t.base_learning_rate not in (rates[0], rates[-1])]
    best = (interior or fastest)[0]
    if fastest[-1].base_learning_rate == rates[-1] and len(rates) > 1:
        return best, _outward(rates, down=False)
    at_lower_end = fastest[0].base_learning_rate == rates[0]
    return best, _outward(rates, down=True) if at_lower_end else None


def _extensions(settings: SweepSettings, trials: Sequence[TrialRecord]) -> int:
    """How many learning rates lay outside all those before them when they were added."""
    tried = list(settings.learning_rates)
    count = 0
    for trial in sorted(trials, key=lambda t: t.trial):
        rate = trial.base_learning_rate
        count += not min(tried) <= rate <= max(tried)
        tried.append(rate)
    return count


def _between(fastest: Sequence[TrialRecord], rates: list[float], ratio: float) -> float | None:
    """The (geometric) middle between a fastest trial and a neighbour that is too far from it.

    Where steps-to-fit has one valley over the learning rates, it lies between the neighbours of the
    fastest: so going on like this ends with the answer of the whole fine grid. One is added at a
    time, since a faster one may leave no need for the others.
    """
    best = {trial.base_learning_rate for trial in fastest}
    for low, high in itertools.pairwise(rates):
        if high / low > ratio * (1 + 1e-9) and best & {low, high}:
            return _rounded((low * high) ** 0.5, low, high)
    return None


def _outward(rates: list[float], down: bool) -> float:
    """The next learning rate outside ``rates``, at the grid's ratio, to four digits if they do."""
    ratio = 10**0.5
    if len(rates) > 1:
        ratio = rates[1] / rates[0] if down else rates[-1] / rates[-2]
    rate = rates[0] / ratio if down else rates[-1] * ratio
    return _rounded(rate, 0.0, rates[0]) if down else _rounded(rate, rates[-1], math.inf)


def _rounded(rate: float, low: float, high: float) -> float:
    """A learning rate to four digits, if it lies between two others even so."""
    rounded = float(f"{rate:.4g}")
    return rounded if low < rounded < high else rate
