import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decays import (
    BASES,
    COUNTS,
    LENGTHS,
    POSITIVE_LENGTHS,
    assert_is,
    optax_equivalent,
    schedules,
)

from budgetflow.engine.schedules import Schedule, common_prefix_steps

FINAL_SHARES = st.sampled_from([0.0, 0.01, 0.5, 1.0]) | st.floats(0.0, 1.0)

modest = settings(max_examples=60, deadline=None)


@modest
@given(BASES, LENGTHS)
def test_constant_schedule_is_that_of_optax(base, steps):
    assert_is(Schedule(base, constant_steps=steps), optax.constant_schedule(base))


@modest
@given(BASES, LENGTHS, POSITIVE_LENGTHS, FINAL_SHARES)
def test_warmup_cosine_is_that_of_optax_whose_decay_steps_include_warmup(
    base, warmup, decay, share
):
    schedule = Schedule(base, warmup, 0, decay, "cosine", share * base)
    reference = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=base,
        warmup_steps=warmup,
        decay_steps=warmup + decay,
        end_value=share * base,
    )
    assert_is(schedule, reference)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_optax_schedule_is_as_good_at_huge_counts_as_that_of_optax(decay):
    # Beyond 2**24, not every count is a float32.
    schedule = Schedule(1.0, constant_steps=2**24 + 2**20, decay_steps=16, decay=decay)
    counts = jnp.arange(schedule.decay_start_step - 4, schedule.total_steps + 4)
    expected = optax_equivalent(schedule)(counts)
    np.testing.assert_allclose(schedule.to_optax()(counts), expected, rtol=0, atol=1e-6)


def test_optax_schedule_can_be_traced_and_mapped():
    schedule = Schedule(0.3, 5, 7, 11, "cosine", 0.01)
    counts = jnp.arange(schedule.total_steps)
    expected = schedule.learning_rates()
    function = schedule.to_optax()
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(counts), expected, atol=1e-6)
    np.testing.assert_allclose(function(20), expected[20], atol=1e-6)


def test_an_optimizer_that_is_given_the_schedule_uses_its_learning_rates_in_order():
    schedule = Schedule(0.5, 4, 3, 6, "linear", 0.1)
    optimizer = optax.sgd(schedule.to_optax())

    def update(carry, _):
        parameter, state = carry
        change, state = optimizer.update(jnp.float32(-1.0), state)
        return (optax.apply_updates(parameter, change), state), change

    start = jnp.float32(0.0), optimizer.init(jnp.float32(0.0))
    _, changes = jax.lax.scan(update, start, length=schedule.total_steps)
    np.testing.assert_allclose(changes, schedule.learning_rates(), atol=1e-6)


@modest
@given(schedules())
def test_learning_rates_are_float32_and_one_for_every_update(schedule):
    rates = schedule.learning_rates()
    assert rates.dtype == np.float32
    assert rates.shape == (schedule.total_steps,)
    assert schedule.total_steps == (
        schedule.warmup_steps
        + schedule.constant_steps
        + schedule.decay_steps
        + schedule.final_steps
    )
    longer = schedule.learning_rates(len(COUNTS))
    assert longer.shape == COUNTS.shape
    np.testing.assert_array_equal(longer[: len(rates)], rates)


def test_json_has_the_keys_of_the_contract():
    assert set(Schedule(0.1, 1, 2, 3, "linear", 0.01).to_dict()) >= {
        "base_learning_rate",
        "warmup_steps",
        "constant_steps",
        "decay_steps",
        "decay",
        "final_learning_rate",
    }


@modest
@given(schedules())
def test_the_end_is_what_the_update_after_the_last_one_would_have(schedule):
    rates = schedule.learning_rates(schedule.total_steps + 1)
    assert schedule.end_learning_rate == pytest.approx(rates[-1], rel=1e-6)


@modest
@given(schedules(), schedules())
def test_common_prefix_is_the_longest_shared_start(first, second):
    shared = common_prefix_steps(first, second)
    assert shared == common_prefix_steps(second, first)
    one, other = first.learning_rates(), second.learning_rates()
    np.testing.assert_array_equal(one[:shared], other[:shared])
    if shared < min(len(one), len(other)):
        assert one[shared] != other[shared]


@modest
@given(schedules())
def test_a_schedule_shares_all_of_itself(schedule):
    assert common_prefix_steps(schedule, schedule) == schedule.total_steps


@modest
@given(
    warmup=LENGTHS,
    constant=LENGTHS,
    decay=st.integers(2, 150),
    extra=POSITIVE_LENGTHS,
    share=st.floats(0.0, 0.9),
)
def test_linear_schedules_with_a_longer_constant_period_part_where_the_shorter_one_decays(
    warmup, constant, decay, extra, share
):
    shorter = Schedule(0.25, warmup, constant, decay, "linear", 0.25 * share)
    longer = dataclasses.replace(shorter, constant_steps=constant + extra)
    # The first update of a decay still has the base learning rate; the second is the first to
    # differ.
    assert common_prefix_steps(shorter, longer) == shorter.decay_start_step + 1


@modest
@given(LENGTHS, LENGTHS, POSITIVE_LENGTHS)
def test_a_decay_of_one_step_is_shared_whole(warmup, constant, extra):
    shorter = Schedule(0.25, warmup, constant, 1, "linear")
    longer = dataclasses.replace(shorter, constant_steps=constant + extra)
    assert common_prefix_steps(shorter, longer) == shorter.total_steps


@modest
@given(LENGTHS, LENGTHS, POSITIVE_LENGTHS)
def test_a_constant_schedule_is_shared_whole_by_a_longer_one(warmup, constant, extra):
    shorter = Schedule(0.25, warmup, constant)
    longer = Schedule(0.25, warmup, constant + extra)
    assert common_prefix_steps(shorter, longer) == shorter.total_steps


@modest
@given(LENGTHS, LENGTHS, st.integers(2, 150), POSITIVE_LENGTHS)
def test_cosines_of_different_lengths_part_where_decay_begins(warmup, constant, decay, extra):
    shorter = Schedule(0.25, warmup, constant, decay, "cosine")
    longer = dataclasses.replace(shorter, decay_steps=decay + extra)
    assert common_prefix_steps(shorter, longer) == shorter.decay_start_step + 1


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (Schedule(0.1, constant_steps=9), Schedule(0.2, constant_steps=9), 0),
        # Both warmups begin with a learning rate of 0.
        (Schedule(0.1, 5, 9), Schedule(0.2, 5, 9), 1),
        (Schedule(0.1, 5, 9), Schedule(0.1, 6, 9), 1),
        (Schedule(0.1, 5, 9), Schedule(0.1, 0, 9), 0),
        (Schedule(0.1, constant_steps=9), Schedule(0.1), 0),
    ],
)
def test_common_prefix_of_schedules_with_different_starts(one, other, shared):
    assert common_prefix_steps(one, other) == shared


@pytest.mark.parametrize("field", ["warmup_steps", "constant_steps", "decay_steps"])
def test_negative_lengths_are_refused(field):
    lengths = {"warmup_steps": 5, "constant_steps": 5, "decay_steps": 5, field: -1}
    with pytest.raises(ValueError, match="negative"):
        Schedule(0.1, decay="linear", **lengths)


@pytest.mark.parametrize(("decay", "decay_steps"), [("none", 1), ("linear", 0), ("cosine", 0)])
def test_a_decay_without_steps_and_steps_without_a_decay_are_refused(decay, decay_steps):
    with pytest.raises(ValueError, match=decay):
        Schedule(0.1, 0, 10, decay_steps, decay)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decay": "exponential"}, "above 0"),
        ({"decay": "inverse_sqrt", "final_learning_rate": 0.01}, "no final learning rate"),
        ({"decay": "step"}, "drops"),
        ({"decay": "linear", "drop_steps": (0,)}, "drops"),
        ({"decay": "step", "drop_steps": (5, 10)}, "first at 0"),
        ({"decay": "step", "drop_steps": (0, 10, 5)}, "ascending"),
        ({"decay": "step", "drop_steps": (0,), "drop_factor": 1.5}, "out of range"),
        ({"decay": "polynomial", "power": 0.0}, "out of range"),
    ],
)
def test_what_does_not_go_with_a_decay_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Schedule(0.1, 5, 10, 20, **fields)
