"""Outcomes and numbers in words, the same on the terminal and in the report."""

from __future__ import annotations

import math
from typing import Any

from budgetflow.playbook.common.outcomes import CooldownsOutcome, SweepOutcome, TrialsOutcome
from budgetflow.playbook.common.words import metrics_in_words, words
from budgetflow.results.reading import StudyResult
from budgetflow.results.study_status import study_status


def cooldowns_headline(outcome: CooldownsOutcome) -> str:
    """Cooldowns in one sentence: what each length gives."""
    if outcome.best_validation is None:
        return "Every trial diverged."
    metric = outcome.selection_metric or ""
    bests = [
        f"{each.length_steps} steps: {each.best_validation[metric]:.4g}"
        for each in outcome.lengths
        if each.best_validation
    ]
    return f"Best validation {words(metric)} by length: {', '.join(bests)}."


def trials_headline(outcome: TrialsOutcome) -> str:
    """A round, or another study of trials that run to their ends, in one sentence: the best."""
    if outcome.best_validation is None:
        return "Every trial diverged."
    values = metrics_in_words("validation", outcome.best_validation)
    values += metrics_in_words("test", outcome.best_test or {})
    best = f"One trial of {outcome.max_train_steps} steps, best at step {outcome.best_step}"
    if outcome.trials > 1:
        best = (
            f"Best of {outcome.trials} trials of {outcome.max_train_steps} steps: trial "
            f"{outcome.best_trial} at step {outcome.best_step}"
        )
    return f"{best}: {', '.join(values)}."


def sweep_headline(outcome: SweepOutcome) -> str:
    """A sweep in one sentence: its answer, or why there is none."""
    lowest_error = None
    if outcome.contradicting_examples:
        lowest_error = (
            f" as well as possible, with {outcome.lowest_train_errors} wrong (since "
            f"{outcome.contradicting_examples} examples contradict each other),"
        )
    if outcome.status == "at_boundary":
        return "No answer: the best learning rate lies at the boundary of the search space."
    threshold = outcome.fitted_train_loss
    if outcome.status == "not_fitted":
        how = lowest_error if lowest_error and threshold is None else ""
        return f"No answer: no learning rate fitted the training set{how} within the steps allowed."
    fitted = f"training set is fitted{lowest_error or ' perfectly'}"
    if threshold is not None:
        fitted = f"training loss is under {threshold:g}"
    answers = [seed.max_train_steps for seed in outcome.seeds if seed.max_train_steps]
    spread = ""
    if len(answers) > 1:
        spread = f" (the median of {len(outcome.seeds)} seeds, {min(answers)} to {max(answers)})"
    return (
        f"max_train_steps = {outcome.max_train_steps}{spread}: the {fitted} by then, at a constant "
        f"learning rate of {outcome.best_learning_rate:g}."
    )


def under_way(study: StudyResult) -> str:
    """How far a study is that has no outcome yet, in one sentence."""
    status = study_status((trial.record for trial in study.trials), study.selection)
    over = f"{status.over} of the {status.trials} trials begun are over"
    return f"Under way: {over}, {status.steps_done} steps trained."


def timing_line(timing: dict[str, Any]) -> str:
    """How fast a study trained and where the time went, in one line."""
    shares = sorted(timing["share_of_time"].items(), key=lambda item: -item[1])
    spent = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.005)
    return (
        f"Trained {timing['steps_trained']} steps in {timing['seconds']:.0f} s: "
        f"{timing['steps_per_second']:.4g} steps/s, "
        f"{timing['examples_per_second']:.4g} examples/s while training. Time: {spent}."
    )


def format_cell(value: Any) -> str:
    """A table's cell: three significant digits, a hyphen where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>":
        return "-"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"
    return str(value)


def short_name(column: str) -> str:
    """A column's name for a narrow table: "schedule.base_learning_rate" is "base learning rate"."""
    return column.rpartition(".")[2].replace("validation_", "val. ").replace("_", " ")


def duration(seconds: float) -> str:
    """A time in the units that one reads it in: "8 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    seconds = max(0, round(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // part} {smaller}"
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
