"""Which trials compete; and that the verdict on a study's length is about those alone."""

import dataclasses
import math
import random

import pytest
from conftest import diagnose, mirrored, trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.competing import compete
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.words import counted

METRIC = "validation_error_rate"
LOWER, HIGHER = Selection(METRIC), Selection(METRIC, higher_is_better=True)

modest = settings(max_examples=200, deadline=None)


def trial(number, values, status="complete", every=25):
    """A trial with these values of the metric at its evaluations."""
    rows = [{"step": every * i, METRIC: value} for i, value in enumerate(values, start=1)]
    schedule = Schedule(0.1 * (abs(number) + 1), 0, every * len(values))
    return trial_record(number, schedule, rows, status=status)


def numbers(chosen):
    return [t.trial for t, _ in chosen]


# Error rates on eight examples, with many ties and zeros; losses; log-likelihoods.
VALUES = st.one_of(
    st.integers(0, 8).map(lambda wrong: wrong / 8),
    st.floats(0, 10),
    st.floats(-1e3, 1e3),
)


@st.composite
def studies(draw):
    count = draw(st.integers(1, 30))
    values = draw(st.sampled_from([st.integers(0, 8).map(lambda k: k / 8), VALUES]))
    curves = draw(st.lists(st.lists(values, min_size=count, max_size=count), max_size=6))
    # Even numbers, so that there is room for others between them.
    return count, [trial(2 * n, curve) for n, curve in enumerate(curves)]


VERDICT = (
    "verdict", "suggested_max_train_steps", "suggested_schedule", "share_in_first_10_percent",
    "share_in_last_25_percent", "trials", "in_first_10_percent", "in_last_25_percent",
    "competing_trials", "competes_at",
)  # fmt: skip


@modest
@given(studies(), st.booleans(), st.data())
def test_no_number_of_hopeless_and_diverged_trials_changes_the_verdict(study, higher, data):
    count, trials = study
    selection = HIGHER if higher else LOWER
    length = 25 * count
    before = diagnose(trials, length, selection)
    if not before["trials"]:
        return
    limit = selection.cost({METRIC: before["competes_at"]})
    worse = st.floats(1e-9, 1e6).map(lambda gap: max(limit + gap, math.nextafter(limit, math.inf)))
    added = []
    for number in range(data.draw(st.integers(1, 40))):
        # Anywhere among the others, its best step anywhere in its run.
        best, at = data.draw(worse), data.draw(st.integers(0, count - 1))
        values = [best if i == at else best + 1 for i in range(count)]
        status = data.draw(st.sampled_from(["complete", "diverged"]))
        if status == "diverged":  # however good it was before
            values = [-1e9] * count
        sign = -1 if higher else 1
        added.append(trial(2 * number + 1, [sign * value for value in values], status))
    after = diagnose([*added, *trials], length, selection)
    assert {key: after[key] for key in VERDICT} == {key: before[key] for key in VERDICT}
    hopeless = sum(t.status != "diverged" for t in added)
    assert len(after["hopeless_trials"]) == len(before["hopeless_trials"]) + hopeless
    others = counted(len(after["hopeless_trials"]), "other trial")
    assert others in after["means"] or not after["hopeless_trials"]


@modest
@given(studies())
def test_the_best_always_compete_and_nobody_who_is_worse_than_one_who_does_not(study):
    _, trials = study
    found = compete(trials, LOWER)
    assert sorted(numbers([*found.competing, *found.hopeless])) == [t.trial for t in trials]
    ends = {t.trial: min(row[METRIC] for row in t.rows) for t in trials}
    if not trials:
        assert found.threshold is None
        return
    best = min(ends.values())
    assert {n for n, end in ends.items() if end == best} <= set(numbers(found.competing))
    assert all(ends[n] <= found.threshold for n in numbers(found.competing))
    assert all(ends[n] > found.threshold for n in numbers(found.hopeless))


@modest
@given(studies(), st.randoms(use_true_random=False))
def test_neither_the_order_nor_the_numbers_of_trials_matter(study, shuffle):
    _, trials = study
    new = shuffle.sample(range(100), len(trials))
    renumbered = [dataclasses.replace(t, trial=n) for t, n in zip(trials, new, strict=True)]
    names = dict(zip(new, (t.trial for t in trials), strict=True))
    one, other = compete(trials, LOWER), compete(renumbered, LOWER)
    assert other.threshold == one.threshold
    assert {names[n] for n in numbers(other.competing)} == set(numbers(one.competing))


@modest
@given(studies())
def test_an_accuracy_is_judged_as_its_error_rate_a_loss_as_any_rising_function_of_it(study):
    _, trials = study
    expected = numbers(compete(trials, LOWER).competing)
    assert numbers(compete(mirrored(trials, METRIC), HIGHER).competing) == expected
    transformed = [
        dataclasses.replace(t, rows=[{**r, METRIC: 8 * r[METRIC] + 1024} for r in t.rows])
        for t in trials
        if all(8 * row[METRIC] == int(8 * row[METRIC]) for row in t.rows)
    ]
    if len(transformed) == len(trials):
        assert numbers(compete(transformed, LOWER).competing) == expected


FALLING = [1 - i / 50 for i in range(1, 41)]  # 0.98 … 0.2, the best at the end


@pytest.mark.parametrize(
    ("best", "threshold"),
    [
        (FALLING, FALLING[9]),  # a quarter of the way
        ([*FALLING[:20], *FALLING[:20][::-1]], FALLING[4]),  # … to its best step, not to the end
        # Nothing is evaluated before a quarter of the way: the first evaluation.
        ([0.9, 0.5, 0.1, *[0.2] * 37], 0.9),
        # The first is the best: a tenth of the evaluations.
        ([0.1, 0.2, 0.3, 0.4, 0.5, *[0.9] * 35], 0.4),
        # A spike is not what it had reached.
        ([*FALLING[:4], 99.0, *FALLING[5:9], 99.0, *FALLING[10:]], FALLING[8]),
        # Evaluations that are not finite are none.
        ([math.nan, math.inf, *FALLING[2:]], FALLING[9]),
        # One example of forty is a big step.
        ([*[0.1] * 5, *[0.025] * 15, *[0.0] * 20], 0.1),
        ([0.0] * 40, 0.0),
        ([0.7], 0.7),
    ],
)
def test_the_threshold_is_what_the_best_trial_had_on_its_way(best, threshold):
    ends = [threshold, math.nextafter(threshold, 2)]
    trials = [trial(0, best), *(trial(1 + n, [end] * len(best)) for n, end in enumerate(ends))]
    found = compete(trials, LOWER)
    assert found.threshold == threshold
    assert numbers(found.competing) == [0, 1]
    assert numbers(found.hopeless) == [2]
    assert f"{threshold:.4g} or better" in diagnose(trials, 25 * len(best), LOWER)["means"]


def test_of_several_trials_without_an_error_the_most_lenient_threshold_counts():
    at_once = trial(0, [0.0] * 40)
    slowly = trial(1, [*[0.05] * 10, *[0.0] * 30])
    one_wrong = trial(2, [0.025] * 40)
    assert numbers(compete([at_once, one_wrong], LOWER).competing) == [0]
    assert numbers(compete([at_once, slowly, one_wrong], LOWER).competing) == [0, 1, 2]


# Simulated workloads. A learning rate makes progress in proportion to itself, up to one at which
# training is stuck: those above have their best step at once.

LENGTH, STUCK_ABOVE = 1000, 1.0


def simulated(rate, number, kind, turns_up_at=math.inf):
    """A trial's curve: a loss; an error rate over 200 examples; their negatives."""
    noise = random.Random(number)
    values = []
    for step in range(25, LENGTH + 1, 25):
        progress = rate * step
        loss = 0.05 + 2.3 * (1 + progress / 20) ** -0.7
        if rate > STUCK_ABOVE:
            loss = 2.3 + 0.5 * min(math.log10(rate), 1) * (step / LENGTH)
        loss += 0.4 * max(0.0, progress / turns_up_at - 1)  # overfitting
        loss *= 1 + 0.01 * noise.gauss(0, 1)
        error = round(200 * min(0.9, 0.35 * loss)) / 200
        value = error if "error" in kind else loss
        values.append(-value if "negative" in kind else value)
    return trial(number, values)


def grid(lowest, highest, count):
    return [lowest * (highest / lowest) ** (i / (count - 1)) for i in range(count)]


@pytest.mark.parametrize("kind", ["loss", "error rate", "negative loss", "negative error rate"])
@pytest.mark.parametrize(
    ("turns_up_at", "verdict"), [(math.inf, "too_short"), (200.0, "about_right")]
)
def test_learning_rates_that_are_far_too_high_do_not_change_the_verdict(kind, turns_up_at, verdict):
    selection = HIGHER if "negative" in kind else LOWER
    good = [
        simulated(rate, n, kind, turns_up_at) for n, rate in enumerate(grid(0.003, STUCK_ABOVE, 42))
    ]
    stuck = [
        simulated(rate, 100 + n, kind, turns_up_at)
        for n, rate in enumerate(grid(STUCK_ABOVE * 1.1, 30.0, 18))
    ]
    diagnosis, wider = (diagnose(ts, LENGTH, selection) for ts in (good, [*good, *stuck]))
    assert diagnosis["verdict"] == verdict
    assert {key: wider[key] for key in VERDICT} == {key: diagnosis[key] for key in VERDICT}
    assert set(wider["hopeless_trials"]) >= {t.trial for t in stuck}
    assert wider["hopeless_in_first_10_percent"] >= 12
    # All trials together would be about right: fewer than three quarters are late.
    assert wider["in_last_25_percent"] + wider["hopeless_in_last_25_percent"] < 45


def test_learning_rates_that_are_far_too_low_do_not_hide_that_a_length_is_too_long():
    fast = [simulated(rate, n, "loss", 40.0) for n, rate in enumerate(grid(0.5, 1.0, 5))]
    slow = [simulated(rate, 100 + n, "loss", 40.0) for n, rate in enumerate(grid(1e-4, 5e-3, 30))]
    assert {diagnose(ts, LENGTH, LOWER)["verdict"] for ts in (fast, [*fast, *slow])} == {"too_long"}


def test_where_too_few_compete_it_is_undecided_and_said_what_to_do():
    good = [simulated(rate, n, "loss") for n, rate in enumerate((0.9, 1.0))]
    stuck = [simulated(rate, 100 + n, "loss") for n, rate in enumerate(grid(2.0, 30.0, 30))]
    diagnosis = diagnose([*good, *stuck], LENGTH, LOWER)
    assert diagnosis["verdict"] == "undecided"
    assert diagnosis["suggested_max_train_steps"] is None
    assert diagnosis["competing_trials"] == [0, 1]
    assert "2 trials that compete for the best result (best at step" in diagnosis["means"]
    assert "Search closer to the best one" in diagnosis["means"]
    assert "30 other trials do not compete" in diagnosis["means"]
