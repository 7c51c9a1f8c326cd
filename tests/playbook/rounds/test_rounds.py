import dataclasses
import json
import math

import pytest
from conftest import PlannedTrial, trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Add, Advance, Selection
from budgetflow.playbook.rounds.policy import RoundSettings, decide, outcome

METRIC = "validation_error_rate"
SELECTION = Selection(METRIC)

modest = settings(max_examples=80, deadline=None)


@dataclasses.dataclass(frozen=True)
class Fate:
    """What becomes of a trial: its metric at each evaluation, and where it diverges."""

    values: tuple[float, ...]
    diverges_at: int | None = None
    steps_reused: int = 0


ERROR_RATES = st.integers(0, 8).map(lambda wrong: wrong / 8)


@st.composite
def rounds(draw):
    evaluations = draw(st.integers(1, 8))
    length = 10 * evaluations
    fates = draw(
        st.lists(
            st.builds(
                Fate,
                st.tuples(*[ERROR_RATES] * evaluations),
                st.none() | st.none() | st.integers(1, length),
                st.just(0) | st.integers(0, evaluations - 1).map(lambda i: 10 * i),
            ),
            min_size=1,
            max_size=6,
        )
    )
    return round_settings(length, len(fates)), fates


def round_settings(length, trials):
    hyperparameters = tuple({"optimizer.momentum": i / 10} for i in range(trials))
    planned = tuple(PlannedTrial(values, length) for values in hyperparameters)
    return RoundSettings(planned, length, SELECTION)


def view(settings, fate, number, step):
    """The trial as it is after training to ``step``, an evaluation, unless it diverged before."""
    rows, status = [], "pending"
    for end, value in zip(range(10, step + 1, 10), fate.values, strict=False):
        status = "complete" if end == settings.max_train_steps else "running"
        row = {"step": end, METRIC: value, "validation_loss": 2 * value, "train_loss": 1.0}
        if fate.diverges_at is not None and fate.diverges_at <= end:
            status = "diverged"
            row |= {METRIC: math.nan, "train_loss": math.nan}
        rows.append(row)
        if status == "diverged":
            break
    end = rows[-1]["step"] if rows else 0
    return trial_record(
        number,
        Schedule(0.1, 0, settings.max_train_steps),
        rows,
        hyperparameters=settings.trials[number].hyperparameters,
        status=status,
        steps_reused=min(fate.steps_reused, end),
    )


def simulate(settings, fates, start=(), outcome=outcome):
    trials = {trial.trial: trial for trial in start}
    decisions = []
    for _ in range(3 * len(fates) + 3):
        views = [trials[number] for number in sorted(trials)]
        decision = decide(settings, views, outcome)
        decisions.append(decision)
        if isinstance(decision, Add):
            assert decision.trials
            assert not decision.trials.keys() & trials.keys()
            for number, hyperparameters in decision.trials.items():
                assert hyperparameters == settings.trials[number].hyperparameters
                trials[number] = view(settings, fates[number], number, fates[number].steps_reused)
        elif isinstance(decision, Advance):
            assert decision.trials
            for number in decision.trials:
                end = min(decision.to_step, settings.trials[number].length_steps)
                assert trials[number].step < end <= settings.max_train_steps
                assert trials[number].status != "diverged"
                trials[number] = view(settings, fates[number], number, end)
        else:
            return decision.outcome.to_json(), list(trials.values()), decisions
    raise AssertionError("the round does not end")


@modest
@given(rounds())
def test_every_trial_runs_to_the_end_or_until_it_diverges(round_):
    settings, fates = round_
    found, trials, decisions = simulate(settings, fates)
    assert isinstance(decisions[0], Add)
    assert list(decisions[0].trials) == list(range(len(fates)))
    assert len(trials) == found["trials"] == len(fates)
    assert all(trial.status in ("complete", "diverged") for trial in trials)
    assert found["diverged"] == sum(fate.diverges_at is not None for fate in fates)
    assert found["max_train_steps"] == settings.max_train_steps


@modest
@given(rounds())
def test_the_best_trial_has_the_lowest_metric_at_its_best_step(round_):
    settings, fates = round_
    found, _, _ = simulate(settings, fates)
    feasible = [
        (value, number, 10 * (i + 1))
        for number, fate in enumerate(fates)
        if fate.diverges_at is None
        for i, value in enumerate(fate.values)
    ]
    if not feasible:
        assert found["best_trial"] is None
        assert found["best_step"] is None
        assert found["best_validation"] is None
        assert any("diverged" in reason for reason in found["reasons"][1:])
        return
    # Ties go to the lower number, and within a trial to the earlier step.
    value, number, step = min(feasible)
    assert found["best_trial"] == number
    assert found["best_step"] == step
    assert found["best_validation"] == {"error_rate": value, "loss": 2 * value}


@modest
@given(rounds())
def test_the_outcome_keeps_the_contract(round_):
    settings, fates = round_
    found, trials, _ = simulate(settings, fates)
    json.dumps(found, allow_nan=False)
    assert found["kind"] == "round"
    assert found["transfer"] is None
    diagnosis = found["best_step_diagnosis"]
    counted = diagnosis["competing_trials"] + diagnosis["hopeless_trials"]
    assert len(set(counted)) == len(fates) - found["diverged"]
    assert diagnosis["trials"] == len(diagnosis["competing_trials"])
    assert found["steps_trained"] + found["steps_reused"] == sum(t.step for t in trials)
    assert found["steps_reused"] == sum(t.steps_reused for t in trials)
    assert found["best_step_diagnosis"]["means"] in found["reasons"]
    assert set(found["best_step_diagnosis"]["caveats"]) <= set(found["reasons"])
    says_reused = any("taken over" in reason for reason in found["reasons"])
    assert says_reused == (found["steps_reused"] > 0)


@modest
@given(rounds(), st.data())
def test_a_round_that_was_interrupted_ends_with_the_same_outcome(round_, data):
    settings, fates = round_
    found, trials, _ = simulate(settings, fates)
    left = [
        view(settings, fates[trial.trial], trial.trial, max(kept, trial.steps_reused))
        for trial in trials
        if (kept := data.draw(st.sampled_from([None, *range(0, trial.step + 1, 10)]))) is not None
    ]
    again, _, decisions = simulate(settings, fates, left)
    assert again == found
    added = {n for d in decisions if isinstance(d, Add) for n in d.trials}
    assert added == {trial.trial for trial in trials} - {trial.trial for trial in left}


@modest
@given(rounds())
def test_every_feasible_trial_is_ranked_best_first(round_):
    settings, fates = round_
    _, trials, _ = simulate(settings, fates)
    ranked = SELECTION.ranked(reversed(trials))
    expected = sorted(
        (min(fate.values), number) for number, fate in enumerate(fates) if fate.diverges_at is None
    )
    assert [trial.trial for trial, _ in ranked] == [number for _, number in expected]


@modest
@given(rounds())
def test_negated_values_of_which_higher_is_better_change_no_decision(round_):
    settings, fates = round_
    higher = dataclasses.replace(settings, selection=Selection(METRIC, higher_is_better=True))
    negated = [dataclasses.replace(f, values=tuple(-v for v in f.values)) for f in fates]
    found, _, decisions = simulate(settings, fates)
    same = ("verdict", "suggested_max_train_steps", "competing_trials", "hopeless_trials", "trials")
    other, _, other_decisions = simulate(higher, negated)
    assert decisions[:-1] == other_decisions[:-1]
    differing = {name for name in found if found[name] != other[name]}
    assert differing <= {"best_validation", "best_step_diagnosis", "reasons"}
    one, another = found["best_step_diagnosis"], other["best_step_diagnosis"]
    assert [one[name] for name in same] == [another[name] for name in same]
    if found["best_trial"] is not None:
        assert other["best_validation"]["error_rate"] == -found["best_validation"]["error_rate"]


def test_a_trial_that_was_good_before_it_diverged_is_not_chosen():
    fates = [Fate((0.5, 0.5, 0.5)), Fate((0.0, 0.0, 0.0), diverges_at=25)]
    settings = round_settings(30, 2)
    found, _, _ = simulate(settings, fates)
    assert found["best_trial"] == 0
    assert found["diverged"] == 1


@pytest.mark.parametrize("reused", [0, 10])
def test_reused_steps_are_not_counted_as_trained(reused):
    fates = [Fate((0.5, 0.4, 0.3), steps_reused=reused)]
    found, _, _ = simulate(round_settings(30, 1), fates)
    assert found["steps_trained"] == 30 - reused
    assert found["steps_reused"] == reused
