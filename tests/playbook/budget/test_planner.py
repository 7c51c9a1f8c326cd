import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.playbook.budget.planner import (
    BudgetRequest,
    InfeasibleBudgetError,
    PlannedRound,
    RoundsPlan,
    plan_if_feasible,
    plan_rounds,
)

many = settings(max_examples=400, deadline=None)


@st.composite
def requests(draw, limited=False):
    """Requests of any size, from runs of 10 steps to 10 million; budgets from none to plenty."""
    production = draw(st.sampled_from([10, 97, 1000, 12_345, 10**7]))
    first = draw(st.sampled_from([0.001, 0.05, 0.1, 0.25, 0.5]))
    room = production - -(-production * first // 1)
    least, last = draw(st.tuples(st.integers(1, 18), st.integers(1, 12)))
    most = max(least, last) + draw(st.integers(0, 30)) if limited else None
    return BudgetRequest(
        production_steps=production,
        budget_steps=int(production * draw(st.floats(0, 200))),
        num_rounds=draw(st.integers(1, int(min(10, room)))),
        first_round_fraction=first,
        last_round_share=draw(st.sampled_from([0.02, 0.3, 0.5, 0.9])),
        min_trials=least,
        min_last_trials=last,
        max_trials=most,
        constant_fraction=draw(st.sampled_from([None, 0.0, 0.8])),
    )


any_request = st.one_of(requests(), requests(limited=True))


def with_budget(request, steps):
    return dataclasses.replace(request, budget_steps=steps)


def smallest(request):
    """The smallest feasible budget."""
    with pytest.raises(InfeasibleBudgetError) as raised:
        plan_rounds(with_budget(request, 0))
    return raised.value.smallest_feasible_steps


def affordable(request):
    """The plan, for the smallest feasible budget or more."""
    return plan_rounds(with_budget(request, smallest(request) + request.budget_steps))


def trials(plan):
    return [planned.trials for planned in plan.rounds]


def test_the_playbooks_two_rounds():
    plan = plan_rounds(BudgetRequest(production_steps=10_000, budget_steps=104_500))
    assert plan.rounds == (
        PlannedRound(1, 1000, 54, 54_000),
        PlannedRound(2, 10_000, 5, 50_000),
    )
    assert (plan.total_steps, plan.left_over_steps) == (104_000, 500)
    assert not plan.first_round_is_short and plan.reused_steps_expected == 0


def test_lengths_grow_geometrically():
    request = BudgetRequest(
        production_steps=8000, budget_steps=10**6, num_rounds=4, first_round_fraction=0.125
    )
    assert [planned.length_steps for planned in plan_rounds(request).rounds] == [
        1000,
        2000,
        4000,
        8000,
    ]


@many
@given(any_request)
def test_a_plan_keeps_to_the_budget_and_uses_it(request):
    plan = affordable(request)
    assert plan.total_steps == sum(planned.steps for planned in plan.rounds) <= plan.budget_steps
    assert plan.left_over_steps == plan.budget_steps - plan.total_steps
    first, limit = plan.rounds[0], request.max_trials
    assert plan.left_over_steps < first.length_steps or first.trials == limit
    # Nor is any left for another trial of a later round.
    for planned in plan.rounds:
        assert plan.left_over_steps < planned.length_steps or planned.trials == limit
        assert planned.steps == planned.trials * planned.length_steps
        assert limit is None or planned.trials <= limit


@many
@given(any_request)
def test_lengths_ascend_to_production(request):
    rounds = affordable(request).rounds
    assert [planned.round for planned in rounds] == list(range(1, request.num_rounds + 1))
    lengths = [planned.length_steps for planned in rounds]
    assert lengths == sorted(set(lengths)) and lengths[-1] == request.production_steps
    if len(rounds) > 1:
        ideal = request.first_round_fraction * request.production_steps
        assert ideal - 1e-6 <= lengths[0] < ideal + 1


@many
@given(any_request)
def test_every_round_has_its_fewest_trials(request):
    plan = affordable(request)
    fewest = [request.min_trials] * (request.num_rounds - 1) + [request.min_last_trials]
    for planned, settings_ in zip(plan.rounds, fewest, strict=True):
        assert planned.trials >= settings_


@many
@given(any_request)
def test_the_smallest_feasible_budget_is_exact(request):
    least = smallest(request)
    assert plan_rounds(with_budget(request, least)).left_over_steps == 0
    with pytest.raises(InfeasibleBudgetError) as raised:
        plan_rounds(with_budget(request, least - 1))
    assert raised.value.smallest_feasible_steps == least
    assert str(least) in str(raised.value)


@many
@given(requests(), st.integers(0, 10**8))
def test_more_budget_never_takes_a_trial_from_a_longer_round(request, more):
    plan = affordable(request)
    larger = plan_rounds(with_budget(request, plan.budget_steps + more))
    assert all(b >= a for a, b in zip(trials(plan)[1:], trials(larger)[1:], strict=True))


def test_a_longer_round_may_take_back_what_the_first_had_from_the_rest():
    """What the docstring says cannot be avoided where all of a budget is to be spent."""
    request = BudgetRequest(production_steps=10, budget_steps=79)
    plans = [plan_rounds(with_budget(request, steps)) for steps in (79, 80)]
    assert [trials(plan) for plan in plans] == [[49, 3], [40, 4]]


@many
@given(requests())
def test_shares_are_kept_where_nothing_binds(request):
    request = with_budget(request, 400 * request.num_rounds * request.production_steps)
    plan = plan_rounds(request)
    last = request.last_round_share if request.num_rounds > 1 else 1
    shares = [(1 - last) / (request.num_rounds - 1)] * (request.num_rounds - 1) if last < 1 else []
    slack = sum(planned.length_steps for planned in plan.rounds)
    for planned, share in zip(plan.rounds, [*shares, last], strict=True):
        assert abs(planned.steps - share * plan.budget_steps) <= slack + 1


def test_what_a_limit_keeps_one_round_from_spending_goes_to_the_others():
    request = BudgetRequest(production_steps=100, budget_steps=2000, max_trials=30)
    assert trials(plan_rounds(request)) == [30, 17]
    # Where all have their limit, nothing can spend the rest.
    plan = plan_rounds(dataclasses.replace(request, max_trials=15))
    assert trials(plan) == [15, 15] and plan.left_over_steps == 350


@many
@given(any_request)
def test_plans_are_deterministic_and_json_able(request):
    plan = affordable(request)
    assert plan == affordable(request)
    values = json.loads(json.dumps(dataclasses.asdict(plan)))
    rounds = tuple(PlannedRound(**planned) for planned in values.pop("rounds"))
    assert RoundsPlan(**values, rounds=rounds) == plan


def test_what_is_reused_is_what_the_last_rounds_fewest_settings_share():
    request = BudgetRequest(
        production_steps=1000, budget_steps=10**5, min_last_trials=2, constant_fraction=0.8
    )
    # The winner and its re-run, each in one seed, through the first round's constant period.
    assert plan_rounds(request).reused_steps_expected == 2 * 80
    one = dataclasses.replace(request, num_rounds=1)
    assert plan_rounds(one).reused_steps_expected == 0


@many
@given(any_request)
def test_less_is_reused_than_the_last_round_costs(request):
    plan = affordable(request)
    assert 0 <= plan.reused_steps_expected <= plan.rounds[-1].steps


@pytest.mark.parametrize(
    ("production", "fraction", "short"),
    [(10_000, 0.1, False), (30, 0.1, False), (10_000, 0.09, True), (11, 0.1, False)],
)
def test_a_first_round_below_a_tenth_is_short(production, fraction, short):
    request = BudgetRequest(
        production_steps=production, budget_steps=10**6, first_round_fraction=fraction
    )
    assert plan_rounds(request).first_round_is_short == short


def test_a_single_round_is_production_alone():
    plan = plan_rounds(BudgetRequest(production_steps=10, budget_steps=39, num_rounds=1))
    assert plan.rounds == (PlannedRound(1, 10, 3, 30),)
    assert not plan.first_round_is_short


def test_what_half_and_twice_the_budget_buy():
    request = BudgetRequest(production_steps=1000, budget_steps=3000)
    assert plan_if_feasible(request, 1500) is None
    assert plan_if_feasible(request, 6000) == plan_rounds(with_budget(request, 6000))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"production_steps": 4, "num_rounds": 5},
            "there are lengths for no more than 4 r",
        ),
        ({"first_round_fraction": 1.0}, "first_round_fraction = 1.0: should be between 0 and 1"),
        ({"last_round_share": 0.0}, "last_round_share = 0.0: should be between 0 and 1"),
        ({"max_trials": 7, "min_trials": 8}, "max_trials = 7: a round takes 8 trials or more"),
    ],
)
def test_what_cannot_be_planned_is_refused(fields, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        BudgetRequest(**{"production_steps": 100, "budget_steps": 1000, **fields})
