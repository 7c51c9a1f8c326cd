"""A round: points of a search space, or an earlier round's best trials, at one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from budgetflow.config.checks import Rule, possible
from budgetflow.config.schema import StudyConfig
from budgetflow.playbook import rounds
from budgetflow.playbook.measurement import Decision, TrialRecord
from budgetflow.studies.kind import Kind
from budgetflow.studies.round_plans import one_length, round_plans

if TYPE_CHECKING:
    from budgetflow.studies.study import Study


def num_points(config: StudyConfig) -> int:
    """How many points of its search space, or promoted trials, a study has."""
    return config.search.promote_trials or len(config.search.points(config.seed))


def settings(study: Study) -> rounds.RoundSettings:
    """What the policy of a round has to know."""
    return rounds.RoundSettings(study.plans, study.max_train_steps, study.selection)


def decide(study: Study, trials: Sequence[TrialRecord]) -> Decision:
    """See :func:`budgetflow.playbook.rounds.decide`."""
    return rounds.decide(settings(study), trials, rounds.outcome)


def _decays_weights(config: StudyConfig) -> bool:
    return possible(config, "regularization.weight_decay") != {0.0}


def _has_a_step_each(config: StudyConfig) -> bool:
    evaluations = config.evaluation.evaluations
    return evaluations <= (config.max_train_steps or evaluations)


ROUND = Kind(
    sections=frozenset({"schedule", "search", "transfer"}),
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
