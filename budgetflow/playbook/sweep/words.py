"""The sentences of a sweep's outcome."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from budgetflow.playbook.common.measurement import PARTIAL, Row
from budgetflow.playbook.common.outcomes import Regime, SweepOutcome
from budgetflow.playbook.common.reasons import Reason, Sentence
from budgetflow.playbook.common.words import words
from budgetflow.playbook.sweep.race import AfterFit, Race, SweepSettings
from budgetflow.playbook.sweep.regime import MIN_EPOCHS, CurveReading

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

BOUNDARY_WARNING = "THE BEST LEARNING RATE LIES AT THE BOUNDARY of those tried, extensions included"
MOVE_GRID = "Move config.sweep.learning_rates or raise config.sweep.max_extensions."
# Which of the playbook's two workflows follows from the kind of workload.
_FOLLOWS = {
    "not_compute_bound": (
        "tune in one round of this length or more (config.kind = 'round'), and let its best steps "
        "say whether the length is right"
    ),
    "compute_bound": (
        "tune in rounds of growing length, the last as long as you can wait for (config.kind = "
        "'rounds')"
    ),
    "undecided": "settle that first, or state it with config.regime",
}


def sweep_reasons(
    outcome: SweepOutcome,
    settings: SweepSettings,
    first: Race,
    answer: Race,
    reading: CurveReading | None,
    fit: AfterFit | None,
) -> Iterator[Sentence]:
    """The reasons of a sweep's outcome.

    Args:
        outcome: all else of it.
        settings: the sweep's.
        first: the race of the first seed, over the whole grid.
        answer: the race whose answer is the sweep's.
        reading: the best trial's curve, where none fitted.
        fit: what became of the fastest trial's; None where nothing was measured after it.
    """
    yield _tried(outcome, first)
    if settings.contradicting_examples:
        yield _contradictions(settings)
    if answer.best is None:
        yield (
            "Every trial diverged: the grid is bad. Try much smaller learning rates, or look for "
            "an error in the model or the data."
        )
    elif reading is None:
        yield from _fitted_reasons(outcome, settings, answer)
        if fit:
            yield _after_fit(fit)
    else:
        yield (
            f"No trial {_fitted(settings)} within {settings.max_train_steps} steps. The lowest "
            f"training loss was reached at learning rate {outcome.best_learning_rate:g} (trial "
            f"{outcome.best_trial})."
        )
        if outcome.not_fitted_because == "bad_grid":
            text = f"{BOUNDARY_WARNING}, so the grid itself may be at fault. {MOVE_GRID}"
            yield Reason(text, loud=True)
        else:
            yield curve_reading(reading, settings)


def _tried(outcome: SweepOutcome, first: Race) -> str:
    rates = first.rates
    text = (
        f"{len(rates)} constant learning rates from {rates[0]:g} to {rates[-1]:g} "
        f"({math.log10(rates[-1] / rates[0]):.1f} decades) were tried"
    )
    if outcome.extensions:
        text += f", {outcome.extensions} of them added outside the first grid"
    if outcome.refinements:
        text += f", {outcome.refinements} added around the best"
    if diverged := sum(trial.diverged for trial in first.trials):
        text += f"; {diverged} diverged and are infeasible"
    return f"{text}."


def _contradictions(settings: SweepSettings) -> str:
    """What is known of examples that contradict each other."""
    errors, examples = settings.lowest_train_errors, settings.num_train_examples
    if settings.fitted_train_loss is None:
        consequence = "the race went to that lowest possible error instead of a perfect fit."
    else:
        consequence = f"the lowest possible training loss is {settings.lowest_train_loss:.4g}."
    return (
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


def _fitted_reasons(
    outcome: SweepOutcome, settings: SweepSettings, answer: Race
) -> Iterator[Sentence]:
    assert outcome.fitted_at_step_bracket is not None
    before, at = outcome.fitted_at_step_bracket
    when = f"at step {at}" if before == at - 1 else f"between steps {before} and {at}"
    yield (
        f"The fastest trial (trial {outcome.best_trial}, learning rate "
        f"{outcome.best_learning_rate:g}) first {_fitted(settings)} {when}, so training is not "
        f"compute-bound. N = {settings.max_train_steps} did not bind: no trial needed so many."
    )
    yield next_best(settings, answer)
    if answer.at_boundary:
        text = (
            f"{BOUNDARY_WARNING}, so {at} steps may be far too many and are not given as the "
            f"answer. {MOVE_GRID}"
        )
        yield Reason(text, loud=True)
    else:
        yield "The best learning rate is interior: none on either side of it fitted earlier."
    if outcome.max_train_steps is not None:
        yield _spread([one.max_train_steps for one in outcome.seeds], outcome.max_train_steps)


def next_best(settings: SweepSettings, race: Race) -> str:
    """How far behind the fastest trial the next best was, at the last evaluation before the fit."""
    assert race.best is not None
    best, at = race.best, race.best.fitted_at_step or 0
    others = [trial for trial in race.trials if trial is not best and not trial.diverged]
    if also := [trial for trial in others if trial.fitted_at_step == at]:
        return f"Learning rate {also[0].base_learning_rate:g} fitted at the same step."
    # Steps of the lockstep grid, which all trials pass.
    step = max((row["step"] for row in best.rows if row["step"] <= at), default=0)
    rows = {t.base_learning_rate: row for t in others for row in t.rows if row["step"] == step}
    if not rows:
        return "No other trial came as far."
    by_error = settings.fitted_train_loss is None and "train_error_rate" in best.rows[-1]
    metric = "train_error_rate" if by_error else "train_loss"
    rate = min(rows, key=lambda rate: (rows[rate][metric], rows[rate]["train_loss"]))
    shown = _shown(metric, rows[rate][metric], rows[rate].get(PARTIAL))
    return f"The next best learning rate, {rate:g}, had {shown} at step {step}."


def _shown(metric: str, value: float, examples: int | None = None) -> str:
    if metric == "train_loss":
        return f"a training loss of {value:.3g}{f' on {examples} examples' if examples else ''}"
    return f"{value:.2%} of the {f'first {examples} ' if examples else ''}training examples wrong"


def _spread(answers: Sequence[int | None], median: int) -> str:
    """How far the answers of different seeds lie apart."""
    if len(answers) == 1:
        return (
            "The fastest trial is a minimum over noise, and this is one seed: config.sweep.seeds = "
            "5 would show how far the number moves with the seed."
        )
    fitted = sorted(steps for steps in answers if steps)
    lost = len(answers) - len(fitted)
    return (
        f"Over {len(answers)} seeds the fastest trials fitted at steps "
        f"{', '.join(map(str, fitted))}{f' ({lost} found no answer)' if lost else ''}: "
        f"the answer is their median, {median}; a single seed's is off by up to "
        f"{max(abs(steps / median - 1) for steps in fitted):.0%}."
    )


def _after_fit(fit: AfterFit) -> str:
    if fit.held:
        return f"The fit held: the fastest trial was trained on to step {fit.step}, and kept it."
    return (
        f"The fit did not hold: trained on to step {fit.step}, the fastest trial had "
        f"{_shown(fit.metric, fit.worst)} again, so the number may be a little too small."
    )


def curve_reading(reading: CurveReading, settings: SweepSettings) -> str:
    """What a training curve without a perfect fit looks like, with the evidence."""
    lowest, suggestion = settings.lowest_train_loss, reading.suggested_max_train_steps
    if reading.shows == "threshold_impossible":
        return (
            f"A training loss under {settings.fitted_train_loss:g} is impossible: since examples "
            f"contradict each other, the lowest is {lowest:.4g}. Raise "
            "config.sweep.fitted_train_loss above it."
        )
    shown = seen = ""
    if reading.middle and reading.end:
        shown = f"from {_point(reading.middle)} to {_point(reading.end)}"
        seen = f" The best training loss went {shown}, a fall of {reading.fall:.1%}."
    above = f" of what is above the lowest possible ({lowest:.3g})" if lowest else ""
    if reading.shows == "too_few_epochs":
        return _too_few_epochs(settings, suggestion, seen)
    if reading.shows == "stalled":
        return (
            f"The best training loss has stalled: it went {shown}, a fall of {reading.fall:.1%}"
            f"{above}. It looks like a model that cannot fit this training set at a constant "
            "learning rate: try a larger model, or look for wrong labels."
            f"{_other_explanation(settings.contradicting_examples)}"
        )
    if reading.shows == "falling_slowly":
        return (
            f"The best training loss is still falling at N, but slowly: {shown}, a fall of "
            f"{reading.fall:.1%}{above} since the middle of the run, after {settings.epochs:.3g} "
            "epochs. It looks compute-bound: choose the length by patience, and tune in rounds."
        )
    if reading.shows == "all_but_fitted":
        why = (
            "the examples evaluated are all but as well fitted as they can be, some of them "
            f"contradicting each other (the lowest possible loss is {lowest:.3g})."
        )
    else:
        why = f"so is still falling fast ({reading.fall:.0%}{above} since the middle of the run)."
    return (
        f"N is too small ({settings.epochs:.3g} epochs): the best training loss went {shown}, and "
        f"{why} Try --config.max_train_steps={suggestion}."
    )


def _point(row: Row) -> str:
    return f"{row['train_loss']:.3g} around step {row['step']:.0f}"


def _too_few_epochs(settings: SweepSettings, suggestion: int | None, seen: str) -> str:
    epochs = "epoch" if settings.epochs == 1 else "epochs"
    return (
        f"N = {settings.max_train_steps} ({settings.epochs:.2g} {epochs}) is too small to read a "
        f"curve: in fewer than {MIN_EPOCHS} epochs a training set that will be fitted can look "
        f"like one that never will.{seen} Try --config.max_train_steps={suggestion}: the race ends "
        "as soon as a trial fits. If nobody can wait for so many, it is compute-bound by choice: "
        "choose the length by patience, and tune in rounds."
    )


def _other_explanation(contradicting_examples: int | None) -> str:
    """What else a stalled curve may come from, as far as the training set is known."""
    if contradicting_examples is None:
        return (
            " Contradictory labels would look like this, too: whether equal inputs have different "
            "labels is not known for this training set."
        )
    if contradicting_examples:
        return (
            f" The {contradicting_examples} examples that contradict each other do not explain it."
        )
    return ""


def switched_off(names: Sequence[str]) -> str:
    """What it means that a sweep switched regularization and augmentation off."""
    return (
        f"Switched off for the sweep: {', '.join(names)}. They add gradient noise, so with them on "
        "more steps may be needed."
    )


def workflow(seen: Regime, stated: Regime | None) -> str:
    """What follows, in a sentence; what a config states holds over what a sweep has found."""
    if stated is None or stated == seen:
        return f"The workload is {_named(seen)}: {_FOLLOWS[seen]}."
    return (
        f"The config states that the workload is {_named(stated)}, which holds over what the sweep "
        f"shows ({_named(seen)}): {_FOLLOWS[stated]}."
    )


def _named(regime: Regime) -> str:
    return words(regime).replace("compute bound", "compute-bound")
