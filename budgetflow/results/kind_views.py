"""How each kind of study is shown: an entry of :data:`VIEWS` for each class of outcome.

A kind of study of one's own is shown like the class that its outcome derives from. To show it in
another way, add an entry to :data:`VIEWS` where its outcome is defined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from budgetflow.playbook.common.measurement import PARTIAL
from budgetflow.playbook.common.outcomes import (
    CooldownsOutcome,
    Outcome,
    RoundOutcome,
    SweepOutcome,
    TrialsOutcome,
)
from budgetflow.playbook.comparison.outcome import ComparisonOutcome
from budgetflow.playbook.comparison.words import comparison_headline
from budgetflow.playbook.derived import earlier_choice_words
from budgetflow.playbook.derived import words as carry_over_words
from budgetflow.playbook.derived.ideas_words import LEDGER_COLUMNS, ledger_rows
from budgetflow.playbook.derived.search_space import PlannedField
from budgetflow.playbook.forecasts.words import (
    LONGER_COLUMNS,
    RECEIPT_COLUMNS,
    forecast_sentences,
    longer_rows,
    receipt_rows,
    worth,
)
from budgetflow.playbook.sweep.race import LEARNING_RATE
from budgetflow.results import words
from budgetflow.results.reading import StudyResult

if TYPE_CHECKING:  # pandas takes a second to import, which not every launch needs
    import pandas as pd


# What is shown of a trial that races to a fit.
_OF_A_RACE = (LEARNING_RATE, "status", "step", "fitted_at_step", "last_train_loss")


class ShownTable(NamedTuple):
    """A table in words: its title, the names of its columns, its rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class View:
    """How studies of a kind are shown.

    Attributes:
        headline: outcome -> one sentence.
        facts: outcome -> what to show beside its reasons: name to value.
        table: (study, most rows) -> its most important trials, and what matters of them, for a
            terminal.
        tables: study -> the parts of its outcome that are best read as tables.
        races: whether the trials race to a fit, instead of being selected by validation.
    """

    headline: Callable[[Any], str]
    facts: Callable[[Any], dict[str, Any]]
    table: Callable[[StudyResult, int], pd.DataFrame]
    tables: Callable[[StudyResult], Iterable[ShownTable]] = lambda study: []
    races: bool = False


def view_of(outcome: Outcome) -> View:
    """The view of an outcome's class, or of the nearest one that it derives from."""
    return next(VIEWS[each] for each in type(outcome).__mro__ if each in VIEWS)


def is_race(study: StudyResult) -> bool:
    """Whether a study's trials race to a fit, instead of being selected by validation.

    The view of the outcome says so. A study under way has none: then it is a race if its trials
    look for the step of their fit, or if its config sets a training loss to race to, which only
    races may.
    """
    if study.found is not None:
        return view_of(study.found).races
    train_losses = [
        study.config.get(section, {}).get(name)
        for section, name in (("sweep", "fitted_train_loss"), ("comparison", "train_loss"))
    ]
    looks_for_fit = any(trial.record.reuse_key.get("checks_fit") for trial in study.trials)
    return looks_for_fit or any(loss is not None for loss in train_losses)


def headline(outcome: Outcome) -> str:
    """The outcome of a study in one sentence."""
    return view_of(outcome).headline(outcome)


def _first_reason(outcome: Outcome) -> str:
    return outcome.reasons[0].text if outcome.reasons else "Complete."


def _steps_trained(outcome: Outcome) -> dict[str, Any]:
    return {"steps trained": outcome.steps_trained}


def _facts_of_a_sweep(outcome: SweepOutcome) -> dict[str, Any]:
    return {
        "regime": outcome.regime.replace("_", " "),
        "steps trained": f"{outcome.steps_trained} (the full grid: {outcome.steps_full_grid})",
        "switched off": ", ".join(outcome.switched_off or ()) or "nothing was on",
    }


def _facts_of_trials(outcome: TrialsOutcome) -> dict[str, Any]:
    facts = {"steps trained": f"{outcome.steps_trained}, and {outcome.steps_reused} taken over"}
    if outcome.transfer:
        facts["schedule"] = outcome.transfer["rule"]
    return facts


def _facts_of_a_round(outcome: RoundOutcome) -> dict[str, Any]:
    verdict = outcome.best_step_diagnosis.verdict.replace("_", " ")
    return {"length": verdict, **_facts_of_trials(outcome)}


def planned_fields(planned: Sequence[PlannedField]) -> ShownTable:
    """What will become of each hyperparameter of a first round that has not run yet."""
    rows = carry_over_words.plan_table(planned)
    return ShownTable("What carries over to the next round", carry_over_words.COLUMNS, rows)


def _tables_of_a_round(study: StudyResult) -> Iterator[ShownTable]:
    outcome = study.found
    assert isinstance(outcome, RoundOutcome)
    if outcome.plan:
        columns = ("round", "steps a trial", "trials at most", "steps at most")
        rows = [
            tuple(map(str, (each.round, each.length_steps, each.trials, each.steps)))
            for each in outcome.plan
        ]
        yield ShownTable("The plan", columns, rows)
    if outcome.carried_over:
        title = "What was carried over from the round before"
        fields = carry_over_words.table(outcome.carried_over)
        yield ShownTable(title, carry_over_words.COLUMNS, fields)
    if outcome.held and outcome.held.moved:
        title = earlier_choice_words.held_title(outcome.held)
        moved = earlier_choice_words.held_rows(outcome.held)
        yield ShownTable(title, earlier_choice_words.COLUMNS, moved)
    if outcome.ideas:
        yield ShownTable("Ideas", LEDGER_COLUMNS, ledger_rows(outcome.ideas, study.selection))
    yield from _tables_of_forecasts(study)


def _tables_of_forecasts(study: StudyResult) -> Iterator[ShownTable]:
    outcome = study.found
    assert isinstance(outcome, TrialsOutcome)
    if outcome.forecast:
        rows = longer_rows(outcome.forecast, _seconds_per_step(study))
        yield ShownTable("What longer runs would give", LONGER_COLUMNS, rows)
    if outcome.receipts:
        rows = receipt_rows(outcome.receipts)
        yield ShownTable("What was forecast for this study", RECEIPT_COLUMNS, rows)


def longer_in_words(study: StudyResult) -> list[str]:
    """What longer runs than a complete study's would give, and at what cost; empty if unknown."""
    outcome = study.found
    if not isinstance(outcome, TrialsOutcome) or outcome.forecast is None:
        return []
    length, seconds = study.config["max_train_steps"], _seconds_per_step(study)
    metric = study.config["evaluation"]["selection_metric"]
    sentences = forecast_sentences(outcome.forecast, length, metric, seconds)
    return [*sentences, worth(outcome.forecast, length, seconds)]


def _seconds_per_step(study: StudyResult) -> float | None:
    """As its last launch trained; None if it trained nothing."""
    return 1 / study.timing["steps_per_second"] if study.timing else None


def _nearest_to_the_best(study: StudyResult, most: int) -> pd.DataFrame:
    """The trials around the best learning rate, in the order of their learning rates."""
    frame, outcome = study.to_pandas(), study.found
    assert isinstance(outcome, SweepOutcome)
    away = np.log(frame[LEARNING_RATE] / (outcome.best_learning_rate or frame[LEARNING_RATE].min()))
    frame = frame.assign(away=abs(away)).sort_values(["away", "seed"])
    seed = ["seed"] if frame["seed"].nunique() > 1 else []
    partial = [PARTIAL] if PARTIAL in frame else []
    columns = [*seed, *_OF_A_RACE, *partial]
    return frame.head(most).sort_values([LEARNING_RATE, "seed"]).reindex(columns=columns)


def best_first(study: StudyResult) -> pd.DataFrame:
    """The trials by the selection metric, the best first; those that diverged or failed last."""
    frame, selection = study.to_pandas(), study.selection
    if selection.key not in frame:  # no trial has a best step
        frame[selection.key] = np.nan
    out = frame["status"].isin(["diverged", "failed"])
    ascending = [True, not selection.higher_is_better]
    ranked = frame.assign(_out=out).sort_values(["_out", selection.key], ascending=ascending)
    return ranked.drop(columns="_out")


def _best_trials(study: StudyResult, most: int) -> pd.DataFrame:
    """The best trials, without columns that are the same for all."""
    frame = best_first(study)
    varied = sorted({name for trial in study.trials for name in trial.record.hyperparameters})
    roles = ["role"] if frame["role"].nunique() > 1 else []
    metrics = [column for column in frame.columns if column.startswith("validation_")]
    status = ["status"] if frame["status"].isin(["diverged", "failed"]).any() else []
    length = ["max_train_steps"] if frame["max_train_steps"].nunique() > 1 else []
    columns = [*roles, *varied, *length, *status, "best_step", *metrics]
    return frame.head(most).reindex(columns=columns)


def _facts_of_a_comparison(outcome: ComparisonOutcome) -> dict[str, Any]:
    scales = (outcome.unchanged.noise_scale, outcome.changed.noise_scale)
    examples = [f"{scale.examples:.3g}" if scale and scale.examples else "-" for scale in scales]
    predicted = outcome.predicted_steps_factor
    return {
        **_steps_trained(outcome),
        "noise scale": f"{examples[0]} examples without the change, {examples[1]} with it",
        "factor it predicts": f"{predicted:.3g}" if predicted else "-",
    }


def _fastest_of_each_side(study: StudyResult, most: int) -> pd.DataFrame:
    """The fastest trial of each seed, without and with the change."""
    frame, outcome = study.to_pandas(), study.found
    assert isinstance(outcome, ComparisonOutcome)
    sides = (outcome.unchanged, outcome.changed)
    trials = [one.trial for side in sides for one in side.seeds if one.trial is not None]
    fields = [change.field for change in outcome.changes]
    return frame.loc[trials[:most]].reindex(columns=[*fields, "seed", *_OF_A_RACE])


VIEWS: dict[type[Outcome], View] = {
    Outcome: View(_first_reason, _steps_trained, _best_trials),
    SweepOutcome: View(words.sweep_headline, _facts_of_a_sweep, _nearest_to_the_best, races=True),
    ComparisonOutcome: View(
        comparison_headline, _facts_of_a_comparison, _fastest_of_each_side, races=True
    ),
    TrialsOutcome: View(words.trials_headline, _facts_of_trials, _best_trials),
    RoundOutcome: View(words.trials_headline, _facts_of_a_round, _best_trials, _tables_of_a_round),
    CooldownsOutcome: View(
        words.cooldowns_headline, _facts_of_trials, _best_trials, _tables_of_forecasts
    ),
}
