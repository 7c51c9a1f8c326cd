"""The learning-rate sweep: the number of steps the fastest constant-rate trial needs to fit.

The playbook, "Algorithm for picking an initial candidate for max_train_steps using a learning rate
sweep": run constant-learning-rate trials without augmentation and regularization; the steps that
the fastest one needs to fit the training set perfectly are the initial ``max_train_steps``. And its
warning: a poor search space invites self-deception, so the best learning rate must not lie at the
boundary of what was tried.

Where training examples contradict each other, no model fits them all; the race is to the lowest
possible error then, and every sentence says so.

The fastest trial is a minimum over noise: another seed has another one. With several seeds each
runs a race of its own, and the answer is the median of theirs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from budgetflow.playbook.measurement import Add, Advance, Conclude, Decision, TrialView
from budgetflow.playbook.race import Race, SweepSettings, run_race
from budgetflow.playbook.regime import read_training_curve

LEARNING_RATE, SEED = "schedule.base_learning_rate", "seed"
BOUNDARY_WARNING = "THE BEST LEARNING RATE LIES AT THE BOUNDARY of those tried, extensions included"
MOVE_GRID = "Move config.sweep.learning_rates or raise config.sweep.max_extensions."


def decide(settings: SweepSettings, trials: Sequence[TrialView]) -> Decision:
    """What to do next, given what the study's trials have shown."""
    first_seed, *other_seeds = settings.seeds
    of_seed = {
        seed: [t for t in trials if t.hyperparameters.get(SEED, first_seed) == seed]
        for seed in settings.seeds
    }
    races = {first_seed: run_race(settings, of_seed[first_seed])}
    first = races[first_seed]
    if isinstance(first, Race) and first.status == "found":
        around = _around_best(settings, first)
        races |= {seed: run_race(around, of_seed[seed]) for seed in other_seeds}
    over = {seed: race for seed, race in races.items() if isinstance(race, Race)}
    if len(over) < len(races):
        return _merged(races, first_seed, {trial.trial for trial in trials})
    answer = _median(list(over.values()))
    if (best := answer.best) is not None and best.fitted_at_step is not None:
        # One epoch further, to see whether the fit holds.
        until = min(best.fitted_at_step + settings.steps_per_epoch, settings.max_train_steps)
        if best.step < until and best.status != "diverged":
            return Advance((best.trial,), until)
    return Conclude(_outcome(settings, over, answer))


def _around_best(settings: SweepSettings, race: Race) -> SweepSettings:
    """The race of another seed: the best learning rate of the first and its two neighbours."""
    assert race.best is not None
    at = race.rates.index(race.best.base_learning_rate)
    nearby = tuple(race.rates[at - 1 : at + 2])
    return dataclasses.replace(settings, learning_rates=nearby, refine=None)


def _merged(races: dict[int, Any], first_seed: int, numbers: set[int]) -> Decision:
    """One decision for what the races need that are not over yet: additions first."""
    free = (number for number in itertools.count() if number not in numbers)
    added: dict[int, dict[str, Any]] = {}
    for seed, rates in races.items():
        if isinstance(rates, tuple):
            of_seed = {} if seed == first_seed else {SEED: seed}
            added |= {next(free): {LEARNING_RATE: rate, **of_seed} for rate in rates}
    if added:
        return Add(added)
    advances = [advance for advance in races.values() if isinstance(advance, Advance)]
    to_step = min(advance.to_step for advance in advances)
    together = (advance.trials for advance in advances if advance.to_step == to_step)
    return Advance(tuple(itertools.chain(*together)), to_step)


def _median(races: Sequence[Race]) -> Race:
    """The race with the median answer, the larger one of two; none found is the largest."""
    ranked = sorted(races, key=lambda race: race.steps_to_fit or math.inf)
    return ranked[len(ranked) // 2]


def _outcome(settings: SweepSettings, races: dict[int, Race], answer: Race) -> dict[str, Any]:
    first = next(iter(races.values()))
    trials = [trial for race in races.values() for trial in race.trials]
    rates, best = first.rates, answer.best
    fitted = best is not None and best.fitted_at_step is not None
    held = _fit_held(settings, best) if best is not None and fitted else None
    outcome: dict[str, Any] = {
        "kind": "lr_sweep",
        "status": answer.status,
        "max_train_steps": answer.steps_to_fit,
        "fitted_at_step_bracket": list(best.fitted_at_step_bracket or ()) or None if best else None,
        "best_trial": best.trial if best else None,
        "best_learning_rate": best.base_learning_rate if best else None,
        "learning_rates": sorted({trial.base_learning_rate for trial in trials}),
        "extensions": first.extensions,
        "refinements": len(rates) - len(settings.learning_rates) - first.extensions,
        "seeds": [
            {
                "seed": seed,
                "status": race.status,
                "max_train_steps": race.steps_to_fit,
                "best_learning_rate": race.best.base_learning_rate if race.best else None,
            }
            for seed, race in races.items()
        ],
        "fit_held": held[0] if held else None,
        "regime": "not_compute_bound" if fitted else "undecided",
        "steps_trained": sum(t.step for t in trials),
        "steps_full_grid": len(trials) * settings.max_train_steps,
        "diverged": sum(t.diverged for t in trials),
        "suggested_max_train_steps": None,
        "fitted_train_loss": settings.fitted_train_loss,
        "contradicting_examples": settings.contradicting_examples,
        "lowest_train_errors": (
            None if settings.contradicting_examples is None else settings.lowest_train_errors
        ),
    }
    added = [
        f"{outcome['extensions']} of them added outside the first grid" * (first.extensions > 0),
        f"{outcome['refinements']} added around the best" * (outcome["refinements"] > 0),
    ]
    diverged = sum(t.diverged for t in first.trials)
    reasons = [
        f"{len(rates)} constant learning rates from {rates[0]:g} to {rates[-1]:g} "
        f"({math.log10(rates[-1] / rates[0]):.1f} decades) were tried"
        + "".join(f", {text}" for text in added if text)
        + (f"; {diverged} diverged and are infeasible." if diverged else "."),
        *_contradictions(settings),
    ]
    if best is None:
        outcome["not_fitted_because"] = "bad_grid"
        reasons.append(
            "Every trial diverged: the grid is bad. Try much smaller learning rates, or look for "
            "an error in the model or the data."
        )
    elif fitted:
        reasons += _reasons_when_fitted(settings, races, answer, best)
        reasons += [held[1]] if held else []
    else:
        more, sentences = _not_fitted(settings, best, answer.at_boundary)
        outcome |= more
        reasons += sentences
    return {**outcome, "reasons": reasons}


def _contradictions(settings: SweepSettings) -> Iterator[str]:
    """What is known of examples that contradict each other, if any do."""
    if not settings.contradicting_examples:
        return
    errors, examples = settings.lowest_train_errors, settings.num_train_examples
    consequence = (
        "the race went to that lowest possible error instead of a perfect fit."
        if settings.fitted_train_loss is None
        else f"the lowest possible training loss is {settings.lowest_train_loss:.4g}."
    )
    yield (
        f"{settings.contradicting_examples} of {examples} training examples contradict each other "
        f"(equal inputs, different labels), so that at least {errors} ({errors / examples:.2%}) "
        f"must be wrong: {consequence}"
    )


def _fitted(settings: SweepSettings) -> str:
    """What a trial did that fitted."""
    if settings.fitted_train_loss is not None:
        return f"had a training loss under {settings.fitted_train_loss:g}"
    if settings.contradicting_examples:
        return f"had the lowest possible error ({settings.lowest_train_errors} examples wrong)"
    return "fitted the whole training set"


def _not_fitted(
    settings: SweepSettings, best: TrialView, at_boundary: bool
) -> tuple[dict[str, Any], list[str]]:
    """What follows where no trial fitted the training set: outcome fields and reasons."""
    reading = read_training_curve(best.rows, settings)
    reasons = [
        f"No trial {_fitted(settings)} within {settings.max_train_steps} steps. The lowest "
        f"training loss was reached at learning rate {best.base_learning_rate:g} (trial "
        f"{best.trial})."
    ]
    if at_boundary and reading.looks_like != "threshold_too_low":
        reasons.append(f"{BOUNDARY_WARNING}, so the grid itself may be at fault. {MOVE_GRID}")
        return {"regime": "undecided", "not_fitted_because": "bad_grid"}, reasons
    return {
        "regime": reading.regime,
        "not_fitted_because": reading.looks_like,
        "suggested_max_train_steps": reading.suggested_max_train_steps,
    }, [*reasons, reading.reason]


def _reasons_when_fitted(
    settings: SweepSettings, races: dict[int, Race], answer: Race, best: TrialView
) -> Iterator[str]:
    assert best.fitted_at_step_bracket is not None
    before, at = best.fitted_at_step_bracket
    when = f"at step {at}" if before == at - 1 else f"between steps {before} and {at}"
    yield (
        f"The fastest trial (trial {best.trial}, learning rate {best.base_learning_rate:g}) first "
        f"{_fitted(settings)} {when}, so training is not compute-bound. N = "
        f"{settings.max_train_steps} did not bind: no trial needed so many."
    )
    yield _next_best(settings, answer.trials, best, at)
    if answer.at_boundary:
        yield (
            f"{BOUNDARY_WARNING}, so {at} steps may be far too many and are not given as the "
            f"answer. {MOVE_GRID}"
        )
    else:
        yield "The best learning rate is interior: none on either side of it fitted earlier."
    if answer.status == "found":
        yield _spread(settings, races, answer)


def _next_best(
    settings: SweepSettings, trials: Sequence[TrialView], best: TrialView, at: int
) -> str:
    """How far behind the next best trial was, at the last evaluation before the fit."""
    others = [t for t in trials if t is not best and not t.diverged]
    if also := [t for t in others if t.fitted_at_step == at]:
        return f"Learning rate {also[0].base_learning_rate:g} fitted at the same step."
    # Steps of the lockstep grid, which all trials pass.
    reference = max((row["step"] for row in best.rows if row["step"] <= at), default=0)
    rows = {t.base_learning_rate: r for t in others for r in t.rows if r["step"] == reference}
    if not rows:
        return "No other trial came as far."
    by_error = settings.fitted_train_loss is None and "train_error_rate" in best.rows[-1]
    metric = "train_error_rate" if by_error else "train_loss"
    second = min(rows, key=lambda rate: (rows[rate][metric], rows[rate]["train_loss"]))
    return (
        f"The next best learning rate, {second:g}, had {_shown(metric, rows[second][metric])} at "
        f"step {reference}."
    )


def _shown(metric: str, value: float) -> str:
    if metric == "train_loss":
        return f"a training loss of {value:.3g}"
    return f"{value:.2%} of the training examples wrong"


def _spread(settings: SweepSettings, races: dict[int, Race], answer: Race) -> str:
    """How far the answers of different seeds lie apart."""
    if len(races) == 1:
        return (
            "The fastest trial is a minimum over noise, and this is one seed: config.sweep.seeds = "
            "5 would show how far the number moves with the seed."
        )
    found = sorted(race.steps_to_fit for race in races.values() if race.steps_to_fit)
    lost = len(races) - len(found)
    return (
        f"Over {len(races)} seeds the fastest trials fitted at steps "
        f"{', '.join(map(str, found))}{f' ({lost} found no answer)' if lost else ''}: "
        f"the answer is their median, {answer.steps_to_fit}; a single seed's is off by up to "
        f"{max(abs(steps / (answer.steps_to_fit or 1) - 1) for steps in found):.0%}."
    )


def _fit_held(settings: SweepSettings, best: TrialView) -> tuple[bool, str] | None:
    """Whether the winner still fitted up to an epoch later, and that in a sentence."""
    after = [row for row in best.rows if row["step"] > (best.fitted_at_step or 0)]
    threshold = settings.fitted_train_loss
    metric = "train_error_rate" if threshold is None else "train_loss"
    if not after or metric not in after[-1]:
        return None
    worst = max(row[metric] if math.isfinite(row[metric]) else math.inf for row in after)
    last = after[-1]["step"]
    # A mean of float32 may be off by its last bits.
    lowest = settings.lowest_evaluated_error_rate * (1 + 1e-6)
    if worst <= lowest if threshold is None else worst < threshold:
        return True, f"The fit held: the fastest trial was trained on to step {last}, and kept it."
    return False, (
        f"The fit did not hold: trained on to step {last}, the fastest trial had "
        f"{_shown(metric, worst)} again, so the number may be a little too small."
    )
