"""A round: points of a search space, or an earlier round's best trials, at one length."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from budgetflow.config.checks import Rule, possible
from budgetflow.config.schema import StudyConfig
from budgetflow.playbook import rounds
from budgetflow.playbook.compared import ideas_ledger, whether_held
from budgetflow.playbook.held_wording import held_reasons, held_warning
from budgetflow.playbook.ideas_wording import ideas_reasons
from budgetflow.playbook.measurement import Conclude, Decision, TrialRecord
from budgetflow.playbook.outcomes import RoundOutcome
from budgetflow.studies.derived import read_earlier
from budgetflow.studies.kind import Kind
from budgetflow.studies.round_plans import one_length, round_plans

if TYPE_CHECKING:
    from budgetflow.studies.study import Study


def num_points(config: StudyConfig) -> int:
    """How many trials a study has at one length, at most: some ideas may not be promoted."""
    search, ideas = config.search, len(config.ideas)
    if search.derive:
        return search.seeds * (1 + search.reruns + ideas) + (search.trials or 0)
    points = search.promote_trials or len(search.points(config.seed))
    return points + (search.seeds * (1 + ideas) if ideas else 0)


def settings(study: Study) -> rounds.RoundSettings:
    """What the policy of a round has to know."""
    return rounds.RoundSettings(study.plans, study.max_train_steps, study.selection)


def decide(study: Study, trials: Sequence[TrialRecord]) -> Decision:
    """See :func:`budgetflow.playbook.rounds.decide`."""
    decision = rounds.decide(settings(study), trials, rounds.outcome)
    if isinstance(decision, Conclude) and isinstance(decision.outcome, RoundOutcome):
        return Conclude(_compared(study, trials, decision.outcome))
    return decision


def _compared(study: Study, trials: Sequence[TrialRecord], found: RoundOutcome) -> RoundOutcome:
    """An outcome with what the trials say of the earlier round, and of ideas."""
    selection, step = study.selection, _resolution(study)
    reasons = list(found.reasons)
    added: dict[str, Any] = {}
    if study.config.search.derive:
        assert study.earlier is not None
        earlier = read_earlier(study.config, study.earlier, selection, study.max_train_steps)
        added["carried_over"] = earlier.derivation.rows
        held = whether_held(
            list(earlier.records.values()), earlier.best.trial, trials, selection, step
        )
        if held is not None:
            added["held"] = held
            warning = held_warning(held)
            reasons += [*([warning] if warning else []), *held_reasons(held, selection)]
    if ledger := ideas_ledger(trials, selection, step):
        added["ideas"] = ledger
        reasons += ideas_reasons(ledger, selection)
    return dataclasses.replace(found, **added, reasons=tuple(reasons))


def _resolution(study: Study) -> float:
    """The smallest step of the selection metric: one example's, of a share of all examples."""
    counts = study.selection.key.endswith(("error_rate", "accuracy"))
    return 1 / study.dataset.validation.num_examples if counts else 0.0


def _decays_weights(config: StudyConfig) -> bool:
    return possible(config, "regularization.weight_decay") != {0.0}


def _has_a_step_each(config: StudyConfig) -> bool:
    evaluations = config.evaluation.evaluations
    return evaluations <= (config.max_train_steps or evaluations)


ROUND = Kind(
    sections=frozenset({"schedule", "search", "transfer", "ideas"}),
    num_trials=num_points,
    plans=round_plans,
    decide=decide,
    rules=(
        Rule(
            ("weight_decay_mask",),
            _decays_weights,
            "is for config.regularization.weight_decay, which is 0",
        ),
        Rule(
            ("evaluation.evaluations",),
            _has_a_step_each,
            "is more than config.max_train_steps; at most one evaluation a step",
        ),
    ),
    lengths=one_length,
)
