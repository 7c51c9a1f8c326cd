"""The learning-rate sweep: the number of steps the fastest constant-rate trial needs to fit.

The playbook, "Algorithm for picking an initial candidate for max_train_steps using a learning rate
sweep": run constant-learning-rate trials without augmentation and regularization; the steps that
the fastest one needs to fit the training set perfectly are the initial ``max_train_steps``. And its
warning: a poor search space invites self-deception, so the best learning rate must not lie at the
boundary of what was tried.

Trials race in lockstep. Once one fits at step s, the others are trained just far enough to see
whether they fit earlier; so the cost does not depend on the number of steps thought sufficient.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from budgetflow.playbook.measurement import Add, Advance, Conclude, Decision, TrialView
from budgetflow.playbook.regime import read_training_curve

LEARNING_RATE = "schedule.base_learning_rate"
BOUNDARY_WARNING = "THE BEST LEARNING RATE LIES AT THE BOUNDARY of those tried, extensions included"
MOVE_GRID = "Move config.sweep.learning_rates or raise config.sweep.max_extensions."


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """What a sweep is asked to do.

    Attributes:
        learning_rates: the first grid.
        max_train_steps: N, the steps known or guessed to suffice.
        max_extensions: how many learning rates may be added outside the grid.
        num_train_examples: the size of the training set, for reading a curve that does not fit.
        fitted_train_loss: the training loss under which a trial counts as fitted; None where every
            example must be.
        refine: the ratio to which the spacing around the best learning rate is halved; None to keep
            that of the grid.
    """

    learning_rates: tuple[float, ...]
    max_train_steps: int
    max_extensions: int
    num_train_examples: int
    fitted_train_loss: float | None = None
    refine: float | None = None


@functools.lru_cache(maxsize=8)
def lockstep_grid(max_train_steps: int) -> tuple[int, ...]:
    """The steps at which trials wait for each other and are evaluated, the last being N.

    Every step at first, then each about 1.15 times the one before: no trial runs much further than
    the step that decides the race, and there are more than 40 evaluations up to N.
    """
    grid = np.geomspace(1, max_train_steps, 2 + int(np.log(max_train_steps) / np.log(1.15)))
    even = np.linspace(max_train_steps / 40, max_train_steps, 40)
    return tuple(int(step) for step in np.unique(np.ceil(np.concatenate([grid, even]) - 1e-6)))


def decide(settings: SweepSettings, trials: Sequence[TrialView]) -> Decision:
    """What to do next, given what the study's trials have shown."""
    tried = {trial.base_learning_rate for trial in trials}
    numbers = {trial.trial for trial in trials}
    missing = {
        number: {LEARNING_RATE: rate}
        for number, rate in enumerate(settings.learning_rates)
        if rate not in tried
    }
    if missing:
        return Add(missing)
    fitting = [t for t in trials if t.fitted_at_step is not None]
    grid = lockstep_grid(settings.max_train_steps)
    horizon = settings.max_train_steps
    if fitting:
        first = min(t.fitted_at_step for t in fitting if t.fitted_at_step is not None)
        horizon = grid[bisect.bisect_left(grid, first)]
    racing = [t for t in trials if t.step < horizon and t.fitted_at_step is None and not t.diverged]
    if racing:
        last = min(t.step for t in racing)
        to_step = grid[bisect.bisect_right(grid, last)]
        return Advance(tuple(t.trial for t in racing if t.step < to_step), to_step)
    rates = sorted(tried)
    fastest = _fastest(fitting or [t for t in trials if not t.diverged])
    best, outward = _best(fastest, rates)
    extensions = _extensions(settings, trials)
    added = None
    if outward is not None:
        added = outward if extensions < settings.max_extensions else None
    elif fitting and settings.refine is not None:
        added = _between(fastest, rates, settings.refine)
    if added is not None:
        number = next(n for n in itertools.count() if n not in numbers)
        return Add({number: {LEARNING_RATE: added}})
    at_boundary = best is None or best.base_learning_rate in (rates[0], rates[-1])
    return Conclude(_outcome(settings, trials, best, at_boundary, extensions))


def _fastest(candidates: Sequence[TrialView]) -> list[TrialView]:
    """The trials that fitted first (where none fits, those with the lowest training loss), tied.

    By learning rate, ascending.
    """

    def value(trial: TrialView) -> float:
        return float(trial.fitted_at_step) if trial.fitted_at_step else _train_loss(trial)

    lowest = min((value(t) for t in candidates), default=0.0)
    tied = (t for t in candidates if value(t) == lowest)
    return sorted(tied, key=lambda t: t.base_learning_rate)


def _best(
    fastest: Sequence[TrialView], rates: list[float]
) -> tuple[TrialView | None, float | None]:
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


def _extensions(settings: SweepSettings, trials: Sequence[TrialView]) -> int:
    """How many learning rates lay outside all those before them when they were added."""
    known = list(settings.learning_rates)
    count = 0
    for trial in sorted(trials, key=lambda t: t.trial):
        rate = trial.base_learning_rate
        count += not min(known) <= rate <= max(known)
        known.append(rate)
    return count


def _between(fastest: Sequence[TrialView], rates: list[float], ratio: float) -> float | None:
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


def _train_loss(trial: TrialView) -> float:
    loss = trial.rows[-1]["train_loss"] if trial.rows else float("inf")
    return loss if loss == loss else float("inf")


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


def _outcome(
    settings: SweepSettings,
    trials: Sequence[TrialView],
    best: TrialView | None,
    at_boundary: bool,
    extensions: int,
) -> dict[str, Any]:
    rates = sorted(t.base_learning_rate for t in trials)
    fitted = best is not None and best.fitted_at_step is not None
    status = "not_fitted" if not fitted else "at_boundary" if at_boundary else "found"
    outcome: dict[str, Any] = {
        "kind": "lr_sweep",
        "status": status,
        "max_train_steps": best.fitted_at_step if best and status == "found" else None,
        "fitted_at_step_bracket": list(best.fitted_at_step_bracket or ()) or None if best else None,
        "best_learning_rate": best.base_learning_rate if best else None,
        "learning_rates": rates,
        "extensions": extensions,
        "refinements": len(trials) - len(settings.learning_rates) - extensions,
        "regime": "not_compute_bound" if fitted else "undecided",
        "steps_trained": sum(t.step for t in trials),
        "steps_full_grid": len(trials) * settings.max_train_steps,
        "diverged": sum(t.diverged for t in trials),
        "suggested_max_train_steps": None,
        "fitted_train_loss": settings.fitted_train_loss,
    }
    reasons = [
        f"{len(trials)} constant learning rates from {rates[0]:g} to {rates[-1]:g} were tried"
        + (f", {extensions} of them added outside the first grid" if extensions else "")
        + (f", {outcome['refinements']} added around the best" if outcome["refinements"] else "")
        + (f"; {outcome['diverged']} diverged and are infeasible." if outcome["diverged"] else ".")
    ]
    if best is None:
        outcome["not_fitted_because"] = "bad_grid"
        reasons.append(
            "Every trial diverged: the grid is bad. Try much smaller learning rates, or look for "
            "an error in the model or the data."
        )
    elif fitted:
        reasons += _reasons_when_fitted(settings, trials, best, at_boundary)
    else:
        reading = read_training_curve(
            best.rows, settings.max_train_steps, settings.num_train_examples,
            settings.fitted_train_loss,
        )  # fmt: skip
        outcome["regime"] = "undecided" if at_boundary else reading.regime
        outcome["not_fitted_because"] = "bad_grid" if at_boundary else reading.looks_like
        if not at_boundary:
            outcome["suggested_max_train_steps"] = reading.suggested_max_train_steps
        reasons.append(
            f"No trial fitted the training set within {settings.max_train_steps} steps. The lowest "
            f"training loss was reached at learning rate {best.base_learning_rate:g} (trial "
            f"{best.trial})."
        )
        if at_boundary:
            reasons.append(f"{BOUNDARY_WARNING}, so the grid itself may be at fault. {MOVE_GRID}")
        else:
            reasons.append(reading.reason)
    return {**outcome, "reasons": reasons}


def _reasons_when_fitted(
    settings: SweepSettings, trials: Sequence[TrialView], best: TrialView, at_boundary: bool
) -> list[str]:
    assert best.fitted_at_step_bracket is not None
    before, at = best.fitted_at_step_bracket
    when = f"at step {at}" if before == at - 1 else f"between steps {before} and {at}"
    fitted = "fitted the whole training set"
    if settings.fitted_train_loss is not None:
        fitted = f"had a training loss under {settings.fitted_train_loss:g}"
    reasons = [
        f"The fastest trial (trial {best.trial}, learning rate {best.base_learning_rate:g}) first "
        f"{fitted} {when}, so training is not compute-bound."
    ]
    others = [t for t in trials if t.fitted_at_step is not None and t is not best]
    if others:
        second = min(others, key=lambda t: t.fitted_at_step or 0)
        reasons.append(
            f"The next best learning rate, {second.base_learning_rate:g}, fitted at step "
            f"{second.fitted_at_step}."
        )
    if at_boundary:
        reasons.append(
            f"{BOUNDARY_WARNING}, so {at} steps may be far too many and are not given as the "
            f"answer. {MOVE_GRID}"
        )
    else:
        reasons.append(
            "The best learning rate is interior: none on either side of it fitted earlier."
        )
    return reasons
