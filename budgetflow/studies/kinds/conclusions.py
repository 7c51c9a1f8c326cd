"""The conclusions of a round besides its best trial: the earlier choice, ideas, a first round."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from budgetflow.base.files import read_json
from budgetflow.playbook.budget.planner import PlannedRound
from budgetflow.playbook.common.measurement import LEARNING_RATE, OF_IDEAS, TrialRecord
from budgetflow.playbook.common.outcomes import RoundOutcome
from budgetflow.playbook.common.reasons import Sentence
from budgetflow.playbook.derived import first_round, words
from budgetflow.playbook.derived.earlier_choice import choice_verdict
from budgetflow.playbook.derived.earlier_choice_words import held_reasons, held_warning
from budgetflow.playbook.derived.ideas import ideas_ledger
from budgetflow.playbook.derived.ideas_words import ideas_reasons
from budgetflow.playbook.rounds.best_setting import edges
from budgetflow.playbook.rounds.words import edge_sentences
from budgetflow.studies.plan.derived import read_earlier

if TYPE_CHECKING:
    from budgetflow.studies.study import Study

# In the folder of the last round of a plan.
PLAN = "plan.json"


def with_conclusions(
    study: Study, trials: Sequence[TrialRecord], outcome: RoundOutcome
) -> RoundOutcome:
    """A round's outcome with its conclusions on the earlier round, on ideas and for the next round.

    Args:
        study: the round.
        trials: its trials, by number, all of them over.
        outcome: its outcome so far.
    """
    config, selection = study.config, study.selection
    is_first_of_plan = not config.search.derive and config.rounds.production_steps is not None
    fields: dict[str, Any] = {}
    reasons: list[Sentence] = []
    if config.search.derive:
        assert study.earlier is not None
        earlier = read_earlier(config, study.earlier, selection, study.max_train_steps)
        fields["carried_over"] = earlier.derivation.rows
        reasons += words.derivation_caveats(earlier.derivation)
        before, choice = list(earlier.records.values()), earlier.derivation.best_trial
        verdict = choice_verdict(before, choice, trials, selection)
        if verdict is not None:
            fields["held"] = verdict
            reasons += filter(None, [held_warning(verdict)])
            reasons += held_reasons(verdict, selection)
    elif outcome.best_trial is not None:
        # Not by position: a trial that failed is not among them.
        best = next(trial for trial in trials if trial.trial == outcome.best_trial)
        fields["at_edge"] = edges(config.search.space, best.hyperparameters)
        # The first round of a plan says more about the learning rate.
        told = (LEARNING_RATE,) if is_first_of_plan else ()
        space = [d for d in config.search.space if d.name not in told]
        reasons += edge_sentences(space, best.hyperparameters, fields["at_edge"])
    if is_first_of_plan:
        reasons += _of_a_first_round(study, trials)
    if ideas := ideas_ledger(trials, selection):
        fields["ideas"] = ideas
        reasons += ideas_reasons(ideas, selection)
    if (path := study.folder / PLAN).exists():
        rounds = read_json(path)["rounds"]
        fields["plan"] = tuple(PlannedRound(**each) for each in rounds)
    return dataclasses.replace(outcome, **fields).with_reasons(reasons)


def _of_a_first_round(study: Study, trials: Sequence[TrialRecord]) -> Iterator[Sentence]:
    """The findings of a short first round, on which later rounds rely."""
    space = study.config.search.space
    searched = [trial for trial in trials if trial.role not in OF_IDEAS]
    yield from words.instability_sentences(first_round.instability(space, searched))
    if rate := first_round.rate_at_edge(searched, study.selection):
        yield from words.rate_sentences(rate)
    threshold = study.config.sweep.fitted_train_loss
    regime = study.config.regime
    if regime is None and study.earlier is not None:  # a sweep that the rounds build on
        regime = read_json(study.earlier / "outcome.json").get("regime")
    if finding := first_round.regularization_without_fit(space, searched, regime, threshold):
        yield words.regularization_sentence(finding)
