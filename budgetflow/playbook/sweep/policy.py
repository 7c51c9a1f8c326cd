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

from budgetflow.playbook.common.measurement import SEED, Advance, Conclude, Decision, TrialRecord
from budgetflow.playbook.common.outcomes import Regime, SeedAnswer, SweepOutcome
from budgetflow.playbook.common.reasons import reasons_of
from budgetflow.playbook.sweep.facts import SweepFacts, sweep_facts
from budgetflow.playbook.sweep.race import Race, SweepSettings, around_best, merged, run_race
from budgetflow.playbook.sweep.words import sweep_reasons


def decide(settings: SweepSettings, trials: Sequence[TrialRecord]) -> Decision:
    """What to do next, given what the study's trials have shown."""
    first_seed, *other_seeds = settings.seeds
    of_seed = {
        seed: [t for t in trials if t.hyperparameters.get(SEED, first_seed) == seed]
        for seed in settings.seeds
    }
    races = {first_seed: run_race(settings, of_seed[first_seed])}
    first = races[first_seed]
    if isinstance(first, Race) and first.status == "found":
        around = around_best(settings, first)
        races |= {seed: run_race(around, of_seed[seed]) for seed in other_seeds}
    over = {seed: race for seed, race in races.items() if isinstance(race, Race)}
    if len(over) < len(races):
        own = {seed: {} if seed == first_seed else {SEED: seed} for seed in races}
        return merged(races, own, trials)
    answer = _median(list(over.values()))
    if (best := answer.best) is not None and best.fitted_at_step is not None:
        # One epoch further, to see whether the fit holds.
        until = min(best.fitted_at_step + settings.steps_per_epoch, settings.max_train_steps)
        if best.step < until and best.status != "diverged":
            return Advance((best.trial,), until)
    return Conclude(_outcome(sweep_facts(settings, over, answer)))


def _median(races: Sequence[Race]) -> Race:
    """The race with the median answer, the larger one of two; none found is the largest."""
    ranked = sorted(races, key=lambda race: race.steps_to_fit or math.inf)
    return ranked[len(ranked) // 2]


def _outcome(facts: SweepFacts) -> SweepOutcome:
    settings, answer, reading = facts.settings, facts.answer, facts.reading
    best = answer.best
    trials = [trial for race in facts.races.values() for trial in race.trials]
    regime: Regime = "not_compute_bound"
    not_fitted_because: str | None = None
    if facts.grid_is_bad:
        regime, not_fitted_because, reading = "undecided", "bad_grid", None
    elif reading is not None:
        regime, not_fitted_because = reading.regime, reading.looks_like
    counted = settings.contradicting_examples is not None
    return SweepOutcome(
        status=answer.status,
        max_train_steps=answer.steps_to_fit,
        fitted_at_step_bracket=best.fitted_at_step_bracket if best else None,
        best_trial=best.trial if best else None,
        best_learning_rate=best.base_learning_rate if best else None,
        learning_rates=tuple(sorted({trial.base_learning_rate for trial in trials})),
        extensions=facts.first.extensions,
        refinements=facts.refinements,
        seeds=tuple(_seed_answer(seed, race) for seed, race in facts.races.items()),
        fit_held=facts.after_fit.held if facts.after_fit else None,
        regime=regime,
        steps_trained=sum(trial.step for trial in trials),
        steps_full_grid=len(trials) * settings.max_train_steps,
        diverged=sum(trial.diverged for trial in trials),
        suggested_max_train_steps=reading.suggested_max_train_steps if reading else None,
        fitted_train_loss=settings.fitted_train_loss,
        contradicting_examples=settings.contradicting_examples,
        lowest_train_errors=settings.lowest_train_errors if counted else None,
        not_fitted_because=not_fitted_because,
        reasons=reasons_of(sweep_reasons(facts)),
    )


def _seed_answer(seed: int, race: Race) -> SeedAnswer:
    return SeedAnswer(
        seed=seed,
        status=race.status,
        max_train_steps=race.steps_to_fit,
        best_learning_rate=race.best.base_learning_rate if race.best else None,
    )
