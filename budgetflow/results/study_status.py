"""The status of a study: what its trials have done so far, which one leads, why others stopped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from budgetflow.playbook.common.decision_words import trials_in_words
from budgetflow.playbook.common.measurement import OVER, PARTIAL, Row, Selection, TrialRecord
from budgetflow.playbook.common.words import counted


@dataclasses.dataclass(frozen=True)
class StudyStatus:
    """What the trials of a study have done so far.

    Attributes:
        trials: how many there are, those yet to be added among them.
        over: how many of them are over.
        diverged: the numbers of those whose loss became infinite or NaN.
        failed: the numbers of those that could not be trained.
        training: the numbers of those under way.
        steps_done: trained so far, without those taken over from other trials.
        steps_total: the steps that all trials will have trained; None while trials race, since
            nobody knows when the race will end.
        ranked: the trials that have something to compare, best first, each with its best row; in a
            race with its last one.
        races: whether its trials race to a perfect fit.
    """

    trials: int
    over: int
    diverged: tuple[int, ...]
    failed: tuple[int, ...]
    training: tuple[int, ...]
    steps_done: int
    steps_total: int | None
    ranked: tuple[tuple[TrialRecord, Row], ...]
    races: bool


def study_status(
    records: Iterable[TrialRecord], selection: Selection, later_steps: Iterable[int] = ()
) -> StudyStatus:
    """The status of a study.

    Args:
        records: of its trials.
        selection: what selects its trials.
        later_steps: the steps to train of each trial that is yet to be added.
    """
    trials, later = list(records), list(later_steps)
    # Trials of a race look for the step of their fit, or are not validated before it.
    races = any(
        trial.reuse_key.get("checks_fit") or (trial.rows and selection.key not in trial.rows[-1])
        for trial in trials
    )
    reused = sum(trial.steps_reused for trial in trials)
    ended = ("diverged", "stopped", "failed")
    lengths = (t.step if t.status in ended else t.max_train_steps for t in trials)
    return StudyStatus(
        trials=len(trials) + len(later),
        over=sum(trial.status in OVER for trial in trials),
        diverged=tuple(trial.trial for trial in trials if trial.diverged),
        failed=tuple(trial.trial for trial in trials if trial.failed),
        training=tuple(trial.trial for trial in trials if trial.status == "running"),
        steps_done=sum(trial.step for trial in trials) - reused,
        steps_total=None if races else sum(lengths) - reused + sum(later),
        ranked=tuple(_by_fit(trials) if races else _by_best_step(trials, selection)),
        races=races,
    )


def _by_fit(trials: Sequence[TrialRecord]) -> list[tuple[TrialRecord, Row]]:
    """The first to fit, then those that have come furthest with the lowest training loss."""
    usable = [t for t in trials if t.rows and not (t.diverged or t.failed)]
    usable.sort(
        key=lambda t: (
            t.fitted_at_step or math.inf,
            -t.step,
            t.rows[-1].get("train_loss", math.inf),
        )
    )
    return [(trial, trial.rows[-1]) for trial in usable]


def _by_best_step(
    trials: Sequence[TrialRecord], selection: Selection
) -> list[tuple[TrialRecord, Row]]:
    usable = [trial for trial in trials if not (trial.diverged or trial.failed)]
    best = [(trial, row) for trial in usable if (row := trial.best_row)]
    return sorted(best, key=lambda item: (selection.cost(item[1]), item[0].trial))


def leader_in_words(status: StudyStatus, selection: Selection) -> str | None:
    """Which trial leads, and by what; None while there is nothing to tell by."""
    if not status.ranked:
        return None
    trial, row = status.ranked[0]
    if not status.races:
        value, count = row[selection.key], selection.count(row[selection.key])
        counts = "" if count is None else f" ({count} of {selection.examples})"
        return (
            f"trial {trial.trial} leads: {selection.words} {value:.4g}{counts} at step "
            f"{row['step']}"
        )
    rate = f"learning rate {trial.base_learning_rate:.4g}"
    if trial.fitted_at_step is not None:
        return (
            f"trial {trial.trial} ({rate}) fitted the training set at step {trial.fitted_at_step}; "
            "the others train to there at most, to see whether one fits earlier"
        )
    on = f" on {row[PARTIAL]} training examples" if PARTIAL in row else ""
    loss = f"training loss {row.get('train_loss', math.nan):.3g}{on}"
    return f"trial {trial.trial} ({rate}) leads: {loss} at step {row['step']}"


def counts_in_words(status: StudyStatus) -> str:
    """How many trials are over, under way and to come, as in "6 of 16 trials over, 2 training"."""
    parts = [f"{status.over} of {counted(status.trials, 'trial')} over"]
    if status.training:
        parts.append(f"{len(status.training)} begun")
    if status.diverged:
        parts.append(f"{trials_in_words(status.diverged)} diverged")
    if status.failed:
        parts.append(f"{trials_in_words(status.failed)} failed")
    return ", ".join(parts)


def steps_in_words(status: StudyStatus) -> str:
    """The steps done, and of how many if that is known."""
    if status.steps_total is None:
        return f"{status.steps_done:,} steps trained; the race ends when the fastest is known"
    return f"{status.steps_done:,} of {status.steps_total:,} steps"


def status_in_words(trial: TrialRecord) -> str:
    """What a trial of a race does, or why it does nothing any more."""
    if trial.fitted_at_step is not None:
        return f"fitted at step {trial.fitted_at_step}"
    return {
        "complete": "did not fit",
        "diverged": "diverged",
        "failed": "failed",
        "stopped": "stopped, the race being decided",
        "pending": "waiting",
    }.get(trial.status, "racing")
