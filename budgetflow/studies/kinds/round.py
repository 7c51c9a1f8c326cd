"""A round: points of a search space, or an earlier round's best trials, at one length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from budgetflow.config.checks import Rule, possible
from budgetflow.config.schema import StudyConfig
from budgetflow.playbook.common.measurement import Decision, TrialRecord
from budgetflow.playbook.common.outcomes import TrialsOutcome
from budgetflow.playbook.rounds import policy as rounds
from budgetflow.studies.kinds.conclusions import with_conclusions
from budgetflow.studies.kinds.forecasts import with_forecast
from budgetflow.studies.kinds.kind import Kind
from budgetflow.studies.plan.round_trials import one_length, round_plans

if TYPE_CHECKING:
    from budgetflow.studies.study import Study


def num_points(config: StudyConfig) -> int:
    """How many trials a study has at one length, at most: some ideas may not be promoted."""
    search = config.search
    if search.derive:
        return again(config) + (search.trials or 0)
    return (search.promote_trials or len(search.points(config.seed))) + of_ideas(config)


def again(config: StudyConfig) -> int:
    """The trials that a derived round has before any new point: every idea may be promoted."""
    return config.search.seeds * (1 + config.search.reruns + len(config.ideas))


def of_ideas(config: StudyConfig) -> int:
    """The trials of ideas, and of the baseline that they are compared with."""
    return config.search.seeds * (1 + len(config.ideas)) if config.ideas else 0


def settings(study: Study) -> rounds.RoundSettings:
    """What the policy of a round has to know."""
    return rounds.RoundSettings(study.plans, study.max_train_steps, study.selection)


def decide(study: Study, trials: Sequence[TrialRecord]) -> Decision:
    """See :func:`budgetflow.playbook.rounds.policy.decide`."""

    def outcome(asked: rounds.RoundSettings, sound: Sequence[TrialRecord]) -> TrialsOutcome:
        concluded = with_conclusions(study, sound, rounds.outcome(asked, sound))
        return with_forecast(study, sound, concluded)

    return rounds.decide(settings(study), trials, outcome)


ROUND = Kind(
    sections=frozenset({"schedule", "search", "transfer", "ideas"}),
    num_trials=num_points,
    plans=round_plans,
    decide=decide,
    derives=True,
    grows={"search.trials": "trials"},
    rules=(
        Rule(
            ("weight_decay_mask",),
            lambda config: possible(config, "regularization.weight_decay") != {0.0},
            "is for config.regularization.weight_decay, which is 0",
        ),
        Rule(
            ("evaluation.evaluations",),
            lambda config: config.evaluation.evaluations <= (config.max_train_steps or math.inf),
            "is more than config.max_train_steps; at most one evaluation a step",
        ),
    ),
    lengths=one_length,
)
