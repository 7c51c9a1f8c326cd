import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule, common_prefix_steps
from budgetflow.playbook.common.transfer import (
    NoTransferRuleError,
    compare,
    extra_step_learning_rates,
    stretch,
    transfer,
)
from budgetflow.playbook.rounds.words import pitfall, where_extra_steps_go

LENGTHS = st.integers(0, 300)
POSITIVE_LENGTHS = st.integers(1, 300)
EXTRA_STEPS = st.integers(1, 2000)

modest = settings(max_examples=80, deadline=None)


# Decays after a constant period that is extended; "wsd-cosine" is a cosine after such a period.
TAILS = ("linear", "1-sqrt", "exponential", "polynomial", "step", "wsd-cosine")
TRANSFERABLE = ("none", "cosine", *TAILS)
# What ends at no learning rate of its own choice.
ENDLESS = ("none", "step", "inverse_sqrt")


@st.composite
def schedules(draw, decays=TRANSFERABLE):
    base = draw(st.floats(1e-5, 10.0))
    decay = draw(st.sampled_from(decays))
    final = 0.1 if decay == "exponential" else draw(st.sampled_from([0.0, 0.1, 0.6]))
    return Schedule(
        base,
        draw(LENGTHS),
        # A schedule that is all warmup never reaches its base learning rate.
        0
        if decay == "cosine"
        else draw(POSITIVE_LENGTHS if decay in ("none", "wsd-cosine") else LENGTHS),
        0 if decay == "none" else draw(POSITIVE_LENGTHS),
        decay.removeprefix("wsd-"),
        0.0 if decay in ENDLESS else final * base,
        final_steps=0 if decay in ENDLESS else draw(st.just(0) | LENGTHS),
        power=draw(st.sampled_from([0.5, 2.0])),
        drop_steps=(0, *draw(st.sets(st.integers(1, 300), max_size=3).map(sorted)))
        if decay == "step"
        else (),
    )


@modest
@given(schedules(), EXTRA_STEPS)
def test_the_new_schedule_has_the_new_length_and_the_same_shape(schedule, extra):
    carried = transfer(schedule, schedule.total_steps + extra)
    assert carried.before == schedule
    assert carried.extra_steps == extra
    after = carried.after
    assert after.total_steps == schedule.total_steps + extra
    assert after.warmup_steps == schedule.warmup_steps
    assert after.base_learning_rate == schedule.base_learning_rate
    assert (after.decay, after.final_learning_rate) == (
        schedule.decay,
        schedule.final_learning_rate,
    )


@modest
@given(schedules(TAILS), EXTRA_STEPS)
def test_a_decay_after_a_constant_period_keeps_its_length_and_every_extra_step_is_at_the_base(
    schedule, extra
):
    carried = transfer(schedule, schedule.total_steps + extra)
    assert carried.after == dataclasses.replace(
        schedule, constant_steps=schedule.constant_steps + extra
    )
    assert carried.mean_relative_learning_rate == 1.0
    assert carried.share_above_half == 1.0
    assert common_prefix_steps(schedule, carried.after) >= schedule.decay_start_step
    before, after = schedule.learning_rates(), carried.after.learning_rates()
    np.testing.assert_array_equal(
        before[schedule.decay_start_step :], after[carried.after.decay_start_step :]
    )


@modest
@given(schedules(["none"]), EXTRA_STEPS)
def test_a_constant_schedule_goes_on(schedule, extra):
    carried = transfer(schedule, schedule.total_steps + extra)
    assert carried.after == dataclasses.replace(
        schedule, constant_steps=schedule.constant_steps + extra
    )
    assert (carried.mean_relative_learning_rate, carried.share_above_half) == (1.0, 1.0)
    assert common_prefix_steps(schedule, carried.after) == schedule.total_steps


@modest
@given(schedules(["cosine"]), EXTRA_STEPS)
def test_cosine_is_stretched_and_its_extra_steps_are_half_way_down_on_average(schedule, extra):
    carried = transfer(schedule, schedule.total_steps + extra)
    assert carried.after == dataclasses.replace(schedule, decay_steps=schedule.decay_steps + extra)
    final = schedule.final_learning_rate / schedule.base_learning_rate
    assert carried.mean_relative_learning_rate == pytest.approx((1 + final) / 2, abs=1e-4)


@modest
@given(st.sampled_from([0.1, 0.7]), POSITIVE_LENGTHS, EXTRA_STEPS)
def test_share_of_a_cosine_above_half_is_counted_exactly(base, decay, extra):
    # Half of 0.7 is rounded down in float32, half of 0.1 up.
    schedule = Schedule(base, 10, 0, decay, "cosine")
    carried = transfer(schedule, schedule.total_steps + extra)
    # Of d updates of a cosine to zero, those up to and with the middle one are at half or above.
    more = (decay + extra) // 2 - decay // 2
    assert carried.share_above_half == pytest.approx(more / extra, abs=1e-6)


@modest
@given(schedules(), EXTRA_STEPS, EXTRA_STEPS)
def test_round_1_to_2_to_3_is_round_1_to_3(schedule, extra, more):
    second = transfer(schedule, schedule.total_steps + extra).after
    third = transfer(second, schedule.total_steps + extra + more).after
    assert third == transfer(schedule, schedule.total_steps + extra + more).after


@modest
@given(schedules())
def test_the_same_length_is_the_same_schedule(schedule):
    carried = transfer(schedule, schedule.total_steps)
    assert carried.after == schedule
    assert carried.extra_steps == 0
    assert (carried.mean_relative_learning_rate, carried.share_above_half) == (1.0, 1.0)


@modest
@given(schedules(), st.integers(1, 2000))
def test_a_shorter_run_is_refused_with_both_lengths_named(schedule, fewer):
    length = schedule.total_steps - fewer
    with pytest.raises(ValueError) as caught:
        transfer(schedule, length)
    assert f"{schedule.total_steps} steps" in str(caught.value)
    assert f"({length})" in str(caught.value)


@modest
@given(schedules(), EXTRA_STEPS)
def test_json_has_the_keys_of_the_contract(schedule, extra):
    carried = transfer(schedule, schedule.total_steps + extra)
    value = json.loads(json.dumps(carried.to_json(), allow_nan=False))
    assert Schedule(**value["from"]) == schedule
    assert Schedule(**value["to"]) == carried.after
    assert value["extra_steps"] == extra
    assert value["extra_steps_mean_relative_learning_rate"] == carried.mean_relative_learning_rate
    assert value["extra_steps_share_above_half"] == carried.share_above_half


@pytest.mark.parametrize("warmup", [0, 50])
def test_where_no_rule_keeps_the_learning_rate_high_the_nearest_schedule_is_offered(warmup):
    schedule = Schedule(0.1, warmup, 0, 500, "inverse_sqrt", timescale_steps=50)
    with pytest.raises(NoTransferRuleError, match=rf"{warmup} steps of warmup, .*'linear'"):
        transfer(schedule, 2000)
    # What makes it so: the extra steps of a longer one are all at low learning rates.
    longer = dataclasses.replace(schedule, decay_steps=1950)
    mean, share = extra_step_learning_rates(schedule, longer)
    assert mean < 0.3 and share == 0.0


def square_root(count):
    """A schedule of a user's own."""
    return 0.1 / (1 + count) ** 0.5


def test_a_schedule_of_ones_own_has_no_rule():
    name = f"{__name__}.square_root"
    schedule = Schedule(0.1, decay_steps=50, decay="function", function=name)
    with pytest.raises(NoTransferRuleError, match=r"square_root is a function .* 'linear'"):
        transfer(schedule, 100)
    goes_on = compare(schedule, dataclasses.replace(schedule, decay_steps=100), "as it is")
    assert goes_on.stretched == goes_on.after
    assert goes_on.mean_relative_learning_rate < 0.2


@modest
@given(schedules((*TRANSFERABLE, "inverse_sqrt")), st.floats(0.02, 8.0))
def test_a_stretched_schedule_has_its_lengths_in_proportion(schedule, factor):
    length = max(4, round(factor * schedule.total_steps))
    stretched = stretch(schedule, length)
    assert stretched.total_steps == length
    ratio = length / schedule.total_steps
    for name in ("warmup_steps", "constant_steps", "decay_steps", "final_steps"):
        assert getattr(stretched, name) == pytest.approx(ratio * getattr(schedule, name), abs=1.51)
    same = ("decay", "base_learning_rate", "final_learning_rate", "timescale_steps")
    assert all(getattr(stretched, name) == getattr(schedule, name) for name in same)
    assert len(stretched.drop_steps) <= len(schedule.drop_steps)
    assert stretch(schedule, schedule.total_steps) == schedule


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.5, 0.51, 1.0])
def test_the_pitfall_is_named_below_the_threshold(threshold):
    before = Schedule(0.1, 10, 0, 90, "cosine")
    carried = transfer(before, 300)
    assert carried.mean_relative_learning_rate == pytest.approx(0.5, abs=1e-3)
    assert carried.is_pitfall(threshold) == (threshold > carried.mean_relative_learning_rate)


def test_the_rule_stands_beside_the_naive_stretch():
    carried = transfer(Schedule(0.1, 100, 300, 600, "linear"), 4000)
    value = carried.to_json()
    assert value["stretched"]["to"] == Schedule(0.1, 400, 1200, 2400, "linear").to_dict()
    naive = 0.05 + 0.3 + 0.3
    key = "extra_steps_mean_relative_learning_rate"
    assert (value[key], value["stretched"][key]) == (1.0, pytest.approx(naive, abs=1e-3))
    assert where_extra_steps_go(carried) == (
        "The 3000 extra steps have on average 100% of the base learning rate, 100% of them at "
        "least half of it (stretched in proportion: 65% and 65%)."
    )
    assert pitfall(carried, 0.4).text == (
        "THE EXTRA STEPS ARE SPENT AT TOO SMALL A LEARNING RATE: on average 100% of the base "
        "learning rate, below the 40% asked for. A longer period at the base learning rate, as the "
        "rule for a linear decay has it, would make more of them."
    )


def test_each_schedule_is_measured_by_its_own_base():
    before, after = Schedule(0.1, 0, 50), Schedule(0.4, 0, 150)
    assert extra_step_learning_rates(before, after) == (1.0, 1.0)


@pytest.mark.parametrize("decay", ["none", "linear", "cosine", "1-sqrt", "polynomial"])
def test_the_rule_names_its_family(decay):
    schedule = Schedule(0.1, 5, 0 if decay == "cosine" else 10, 0 if decay == "none" else 20, decay)
    name = "constant" if decay == "none" else decay
    assert transfer(schedule, 100).rule.startswith(name)


@modest
@given(LENGTHS, LENGTHS, POSITIVE_LENGTHS, EXTRA_STEPS)
def test_extra_steps_of_a_stretched_linear_decay_are_half_lost(warmup, constant, decay, extra):
    before = Schedule(0.1, warmup, constant, decay, "linear")
    naive = dataclasses.replace(before, decay_steps=decay + extra)
    mean, share = extra_step_learning_rates(before, naive)
    assert mean == pytest.approx(0.5, abs=1e-4)
    more = (decay + extra) // 2 - decay // 2
    assert share == pytest.approx(more / extra, abs=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 10])
def test_a_schedule_stretched_as_a_whole_gives_its_extra_steps_its_own_mean(factor):
    before = Schedule(0.1, 100, 300, 600, "linear")
    naive = Schedule(0.1, 100 * factor, 300 * factor, 600 * factor, "linear")
    mean, share = extra_step_learning_rates(before, naive)
    assert mean == pytest.approx(0.05 + 0.3 + 0.3, abs=1e-3)
    assert share == pytest.approx(0.05 + 0.3 + 0.3, abs=1e-3)
    assert transfer(before, naive.total_steps).mean_relative_learning_rate > mean


@pytest.mark.parametrize("decay", ["linear", "cosine"])
@pytest.mark.parametrize(
    ("final_share", "share_above_half"), [(0.0, 0.0), (0.1, 0.0), (0.49, 0.0), (0.75, 1.0)]
)
def test_extra_steps_at_the_final_learning_rate_are_seen_as_such(
    decay, final_share, share_above_half
):
    schedule = Schedule(0.2, 20, 30, 50, decay, 0.2 * final_share)
    held = dataclasses.replace(schedule, final_steps=1000)
    mean, share = extra_step_learning_rates(schedule, held)
    assert mean == pytest.approx(final_share, abs=1e-5)
    assert share == share_above_half
