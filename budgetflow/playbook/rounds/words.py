"""The sentences of the outcomes of rounds and cooldowns."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from budgetflow.config.search_space import Dimension
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import Competition
from budgetflow.playbook.common.measurement import Selection, TrialRecord
from budgetflow.playbook.common.outcomes import CooldownsOutcome, LengthResult, RoundOutcome
from budgetflow.playbook.common.reasons import Reason, Sentence
from budgetflow.playbook.common.transfer import NoTransferRuleError, Transfer
from budgetflow.playbook.common.words import counted, first_of, in_words, metrics_in_words, words
from budgetflow.playbook.derived.narrowing import AT_EDGE, Edge
from budgetflow.playbook.rounds import best_step
from budgetflow.playbook.rounds.best_setting import CONFIDENCE, binomial_interval
from budgetflow.playbook.rounds.best_step import BestStepDiagnosis
from budgetflow.playbook.rounds.decay_spread import HINGES_ABOVE, DecaySpread

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

COMPETING = "that compete for the best result"
FIRST, LAST = f"{best_step.FIRST:.0%}", f"{best_step.LAST:.0%}"


def round_reasons(outcome: RoundOutcome, beside_best: Iterable[str]) -> Iterator[Sentence]:
    """The reasons of a round's outcome.

    Args:
        outcome: the outcome.
        beside_best: what is to be said of its best trial, by :func:`winner_sentences`.
    """
    yield (
        f"{outcome.trials} trials of {outcome.max_train_steps} steps; {outcome.diverged} diverged."
    )
    yield _best_trial(outcome)
    yield from beside_best
    yield from _reuse(outcome)
    yield Reason(outcome.best_step_diagnosis.means, part=best_step.PART)
    yield from outcome.best_step_diagnosis.caveats
    if outcome.decay_spread:
        yield outcome.decay_spread.means


def cooldowns_reasons(outcome: CooldownsOutcome, selection: Selection) -> Iterator[str]:
    """The reasons of an outcome of cooldowns."""
    yield from _lengths(outcome.lengths, selection)
    yield _best_trial(outcome)
    yield from _reuse(outcome)


def _best_trial(outcome: RoundOutcome | CooldownsOutcome) -> str:
    if outcome.best_validation is None:
        return "Every trial diverged: look for a lower learning rate or a longer warmup."
    return (
        f"Trial {outcome.best_trial} is the best, by its checkpoint of step {outcome.best_step}: "
        f"{', '.join(metrics_in_words('validation', outcome.best_validation))}."
    )


def winner_sentences(trials: Sequence[TrialRecord], selection: Selection) -> Iterator[str]:
    """What the best trial's figure counts, and which trials and steps do as well.

    Args:
        trials: those of a study.
        selection: what selects steps and trials.
    """
    ranked = selection.ranked(trials)
    if not ranked:
        return
    best, row = ranked[0]
    cost = selection.cost(row)
    if (count := selection.count(row[selection.key])) is not None:
        assert selection.examples is not None
        low, high = binomial_interval(count, selection.examples)
        what = "right" if selection.higher_is_better else "wrong"
        yield (
            f"That is {count} of {selection.examples} validation examples {what} ({CONFIDENCE:.0%} "
            f"interval of the rate: {low:.2%} to {high:.2%}); the best of many trials and steps is "
            "likely to be flattered."
        )
    others = [trial.trial for trial, other in ranked[1:] if selection.cost(other) == cost]
    steps = sum(selection.cost(other) == cost for other in best.rows)
    if others:
        numbers = first_of(others)
        which = f"Trial {numbers} does" if len(others) == 1 else f"Trials {numbers} do"
        yield f"{which} as well; of equals, the one with the lowest number is taken."
    if steps > 1:
        yield f"Trial {best.trial} is as good at {steps} of its evaluations: the first is taken."


def edge_sentences(
    space: Sequence[Dimension], hyperparameters: dict[str, Any], at: dict[str, Edge]
) -> Iterator[Reason]:
    """What it means that the best trial lies at an edge of what was searched."""
    for dimension in (d for d in space if d.name in at):
        is_range = dimension.distribution != "choices"
        values = [dimension.low, dimension.high] if is_range else dimension.values
        numbers = sorted(float(value) for value in values if isinstance(value, int | float))
        within = f"; within {AT_EDGE:.0%} of it" if is_range else ""
        text = (
            f"THE BEST TRIAL'S {dimension.name}, {in_words(hyperparameters[dimension.name])}, IS "
            f"AT THE {at[dimension.name].upper()} END of what was searched "
            f"({in_words(numbers[0])} to {in_words(numbers[-1])}{within}): better values may lie "
            "beyond it."
        )
        yield Reason(text, loud=True)


def _reuse(outcome: RoundOutcome | CooldownsOutcome) -> Iterator[str]:
    """What was not trained again, if anything was not."""
    if reused := outcome.steps_reused:
        total = outcome.steps_trained + reused
        yield (
            f"{reused} of {total} steps ({reused / total:.0%}) were taken over from other trials, "
            "bit for bit, instead of being trained again."
        )


def _lengths(lengths: Sequence[LengthResult], selection: Selection) -> Iterator[str]:
    """What each length gives, and what each is better than the one before."""
    metric = selection.key.removeprefix("validation_")
    figures = [(r.length_steps, r.best_validation[metric]) for r in lengths if r.best_validation]
    for steps, value in figures[:1]:
        yield f"A run of {steps} steps gives {selection.words} {value:.4g}."
    for (steps_before, before), (steps, value) in itertools.pairwise(figures):
        change, worse = "", selection.worse_by(value, before)
        counts = selection.count(before), selection.count(value)
        if worse and None not in counts:
            change = f" ({counts[1]} of {selection.examples} examples, {counts[0]} before)"
        elif before and worse:
            change = f" ({abs(worse):.1%} {'worse' if worse > 0 else 'better'})"
        yield (
            f"A run of {steps} steps gives {value:.4g}{change} for {steps / steps_before:.3g} "
            "times the steps."
        )


def explained(
    diagnosis: BestStepDiagnosis,
    competition: Competition,
    selection: Selection,
    max_train_steps: int,
) -> BestStepDiagnosis:
    """A diagnosis with its sentences.

    Args:
        diagnosis: without them.
        competition: which it is made from.
        selection: what selects steps and trials.
        max_train_steps: the length that is judged.
    """
    meaning = _meaning(diagnosis, competition, selection, max_train_steps)
    caveats = tuple(_diagnosis_caveats(diagnosis, competition))
    return dataclasses.replace(diagnosis, means=" ".join(meaning), caveats=caveats)


def _meaning(
    diagnosis: BestStepDiagnosis,
    competition: Competition,
    selection: Selection,
    max_train_steps: int,
) -> Iterator[str]:
    """What a diagnosis of best steps means, with the counts behind it."""
    if not competition.competing:
        yield "No trial is left to judge max_train_steps by. Every trial diverged."
        return
    yield _verdict(diagnosis, [row["step"] for _, row in competition.competing])
    if hopeless := len(diagnosis.hopeless_trials):
        do = "does" if hopeless == 1 else "do"
        yield (
            f"{counted(hopeless, 'other trial')} {do} not compete "
            f"({diagnosis.hopeless_in_first_10_percent} with the best step in the first {FIRST}, "
            f"{diagnosis.hopeless_in_last_25_percent} in the last {LAST}) and {do} not count."
        )
    best, _ = competition.competing[0]
    yield (
        f"A trial competes if its {selection.words} gets to {competition.threshold:.4g} or "
        f"better, which the best trial ({best.trial}) had reached by a quarter of the steps to its "
        "best or has in a tenth of its evaluations."
    )
    schedule = diagnosis.suggested_schedule
    if schedule is not None and diagnosis.suggested_max_train_steps != max_train_steps:
        yield (
            f"The schedule of the best trial ({best.trial}) at that length: base learning rate "
            f"{schedule.base_learning_rate:.4g} with {_schedule(schedule)}."
        )


def _verdict(diagnosis: BestStepDiagnosis, best_steps: Sequence[int]) -> str:
    count, suggestion = len(best_steps), diagnosis.suggested_max_train_steps
    in_first, in_last = diagnosis.in_first_10_percent, diagnosis.in_last_25_percent
    if diagnosis.verdict == "undecided":
        who = "The one trial that competes" if count == 1 else f"{count} trials {COMPETING}"
        return (
            f"{who} (best at step {', '.join(map(str, best_steps))}) cannot tell whether "
            f"max_train_steps was right: it takes {best_step.MIN_TRIALS} such trials. Search "
            "closer to the best one, or try more points."
        )
    if diagnosis.verdict == "too_long":
        return (
            f"In all {count} trials {COMPETING} the best step lies in the first {FIRST} of "
            f"training: max_train_steps is far too high; {suggestion} would do."
        )
    if diagnosis.verdict == "too_short":
        return (
            f"In {in_last} of {count} trials {COMPETING} the best step lies in the last "
            f"{LAST} of training ('consistently' means {best_step.CONSISTENTLY:.0%} or more): "
            f"longer training, up to {suggestion} steps, and re-tuning the decay may help."
        )
    return (
        f"In {in_first} of {count} trials {COMPETING} the best step lies in the first "
        f"{FIRST} of training and in {in_last} in the last {LAST}: neither always early nor "
        "consistently late, so max_train_steps is about right."
    )


def _diagnosis_caveats(diagnosis: BestStepDiagnosis, competition: Competition) -> Iterator[str]:
    """What makes the verdict of a diagnosis less certain."""
    if diverged := competition.diverged:
        left = "trial that diverged is" if diverged == 1 else "trials that diverged are"
        yield f"{diverged} {left} left out."
    trials = [trial for trial, _ in competition.competing]
    if decaying := sum(trial.decays_to_zero for trial in trials):
        yield (
            f"The learning rate of {decaying} of {len(trials)} trials decays to zero, which by "
            "itself pushes best steps to the end; late best steps alone do not show that training "
            "was too short."
        )
    length = diagnosis.suggested_max_train_steps
    if length is not None and diagnosis.suggested_schedule is None:
        try:
            best_step.at_length(trials[0].schedule, length)
        except NoTransferRuleError as error:
            yield f"There is no suggested schedule: {error}."


def _schedule(schedule: Schedule) -> str:
    """A schedule's lengths, as in "warmup 50, constant 1600 and linear decay over 350 steps"."""
    parts = {
        "warmup": schedule.warmup_steps,
        "constant": schedule.constant_steps,
        f"{words(schedule.decay)} decay over": schedule.decay_steps,
        "final": schedule.final_steps,
    }
    *others, last = [f"{name} {steps}" for name, steps in parts.items() if steps]
    return f"{', '.join(others)} and {last} steps" if others else f"{last} steps"


def spread_explained(
    spread: DecaySpread, trials: Sequence[TrialRecord], selection: Selection
) -> DecaySpread:
    """A spread of decays with the sentence on how far apart they end and what that means.

    Args:
        spread: without it.
        trials: the study's trials.
        selection: what selects steps and trials.
    """
    schedules = {trial.trial: trial.schedule for trial in trials}
    best = _end(spread.best, spread.best_trial, schedules[spread.best_trial])
    worst = _end(spread.worst, spread.worst_trial, schedules[spread.worst_trial])
    ends = f"{best} to {worst}"
    counts = selection.count(spread.best), selection.count(spread.worst)
    if counts[0] is not None and counts[1] is not None:
        ends += f", {abs(counts[1] - counts[0])} of {selection.examples} examples"
    if spread.relative is not None:
        ends += f", {spread.relative:.1%} apart"
    conclusion = f"within {HINGES_ABOVE:.0%} is no sign that max_train_steps is too short"
    if spread.hinges_on_decay:
        conclusion = (
            f"more than {HINGES_ABOVE:.0%} apart is a sign that max_train_steps is too short: a "
            "stingy length takes a perfectly tuned decay"
        )
    means = (
        f"{spread.schedules} schedules that differ only in their decay end at a {selection.words} "
        f"from {ends}. Ending {conclusion}."
    )
    return dataclasses.replace(spread, means=means)


def _end(value: float, trial: int, schedule: Schedule) -> str:
    decay = "no decay"
    if schedule.family.has_steps:
        decay = f"{words(schedule.decay)} decay over {schedule.decay_steps} steps"
    return f"{value:.4g} (trial {trial}, {decay})"


def where_extra_steps_go(carried: Transfer) -> str:
    """At what learning rates a longer run's extra steps are."""
    return (
        f"The {carried.extra_steps} extra steps have on average "
        f"{carried.mean_relative_learning_rate:.0%} of the base learning rate, "
        f"{carried.share_above_half:.0%} of them at least half of it (stretched in proportion: "
        f"{carried.stretched_mean_relative_learning_rate:.0%} and "
        f"{carried.stretched_share_above_half:.0%})."
    )


def pitfall(carried: Transfer, threshold: float) -> Reason:
    """The playbook's warning, where :meth:`Transfer.is_pitfall` says so."""
    text = (
        "THE EXTRA STEPS ARE SPENT AT TOO SMALL A LEARNING RATE: on average "
        f"{carried.mean_relative_learning_rate:.0%} of the base learning rate, below the "
        f"{threshold:.0%} asked for. A longer period at the base learning rate, as the rule "
        "for a linear decay has it, would make more of them."
    )
    return Reason(text, loud=True)


def could_not_be_trained(record: TrialRecord) -> str:
    """That a trial failed, why, and what to do about it."""
    return (
        f"Trial {record.trial} could not be trained, so nothing above weighs it: "
        f"{record.failed_because}. To train it once that is mended, delete its folder and "
        "outcome.json, and launch again."
    )


def trained_again(records: Iterable[TrialRecord]) -> Iterator[str]:
    """Why trials trained steps that were trained before, or took over less than all of it."""
    trained = collections.defaultdict[str, list[str]](list)
    measured = collections.defaultdict[tuple[int, str], list[str]](list)
    for record in records:
        if record.not_reused_because:
            trained[record.not_reused_because].append(str(record.trial))
        if record.reused_from and record.measured_anew_because:
            measured[record.steps_reused, record.measured_anew_because].append(str(record.trial))
        if record.damaged:
            yield (
                f"Of trial {record.trial}, what damaged checkpoints held was trained again: "
                f"{'; '.join(record.damaged)}."
            )
    for why, trials in trained.items():
        yield (
            f"Trial {', '.join(trials)} trained all steps and could not continue another trial: "
            f"{why}."
        )
    for (step, why), trials in measured.items():
        yield (
            f"Trial {', '.join(trials)} took over the state of step {step} but no measurements, "
            f"since those were made otherwise ({why}): best steps are selected from step {step} on."
        )
