import dataclasses
import json
import math
import sys
import types

import pytest
from conftest import mirrored, trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.rounds import policy as rounds
from budgetflow.playbook.rounds.decay_spread import HINGES_ABOVE

METRIC = "validation_loss"
SELECTION = Selection(METRIC)
LINEAR = Schedule(0.1, 10, 60, 30, "linear")
COSINE = Schedule(0.1, 10, 0, 90, "cosine")
NONE = Schedule(0.1, 10, 90)
OWN = Schedule(0.1, decay_steps=100, decay="function", function="my_lab.rates")


@pytest.fixture(scope="module", autouse=True)
def my_lab():
    """The module of that schedule."""
    module = types.ModuleType("my_lab")
    module.rates = lambda step: 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "my_lab", module)
        yield


modest = settings(max_examples=200, deadline=None)


def decay_spread(trials, selection):
    """The decay spread of some trials, as JSON values."""
    settings = rounds.RoundSettings((), 100, selection)
    return rounds.outcome(settings, trials).to_json()["decay_spread"]


# Trials that are worse than the best by more than this do not compete.
COMPETES_WITHIN = 1.5


def trial(number, value, schedule, status="complete", **hyperparameters):
    """A trial whose best step, not its last one, has the metric ``value``."""
    values = {10: value + COMPETES_WITHIN, 50: value, 100: value + 1}
    rows = [{"step": step, METRIC: metric} for step, metric in values.items()]
    fields = {"schedule.decay": schedule.decay, **hyperparameters}
    return trial_record(number, schedule, rows, hyperparameters=fields, status=status)


@st.composite
def studies(draw):
    shapes = st.sampled_from(
        [
            LINEAR, COSINE, NONE,
            dataclasses.replace(LINEAR, constant_steps=80, decay_steps=10),
            dataclasses.replace(LINEAR, final_learning_rate=0.01),
        ]
    )  # fmt: skip
    base = st.sampled_from([0.1, 0.2])
    warmup_less = st.sampled_from([0, 0, 5])

    def one(number):
        shape = draw(shapes)
        less = draw(warmup_less) if shape.constant_steps else 0
        schedule = dataclasses.replace(
            shape,
            base_learning_rate=draw(base),
            warmup_steps=shape.warmup_steps - less,
            constant_steps=shape.constant_steps + less,
        )
        return trial(
            number,
            draw(st.sampled_from([0.0, 0.5, 1.0, 1.05, 2.0, -1.0])),
            schedule if draw(st.integers(0, 9)) else OWN,
            draw(st.sampled_from(["complete", "complete", "complete", "diverged"])),
            seed=draw(st.integers(0, 1)),
            **{"schedule.base_learning_rate": schedule.base_learning_rate},
        )

    return [one(number) for number in range(draw(st.integers(0, 8)))]


def value_of(view):
    return view.rows[1][METRIC]


def relative(ends):
    """How far apart the best and the worst of some values are, as a fraction of the best."""
    best, worst = min(ends), max(ends)
    if best == worst:
        return 0.0
    return (worst - best) / abs(best) if best else math.inf


def all_but_the_decay(view):
    schedule = view.schedule
    if schedule is OWN:
        return None
    return view.hyperparameters["seed"], schedule.base_learning_rate, schedule.warmup_steps


def groups(trials):
    """What each schedule gives, by what else its trials have in common; more than one of each."""
    found = {}
    for view in trials:
        if view.schedule is not OWN:
            ends = found.setdefault(all_but_the_decay(view), {})
            ends[view.schedule] = min(ends.get(view.schedule, math.inf), value_of(view))
    return {same: list(ends.values()) for same, ends in found.items() if len(ends) > 1}


@modest
@given(studies())
def test_the_best_and_worst_of_one_group_are_compared(trials):
    spread = decay_spread(trials, SELECTION)
    usable = [t for t in trials if t.status != "diverged"]
    overall = min(usable, key=lambda t: (value_of(t), t.trial), default=None)
    compared = {
        same: ends
        for same, ends in groups(usable).items()
        if min(ends) <= value_of(overall) + COMPETES_WITHIN
    }
    if not compared:
        assert spread is None
        return
    json.dumps(spread, allow_nan=False)
    best, worst = trials[spread["best_trial"]], trials[spread["worst_trial"]]
    assert (value_of(best), value_of(worst)) == (spread["best"], spread["worst"])
    assert all_but_the_decay(best) == all_but_the_decay(worst)
    assert best.schedule != worst.schedule
    group = compared[all_but_the_decay(best)]
    assert spread["schedules"] == len(group)
    assert (spread["best"], spread["worst"]) == (min(group), max(group))
    assert spread["relative"] == (relative(group) if min(group) else None)
    assert spread["hinges_on_decay"] is (relative(group) > HINGES_ABOVE)
    # The best trial's group goes first, and of the others the one that ends the farthest apart.
    if all_but_the_decay(overall) in compared:
        assert best is overall
    else:
        assert relative(group) == max(relative(ends) for ends in compared.values())


@modest
@given(studies(), st.randoms(use_true_random=False))
def test_the_order_of_trials_does_not_matter(trials, random):
    shuffled = random.sample(trials, len(trials))
    assert decay_spread(shuffled, SELECTION) == decay_spread(trials, SELECTION)


@modest
@given(studies())
def test_negated_values_of_which_higher_is_better_change_no_verdict(trials):
    expected = decay_spread(trials, SELECTION)
    higher = decay_spread(mirrored(trials, METRIC), Selection(METRIC, higher_is_better=True))
    if expected is None:
        assert higher is None
        return
    assert (higher["best"], higher["worst"]) == (-expected["best"], -expected["worst"])
    same = ("schedules", "relative", "best_trial", "worst_trial", "hinges_on_decay")
    assert [higher[key] for key in same] == [expected[key] for key in same]


@modest
@given(st.floats(0.001, 1000), st.floats(0, 3))
def test_it_hinges_on_the_decay_above_the_threshold(best, above):
    worst = best * (1 + above)
    spread = decay_spread([trial(0, worst, LINEAR), trial(1, best, COSINE)], SELECTION)
    assert spread["relative"] == (worst - best) / best
    assert spread["hinges_on_decay"] is (spread["relative"] > HINGES_ABOVE)
    sign = "is a sign that max_train_steps is too short"
    assert (sign in spread["means"]) is spread["hinges_on_decay"]
    assert ("is no sign" in spread["means"]) is not spread["hinges_on_decay"]


def test_just_the_threshold_is_no_sign():
    spread = decay_spread([trial(0, 10.0, LINEAR), trial(1, 11.0, COSINE)], SELECTION)
    assert spread["relative"] == HINGES_ABOVE
    assert spread["hinges_on_decay"] is False


def test_the_sentence_names_both_ends():
    trials = [trial(0, 0.5, LINEAR), trial(1, 0.4, COSINE), trial(2, 0.41, NONE)]
    spread = decay_spread(trials, SELECTION)
    assert spread == {
        "schedules": 3,
        "best": 0.4,
        "worst": 0.5,
        "relative": pytest.approx(0.25),
        "best_trial": 1,
        "worst_trial": 0,
        "hinges_on_decay": True,
        "means": "3 schedules that differ only in their decay end at a validation loss from 0.4 "
        "(trial 1, cosine decay over 90 steps) to 0.5 (trial 0, linear decay over 30 steps), 25.0% "
        "apart. Ending more than 10% apart is a sign that max_train_steps is too short: a stingy "
        "length takes a perfectly tuned decay.",
    }
    calm = decay_spread([trial(0, 0.4, NONE), trial(1, 0.41, LINEAR)], SELECTION)
    assert calm["hinges_on_decay"] is False
    assert calm["means"] == (
        "2 schedules that differ only in their decay end at a validation loss from 0.4 (trial 0, "
        "no decay) to 0.41 (trial 1, linear decay over 30 steps), 2.5% apart. Ending within 10% is "
        "no sign that max_train_steps is too short."
    )


@pytest.mark.parametrize(("worst", "hinges"), [(0.0, False), (0.01, True)])
def test_a_best_metric_of_zero_has_no_relative_distance(worst, hinges):
    spread = decay_spread([trial(0, 0.0, LINEAR), trial(1, worst, COSINE)], SELECTION)
    assert spread["relative"] is None
    assert spread["hinges_on_decay"] is hinges
    assert "apart. " not in spread["means"].split("). ")[0]


def test_the_best_trials_group_goes_before_a_wider_one():
    trials = [
        trial(0, 1.0, LINEAR, seed=0),
        trial(1, 9.0, COSINE, seed=0),
        trial(2, 0.9, LINEAR, seed=1),
        trial(3, 0.91, COSINE, seed=1),
    ]
    assert decay_spread(trials, SELECTION)["best_trial"] == 2
    # Without a sibling, the best trial says nothing about decays.
    assert decay_spread(trials[:3], SELECTION)["best_trial"] == 0


def test_the_widest_group_is_the_one_farthest_apart_for_its_best():
    trials = [
        trial(0, 0.1, LINEAR, seed=0),
        trial(1, 1.0, LINEAR, seed=1),
        trial(2, 1.2, COSINE, seed=1),
        trial(3, 0.5, LINEAR, seed=2),
        trial(4, 1.0, COSINE, seed=2),
    ]
    assert decay_spread(trials, SELECTION)["best_trial"] == 3


def test_decays_of_trials_that_do_not_compete_say_nothing():
    trials = [
        trial(0, 0.1, LINEAR, seed=0),
        trial(1, 2.0, LINEAR, seed=1),
        trial(2, 9.0, COSINE, seed=1),
    ]
    assert decay_spread(trials, SELECTION) is None
    # Beside ones that do, they change nothing.
    calm = [trial(3, 0.5, LINEAR, seed=2), trial(4, 0.51, COSINE, seed=2)]
    assert decay_spread([*trials, *calm], SELECTION) == decay_spread([trials[0], *calm], SELECTION)


@pytest.mark.parametrize(
    "other",
    [
        trial(1, 2.0, LINEAR),  # the same schedule
        trial(1, 2.0, COSINE, seed=1),
        trial(1, 2.0, COSINE, **{"optimizer.momentum": 0.5}),
        trial(1, 2.0, dataclasses.replace(COSINE, base_learning_rate=0.2)),
        trial(1, 2.0, Schedule(0.1, 20, 0, 80, "cosine")),  # another warmup
        trial(1, 2.0, Schedule(0.1, 10, 160, 30, "linear")),  # another length
        trial(1, 2.0, COSINE, status="diverged"),
        trial(1, math.nan, COSINE),
        trial(1, 2.0, OWN),
    ],
    ids=lambda view: f"{view.schedule.decay}-{view.status}",
)
def test_what_differs_in_more_than_its_decay_is_not_compared(other):
    assert decay_spread([trial(0, 1.0, LINEAR), other], SELECTION) is None


def test_a_function_of_ones_own_is_left_out():
    trials = [trial(0, 1.0, OWN), trial(1, 2.0, Schedule(0.1, 0, 70, 30, "linear"))]
    assert decay_spread(trials, SELECTION) is None


def test_hyperparameters_may_be_lists():
    trials = [
        trial(n, n + 1.0, schedule, **{"model.hidden_sizes": [16]})
        for n, schedule in enumerate([LINEAR, COSINE])
    ]
    assert decay_spread(trials, SELECTION)["relative"] == 1.0


def test_no_trials_no_spread():
    assert decay_spread([], SELECTION) is None
