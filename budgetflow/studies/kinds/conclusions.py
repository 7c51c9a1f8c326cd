"""What a round concludes beside its best trial: of the round before, of ideas, for the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from budgetflow.base.files import read_json
from budgetflow.playbook.budget.planner import PlannedRound
from budgetflow.playbook.common.measurement import LEARNING_RATE, OF_IDEAS, TrialRecord
from budgetflow.playbook.common.outcomes import RoundOutcome
from budgetflow.playbook.common.reasons import Sentence
from budgetflow.playbook.derived.earlier_choice import choice_verdict
from budgetflow.playbook.derived.first_round import (
    instability,
    rate_at_edge,
    regularization_without_fit,
)
from budgetflow.playbook.derived.ideas import ideas_ledger
from budgetflow.playbook.derived.ideas_words import ideas_reasons
from budgetflow.playbook.derived.ranking_held_words import held_reasons, held_warning
from budgetflow.playbook.derived.words import (
    derivation_caveats,
    instability_sentences,
    rate_sentences,
    regularization_sentence,
)
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
    """An outcome with what the trials say of the earlier round, of ideas, and for the next round.

    Args:
        study: the round.
        trials: its trials, by number, all of them over.
        outcome: what it has found so far.
    """
    selection = study.selection
    # The smallest step of the metric.
    step = 1 / selection.examples if selection.examples else 0.0
    reasons: list[Sentence] = []
    added: dict[str, Any] = {}
    if study.config.search.derive:
        assert study.earlier is not None
        earlier = read_earlier(study.config, study.earlier, selection, study.max_train_steps)
        added["carried_over"] = earlier.derivation.rows
        reasons += derivation_caveats(earlier.derivation)
        before, choice = list(earlier.records.values()), earlier.best.trial
        choice_held = choice_verdict(before, choice, trials, selection, step)
        if choice_held is not None:
            added["held"] = choice_held
            warning = held_warning(choice_held)
            reasons += [*([warning] if warning else []), *held_reasons(choice_held, selection)]
    elif outcome.best_trial is not None:
        # Not by position: a trial that failed is not among them.
        of_best = next(trial for trial in trials if trial.trial == outcome.best_trial)
        space, best = study.config.search.space, of_best.hyperparameters
        added["at_edge"] = edges(space, best)
        # Of the learning rate, the first round of a plan says more.
        of_plan = study.config.rounds.production_steps is not None
        dimensions = [d for d in space if not (of_plan and d.name == LEARNING_RATE)]
        reasons += edge_sentences(dimensions, best, added["at_edge"])
    if not study.config.search.derive and study.config.rounds.production_steps is not None:
        reasons += _of_a_first_round(study, trials)
    if ledger := ideas_ledger(trials, selection, step):
        added["ideas"] = ledger
        reasons += ideas_reasons(ledger, selection)
    if (path := study.folder / PLAN).exists():
        rounds = read_json(path)["rounds"]
        added["plan"] = tuple(PlannedRound(**each) for each in rounds)
    return dataclasses.replace(outcome, **added).with_reasons(reasons)


def _of_a_first_round(study: Study, trials: Sequence[TrialRecord]) -> Iterator[Sentence]:
    """What a short round shows that later ones rely on."""
    space = study.config.search.space
    searched = [trial for trial in trials if trial.role not in OF_IDEAS]
    yield from instability_sentences(instability(space, searched))
    if edge := rate_at_edge(searched, study.selection):
        yield from rate_sentences(edge)
    threshold = study.config.sweep.fitted_train_loss
    regime = study.config.regime
    if regime is None and study.earlier is not None:  # a sweep that the rounds build on
        regime = read_json(study.earlier / "outcome.json").get("regime")
    if without := regularization_without_fit(space, searched, regime, threshold):
        yield regularization_sentence(without)
