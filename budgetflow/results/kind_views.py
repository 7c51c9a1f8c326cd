"""What is shown of each kind of study, an entry of one table: headline, facts, trials.

A kind of study of one's own is shown as the class is that its outcome derives from; to show it
otherwise, enter it into :data:`VIEWS` where the class is defined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from budgetflow.playbook.common.measurement import PARTIAL, Selection
from budgetflow.playbook.common.outcomes import (
    CooldownsOutcome,
    Outcome,
    RoundOutcome,
    SweepOutcome,
    TrialsOutcome,
)
from budgetflow.playbook.comparison.outcome import ComparisonOutcome
from budgetflow.playbook.comparison.words import comparison_headline
from budgetflow.playbook.derived import ranking_held_words as held_wording
from budgetflow.playbook.derived import words as carry_over_wording
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
from budgetflow.results import words as wording
from budgetflow.results.reading import StudyResult

if TYPE_CHECKING:  # pandas takes a second to import, which not every launch needs
    import pandas as pd

RATE = "schedule.base_learning_rate"


class ShownTable(NamedTuple):
    """A table in words: its title, the names of its columns, its rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class View:
    """How studies of a kind are shown.

    Attributes:
        headline: an outcome in one sentence.
        facts: of an outcome, what to show beside its reasons: name to value.
        tables: of a study, what its outcome holds that is best read as tables.
        table: (study, most rows) -> its most important trials, and what matters of them, for a
            terminal.
        races: whether the trials race to a fit, instead of being selected by validation.
    """

    headline: Callable[[Any], str]
    facts: Callable[[Any], dict[str, Any]]
    table: Callable[[StudyResult, int], pd.DataFrame]
    tables: Callable[[StudyResult], Iterable[ShownTable]] = lambda study: []
    races: bool = False


def view_of(outcome: Outcome) -> View:
    """The view of an outcome's class, or of the nearest one that it derives from."""
    return next(VIEWS[known] for known in type(outcome).__mro__ if known in VIEWS)


def is_race(study: StudyResult) -> bool:
    """Whether a study's trials race to a fit, instead of being selected by validation.

    The view of the outcome says so. While there is none, the trials do, which look for the step
    that they fit at, or the config, where a training loss to race to is for races alone.
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
    rows = carry_over_wording.plan_table(planned)
    return ShownTable("What carries over to the next round", carry_over_wording.COLUMNS, rows)


def _tables_of_a_round(study: StudyResult) -> list[ShownTable]:
    outcome = study.found
    assert isinstance(outcome, RoundOutcome)
    found = []
    rows: Sequence[Sequence[str]]
    if outcome.plan:
        columns = ("round", "steps a trial", "trials at most", "steps at most")
        rows = [
            tuple(map(str, (each.round, each.length_steps, each.trials, each.steps)))
            for each in outcome.plan
        ]
        found.append(ShownTable("The plan", columns, rows))
    if outcome.carried_over:
        rows = carry_over_wording.table(outcome.carried_over)
        title = "What was carried over from the round before"
        found.append(ShownTable(title, carry_over_wording.COLUMNS, rows))
    if outcome.held and outcome.held.moved:
        rows = held_wording.held_rows(outcome.held)
        title = held_wording.held_title(outcome.held)
        found.append(ShownTable(title, held_wording.COLUMNS, rows))
    if outcome.ideas:
        metric = f"validation_{outcome.selection_metric}"
        selection = Selection(metric, bool(outcome.higher_is_better))
        rows = ledger_rows(outcome.ideas, selection)
        found.append(ShownTable("Ideas", LEDGER_COLUMNS, rows))
    return [*found, *_tables_of_forecasts(study)]


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
    found = study.found
    if not isinstance(found, TrialsOutcome) or found.forecast is None:
        return []
    length, cost = study.config["max_train_steps"], _seconds_per_step(study)
    metric = study.config["evaluation"]["selection_metric"]
    sentences = forecast_sentences(found.forecast, length, metric, cost)
    return [*sentences, worth(found.forecast, length, cost)]


def _seconds_per_step(study: StudyResult) -> float | None:
    """As its last launch trained; None if it trained nothing."""
    return 1 / study.timing["steps_per_second"] if study.timing else None


def _nearest_to_the_best(study: StudyResult, most: int) -> pd.DataFrame:
    """The trials around the best learning rate, in the order of their learning rates."""
    frame, outcome = study.to_pandas(), study.found
    assert isinstance(outcome, SweepOutcome)
    away = np.log(frame[RATE] / (outcome.best_learning_rate or frame[RATE].min()))
    frame = frame.assign(away=abs(away)).sort_values(["away", "seed"])
    seed = ["seed"] if frame["seed"].nunique() > 1 else []
    partial = [PARTIAL] if PARTIAL in frame else []
    columns = [*seed, RATE, "status", "step", "fitted_at_step", "last_train_loss", *partial]
    return frame.head(most).sort_values([RATE, "seed"]).reindex(columns=columns)


def _best_first(study: StudyResult, most: int) -> pd.DataFrame:
    """The best trials by the selection metric, those that diverged or failed last."""
    frame, key = study.to_pandas(), study.selection.key
    if key not in frame:  # no trial has a best step
        frame[key] = np.nan
    frame = frame.assign(out=frame["status"].isin(["diverged", "failed"]))
    ascending = [True, not study.selection.higher_is_better]
    frame = frame.sort_values(["out", key], ascending=ascending)
    varied = sorted({name for trial in study.trials for name in trial.record.hyperparameters})
    roles = ["role"] if frame["role"].nunique() > 1 else []
    metrics = [column for column in frame.columns if column.startswith("validation_")]
    status = ["status"] if frame["out"].any() else []
    length = ["max_train_steps"] if frame["max_train_steps"].nunique() > 1 else []
    columns = [*roles, *varied, *length, *status, "best_step", *metrics]
    return frame.head(most).reindex(columns=columns)


def _facts_of_a_comparison(outcome: ComparisonOutcome) -> dict[str, Any]:
    scales = (outcome.unchanged.noise_scale, outcome.changed.noise_scale)
    known = [f"{scale.examples:.3g}" if scale and scale.examples else "-" for scale in scales]
    predicted = outcome.predicted_steps_factor
    return {
        **_steps_trained(outcome),
        "noise scale": f"{known[0]} examples without the change, {known[1]} with it",
        "factor it predicts": f"{predicted:.3g}" if predicted else "-",
    }


def _fastest_of_each_side(study: StudyResult, most: int) -> pd.DataFrame:
    """The fastest trial of each seed, without and with the change."""
    frame, outcome = study.to_pandas(), study.found
    assert isinstance(outcome, ComparisonOutcome)
    sides = (outcome.unchanged, outcome.changed)
    trials = [one.trial for side in sides for one in side.seeds if one.trial is not None]
    fields = [change.field for change in outcome.changes]
    columns = [*fields, "seed", RATE, "status", "step", "fitted_at_step", "last_train_loss"]
    return frame.loc[trials[:most]].reindex(columns=columns)


VIEWS: dict[type[Outcome], View] = {
    Outcome: View(_first_reason, _steps_trained, _best_first),
    SweepOutcome: View(wording.sweep_headline, _facts_of_a_sweep, _nearest_to_the_best, races=True),
    TrialsOutcome: View(wording.trials_headline, _facts_of_trials, _best_first),
    RoundOutcome: View(wording.trials_headline, _facts_of_a_round, _best_first, _tables_of_a_round),
    CooldownsOutcome: View(
        wording.cooldowns_headline, _facts_of_trials, _best_first, _tables_of_forecasts
    ),
    ComparisonOutcome: View(
        comparison_headline, _facts_of_a_comparison, _fastest_of_each_side, races=True
    ),
}
