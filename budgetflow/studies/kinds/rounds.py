"""Rounds of growing length within a budget: a plan, and a chain of ordinary rounds."""

from __future__ import annotations

import dataclasses
from typing import Any

from budgetflow.base.errors import ConfigError
from budgetflow.config.checks import Rule
from budgetflow.config.keys import replace_fields
from budgetflow.config.schedule import resolve_schedule
from budgetflow.config.schema import StudyConfig
from budgetflow.config.search_space import MAX_TRIALS
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.budget.budget import UNITS, Budget, StepCost, budget_in_steps
from budgetflow.playbook.budget.planner import (
    BudgetRequest,
    InfeasibleBudgetError,
    RoundsPlan,
    plan_rounds,
)
from budgetflow.playbook.budget.words import infeasible
from budgetflow.studies.kinds.round import ROUND, again, of_ideas

# The fewest points of the search space that a first round has.
MIN_POINTS = 4


def budget(config: StudyConfig) -> Budget:
    """The budget of a config.

    Raises:
        ConfigError: there is none, or more than one.
    """
    amounts = {f"budget_{unit}": getattr(config.rounds, f"budget_{unit}") for unit in UNITS}
    given = [name for name, amount in amounts.items() if amount is not None]
    if len(given) != 1:
        names = ", ".join(given) or "none"
        raise ConfigError(f"config.rounds has {names}: set one of {', '.join(amounts)}")
    return Budget(given[0].removeprefix("budget_"), amounts[given[0]])


def check(config: StudyConfig) -> None:
    """Checks that there is a length, one budget and a search space, and that schedules lengthen.

    Raises:
        ConfigError: there is not.
    """
    if config.rounds.production_steps is None:
        raise ConfigError("config.rounds.production_steps is missing: the last round's length")
    budget(config)
    if not config.search.space:
        raise ConfigError(
            "config.search.space is empty: say what the first round searches, with choices(…), "
            "uniform(…) or log_uniform(…)"
        )
    request_of(config, 0)


def check_lengthens(schedule: Schedule) -> None:
    """Checks that a rule carries a schedule over to a longer round.

    Raises:
        ConfigError: there is none.
    """
    rule = schedule.family.lengthen(schedule)
    if rule.grows is None:
        raise ConfigError(f"{rule.words}: set another config.schedule.decay for rounds")


def planned(config: StudyConfig, cost: StepCost) -> RoundsPlan:
    """The plan of a config.

    Raises:
        ConfigError: the budget is too small; the message says what would be enough.
    """
    request = request_of(config, budget_in_steps(budget(config), cost))
    try:
        plan = plan_rounds(request)
    except InfeasibleBudgetError as error:
        why = infeasible(request, error.smallest_feasible_steps, budget(config), cost)
        raise ConfigError(f"config.rounds: {why}") from error
    # Of the last round's fewest trials, those of another seed or with an idea reuse nothing.
    again = (1 + config.search.reruns) * plan.reused_steps_expected // request.min_last_trials
    return dataclasses.replace(plan, reused_steps_expected=again)


def request_of(config: StudyConfig, budget_steps: int) -> BudgetRequest:
    """What the planner is asked for.

    Raises:
        ConfigError: no budget would do.
    """
    rounds, first = config.rounds, MIN_POINTS + of_ideas(config)
    assert rounds.production_steps is not None
    # With nothing new to try, a longer round keeps a decay that was tuned for a shorter one.
    derived = again(config) + 1
    try:
        request = BudgetRequest(
            production_steps=rounds.production_steps,
            budget_steps=budget_steps,
            num_rounds=rounds.num_rounds,
            first_round_fraction=rounds.first_round_fraction,
            last_round_share=rounds.last_round_share,
            max_trials=MAX_TRIALS,
            min_trials=max(first, derived) if rounds.num_rounds > 2 else first,
            min_last_trials=derived if rounds.num_rounds > 1 else first,
        )
    except ValueError as error:
        raise ConfigError(f"config.rounds: {error}") from error
    if rounds.num_rounds == 1:
        return request
    schedule = resolve_schedule(config.schedule, request.lengths[-2])
    shares = schedule.family.lengthen(schedule).grows == "constant_steps"
    constant = schedule.decay_start_step / schedule.total_steps if shares else None
    return dataclasses.replace(request, constant_fraction=constant)


def expand(config: StudyConfig, plan: RoundsPlan) -> list[StudyConfig]:
    """The studies of a plan: ordinary rounds, each derived from the one before.

    The last one has the config's own name, the others have the number of the round behind it.
    """
    *_, last = plan.rounds
    studies: list[StudyConfig] = []
    for each in plan.rounds:
        values: dict[str, Any] = {
            "kind": "round",
            "name": config.name if each is last else f"{config.name}_round{each.round}",
            "max_train_steps": each.length_steps,
            "search.trials": each.trials - of_ideas(config),
        }
        if each is not last:
            values["data.test_split"] = None
        if studies:
            values |= {
                "builds_on": studies[-1].name,
                "search.space": (),
                "search.derive": True,
                "search.trials": each.trials - again(config) or None,
            }
        studies.append(replace_fields(config, values))
    first = studies[0]
    # These are for rounds that are derived.
    own = {"search.carry": (), "search.reruns": type(config.search)().reruns}
    own |= {} if config.ideas else {"search.seeds": 1}
    return [replace_fields(first, own), *studies[1:]]


ROUNDS = dataclasses.replace(
    ROUND,
    sections=ROUND.sections | {"rounds"},
    check=check,
    rules=(
        *ROUND.rules,
        Rule(
            ("max_train_steps", "search.trials", "search.promote_trials", "search.derive"),
            lambda config: False,
            "is for a single round: the plan of config.rounds decides on it",
        ),
        Rule(
            ("search.method",),
            lambda config: config.search.method != "grid",
            "is of a single round: the budget decides how many points there are",
        ),
    ),
    lengths=lambda config: (config.rounds.production_steps or 0,),
    check_schedule=check_lengthens,
    is_planned=True,
)
