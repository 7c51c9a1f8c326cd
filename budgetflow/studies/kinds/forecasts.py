"""A study's forecast of longer runs, and the scores of what was forecast for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from budgetflow.base.files import read_json
from budgetflow.config.fields import MAX_STEPS
from budgetflow.playbook.common.measurement import TrialRecord
from budgetflow.playbook.common.outcomes import RoundOutcome, TrialsOutcome, from_json
from budgetflow.playbook.common.reasons import reasons_of
from budgetflow.playbook.forecasts import words
from budgetflow.playbook.forecasts.scored import Receipt, scored, widening
from budgetflow.playbook.forecasts.study_forecast import study_forecast
from budgetflow.playbook.rounds.best_step import PART as DIAGNOSIS
from budgetflow.studies.store.keys import differing_fields
from budgetflow.studies.store.receipts import begun_with, by_name
from budgetflow.studies.store.trial import read_trials

if TYPE_CHECKING:
    from budgetflow.studies.study import Study

# Parts of a state's key in which two runs of one setting may differ: last bits, no more.
_LAST_BITS = ("varied", "devices", "libraries", "settings", "checks_fit")


def with_forecast(
    study: Study, trials: Sequence[TrialRecord], outcome: TrialsOutcome
) -> TrialsOutcome:
    """An outcome with the scores of earlier forecasts and its own forecast of longer runs.

    Args:
        study: the study.
        trials: its trials, by number, all of them over.
        outcome: its outcome so far.
    """
    begun = begun_with(study.folder)
    receipts, reasons = _receipts(study, trials)
    reasons += [f"In the ledger of forecasts, {line}." for line in begun.damaged]
    all_receipts = by_name([*begun.receipts, *receipts])
    forecast = study_forecast(
        trials,
        study.selection,
        lengths_ahead(study),
        widening(all_receipts.values()),
        list(all_receipts),
    )
    outcome = dataclasses.replace(outcome, receipts=receipts or None)
    if forecast is None:
        return outcome.with_reasons(reasons)
    length, metric = study.max_train_steps, study.config.evaluation.selection_metric
    reasons += words.forecast_sentences(forecast, length, metric)
    outcome, gain = dataclasses.replace(outcome, forecast=forecast), words.worth(forecast, length)
    if isinstance(outcome, RoundOutcome):
        # Beside the rule of the best steps, which knows nothing of how much there is to gain.
        before = outcome.best_step_diagnosis
        diagnosis = dataclasses.replace(before, means=f"{before.means} {gain}")
        outcome = dataclasses.replace(outcome, best_step_diagnosis=diagnosis)
    parts = [reason.part for reason in outcome.reasons]
    if DIAGNOSIS not in parts:
        return outcome.with_reasons([*reasons, gain])
    at = parts.index(DIAGNOSIS)
    means = outcome.reasons[at]
    means = dataclasses.replace(means, text=f"{means.text} {gain}")
    rewritten = (*outcome.reasons[:at], *reasons_of(reasons), means, *outcome.reasons[at + 1 :])
    return dataclasses.replace(outcome, reasons=rewritten)


def lengths_ahead(study: Study) -> list[int]:
    """The lengths that a round forecasts: twice and four times its own, and those to come."""
    length = study.max_train_steps
    ahead = {2 * length, 4 * length, *study.lengths_to_come}
    return sorted(steps for steps in ahead if length < steps <= MAX_STEPS)


def _receipts(study: Study, trials: Sequence[TrialRecord]) -> tuple[tuple[Receipt, ...], list[str]]:
    """The scores of what the round before forecast for this one, and sentences about them."""
    if study.earlier is None or not (path := study.earlier / "outcome.json").exists():
        return (), []
    earlier_outcome = from_json(read_json(path))
    if not (isinstance(earlier_outcome, TrialsOutcome) and earlier_outcome.forecast):
        return (), []
    forecast = earlier_outcome.forecast
    by = next(trial for trial in read_trials(study.earlier) if trial.trial == forecast.trial)
    receipt = scored(
        forecast,
        by,
        trials,
        study.selection,
        _is_same,
        study=study.earlier.name,
        fingerprint=earlier_outcome.fingerprint,
        scored_by=study.config.name,
    )
    if receipt is None:
        return (), []
    if isinstance(receipt, str):
        return (), [words.not_scored(study.earlier.name, study.max_train_steps, receipt)]
    return (receipt,), [words.receipt_sentence(receipt)]


def _is_same(theirs: TrialRecord, ours: TrialRecord) -> bool:
    """Whether two trials are runs of one setting and seed, measured alike."""
    if not theirs.reuse_key or differing_fields(theirs.measurement_key, ours.measurement_key):
        return False
    names = differing_fields(theirs.reuse_key, ours.reuse_key)
    return all(name.partition(".")[0] in _LAST_BITS for name in names)
