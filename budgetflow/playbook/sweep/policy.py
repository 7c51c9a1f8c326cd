"""The learning-rate sweep: the number of steps the fastest constant-rate trial needs to fit.

The playbook, "Algorithm for picking an initial candidate for max_train_steps using a learning rate
sweep": run constant-learning-rate trials without augmentation and regularization; the steps that
the fastest one needs to fit the training set perfectly are the initial ``max_train_steps``. And its
warning: a poor search space invites self-deception, so the best learning rate must not lie at the
boundary of what was tried.

Where training examples contradict each other, no model fits them all; the race is to the lowest
possible error then.

The fastest trial is a minimum over noise: another seed has another one. With several seeds each
runs a race of its own, and the answer is the median of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from budgetflow.playbook.common.measurement import Advance, Conclude, Decision, TrialRecord
from budgetflow.playbook.common.outcomes import Regime, SeedAnswer, SweepOutcome
from budgetflow.playbook.sweep.race import Race, SweepSettings, after_fit, run_races
from budgetflow.playbook.sweep.regime import read_training_curve
from budgetflow.playbook.sweep.words import sweep_reasons


def decide(settings: SweepSettings, trials: Sequence[TrialRecord]) -> Decision:
    """What to do next, given what the study's trials have shown."""
    sides = run_races(settings, [{}], trials)
    if not isinstance(sides, list):
        return sides
    (races,) = sides
    # The race with the median answer, the larger one of two; no answer is the largest.
    ranked = sorted(races.values(), key=lambda race: race.steps_to_fit or math.inf)
    answer = ranked[len(ranked) // 2]
    if (best := answer.best) is not None and best.fitted_at_step is not None:
        # One epoch further, to see whether the fit holds.
        until = min(best.fitted_at_step + settings.steps_per_epoch, settings.max_train_steps)
        if best.step < until and best.status != "diverged":
            return Advance((best.trial,), until)
    return Conclude(conclusion(settings, races, answer))


def conclusion(settings: SweepSettings, races: dict[int, Race], answer: Race) -> SweepOutcome:
    """The outcome of a sweep whose races are over.

    Args:
        settings: the sweep's.
        races: of every seed, the first one's first.
        answer: the one among them whose answer is the sweep's.
    """
    best, first = answer.best, next(iter(races.values()))
    trials = [trial for race in races.values() for trial in race.trials]
    reading = fit = None
    if best is not None and best.fitted_at_step is None:
        reading = read_training_curve(best.rows, settings)
    elif best is not None:
        fit = after_fit(settings, best)
    regime: Regime = "not_compute_bound"
    not_fitted_because, suggestion = None, None
    looks_like = reading.looks_like if reading else None
    if best is None or (answer.at_boundary and looks_like not in (None, "threshold_too_low")):
        # The learning rates themselves may be at fault.
        regime, not_fitted_because = "undecided", "bad_grid"
    elif reading:
        regime, not_fitted_because = reading.regime, looks_like
        suggestion = reading.suggested_max_train_steps
    counted = settings.contradicting_examples is not None
    outcome = SweepOutcome(
        status=answer.status,
        max_train_steps=answer.steps_to_fit,
        fitted_at_step_bracket=best.fitted_at_step_bracket if best else None,
        best_trial=best.trial if best else None,
        best_learning_rate=best.base_learning_rate if best else None,
        learning_rates=tuple(sorted({trial.base_learning_rate for trial in trials})),
        extensions=first.extensions,
        refinements=len(first.trials) - len(settings.learning_rates) - first.extensions,
        seeds=tuple(
            SeedAnswer(
                seed=seed,
                status=race.status,
                max_train_steps=race.steps_to_fit,
                best_learning_rate=race.best.base_learning_rate if race.best else None,
            )
            for seed, race in races.items()
        ),
        fit_held=fit.held if fit else None,
        regime=regime,
        steps_trained=sum(trial.step for trial in trials),
        steps_full_grid=len(trials) * settings.max_train_steps,
        diverged=sum(trial.diverged for trial in trials),
        suggested_max_train_steps=suggestion,
        fitted_train_loss=settings.fitted_train_loss,
        contradicting_examples=settings.contradicting_examples,
        lowest_train_errors=settings.lowest_train_errors if counted else None,
        not_fitted_because=not_fitted_because,
    )
    return outcome.with_reasons(sweep_reasons(outcome, settings, first, answer, reading, fit))
