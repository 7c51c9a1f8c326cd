import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetflow.base.errors import ConfigError
from budgetflow.config.schedule import ScheduleConfig, resolve_schedule
from budgetflow.engine.schedules import Schedule

lengths = st.integers(0, 120)
PIECES = {
    "decay": "piecewise_linear",
    "boundary_steps": (50, 80),
    "boundary_factors": (1.0, 0.1),
}


@given(warmup=st.none() | lengths, decay_steps=st.none() | lengths, total=st.integers(1, 100))
def test_a_resolved_schedule_fills_the_run_or_is_refused(warmup, decay_steps, total):
    config = ScheduleConfig(warmup_steps=warmup, decay="linear", decay_steps=decay_steps)
    try:
        schedule = resolve_schedule(config, total)
    except ConfigError as error:
        needed = (warmup or 0) + (decay_steps or 0)
        assert needed > total or (warmup or 0) >= total, error
        return
    assert schedule.total_steps == total
    assert schedule.warmup_steps == (warmup or 0)
    assert schedule.decay_steps == (total - (warmup or 0) if decay_steps is None else decay_steps)


def test_fractions_are_resolved_once():
    config = ScheduleConfig(warmup_fraction=0.1, decay="cosine", decay_fraction=0.5)
    schedule = resolve_schedule(config, 200)
    assert (schedule.warmup_steps, schedule.constant_steps, schedule.decay_steps) == (20, 80, 100)


@pytest.mark.parametrize("where", [{"drop_steps": (50, 80)}, {"drop_fractions": (0.5, 0.8)}])
def test_drops_are_steps_of_the_run_and_part_of_it(where):
    config = ScheduleConfig(base_learning_rate=1.0, warmup_steps=10, decay="step", **where)
    schedule = resolve_schedule(config, 100)
    assert (schedule.constant_steps, schedule.decay_steps) == (40, 50)
    rates = schedule.learning_rates()
    assert rates[[49, 50, 79, 80]] == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_the_inverse_square_root_takes_its_timescale_from_the_warmup():
    config = ScheduleConfig(base_learning_rate=1.0, warmup_steps=10, decay="inverse_sqrt")
    schedule = resolve_schedule(config, 100)
    # Vaswani et al.: proportional to 1 / sqrt(step) from the end of the warmup.
    assert schedule.learning_rates()[[10, 40, 90]] == pytest.approx([1.0, 0.5, 1 / 3])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup_steps": 1, "warmup_fraction": 0.1}, "both warmup_steps and warmup_fraction"),
        ({"decay": "linear", "decay_steps": 1, "decay_fraction": 0.1}, "both decay_steps"),
        ({"warmup_steps": 60, "decay": "linear", "decay_steps": 60}, "longer than the run"),
        ({"warmup_steps": 100}, "longer than the run"),
        ({"decay_steps": 10}, "decay = 'none'"),
        ({"final_learning_rate": 5.0, "decay": "linear"}, "above the base"),
        ({"decay": "exponential"}, "above 0 for an exponential"),
        ({"decay": "inverse_sqrt", "final_learning_rate": 0.01}, "end of its own"),
        (
            {"decay": "linear", "final_learning_rate": 0.01, "final_learning_rate_fraction": 0.1},
            "both final_learning_rate and",
        ),
        ({"final_steps": 10}, "final_steps cannot be set for decay = 'none'"),
        ({"decay": "linear", "decay_steps": 60, "final_steps": 60}, r"and final_steps \(60\) are"),
        ({"decay": "linear", "decay_steps": 0, "final_steps": 6}, "follow a decay"),
        ({"decay": "step"}, "go together"),
        ({"drop_steps": (50,)}, "go together"),
        ({"decay": "step", "drop_steps": (50,), "drop_fractions": (0.5,)}, "both drop_steps"),
        ({"decay": "step", "drop_steps": (50,), "decay_steps": 50}, "leave decay_steps"),
        ({"decay": "step", "drop_steps": (50, 20)}, r"\[50, 20\], which should ascend"),
        ({"decay": "step", "drop_steps": (50, 100)}, "before the end of the run"),
        ({"decay": "step", "drop_steps": (50,), "final_steps": 6}, "final_steps cannot be set"),
        ({"decay": "step", "warmup_steps": 60, "drop_fractions": (0.5,)}, "warmup's end"),
        ({"decay": "piecewise_linear"}, "decay = 'piecewise_constant' or 'piecewise_linear' and"),
        ({"decay": "linear", "boundary_fractions": (0.5,)}, "or boundary_fractions. go together"),
        ({**PIECES, "boundary_fractions": (0.5,)}, "both boundary_steps and boundary_fractions"),
        ({**PIECES, "decay_fraction": 0.5}, "boundaries say when the decay begins"),
        ({**PIECES, "boundary_steps": (50, 101)}, r"\[50, 101\].* to the end of the run \(100\)"),
        (
            {**PIECES, "boundary_steps": (50, 50)},
            r"boundaries at steps \[50, 50\], which should asc",
        ),
        ({**PIECES, "boundary_steps": (100,)}, r"boundaries at steps \[100\], which should ascend"),
        (
            {**PIECES, "boundary_factors": ()},
            r"boundary_factors = \(\) are 0 for 2 .* one for each",
        ),
        (
            {**PIECES, "boundary_factors": (0.5, 0.1)},
            r"schedule\.boundary_factors = \(0\.5, 0\.1\) sh",
        ),
        ({**PIECES, "final_learning_rate": 0.01}, "final_learning_rate cannot be set for decay"),
        (
            {"warmup_start_learning_rate": 0.01, "warmup_start_learning_rate_fraction": 0.1},
            "both warmup_start_learning_rate and",
        ),
        (
            {"warmup_steps": 5, "warmup_start_learning_rate": 0.2},
            "warmup_start_learning_rate = 0.2 is above the base learning rate 0.1",
        ),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        resolve_schedule(ScheduleConfig(**fields), 100)


@pytest.mark.parametrize(
    "where", [{"boundary_steps": (40, 80)}, {"boundary_fractions": (0.4, 0.8)}]
)
@pytest.mark.parametrize(
    ("decay", "rates"),
    [("piecewise_constant", [1.0, 1.0, 1.0, 0.2]), ("piecewise_linear", [1.0, 1.0, 0.6, 0.2])],
)
def test_pieces_begin_at_steps_of_the_run_and_the_last_one_stays(where, decay, rates):
    config = ScheduleConfig(
        base_learning_rate=1.0, warmup_steps=10, decay=decay, boundary_factors=(1.0, 0.2), **where
    )
    schedule = resolve_schedule(config, 100)
    assert (schedule.constant_steps, schedule.decay_steps) == (30, 60)
    assert (schedule.boundary_steps, schedule.boundary_factors) == ((0, 40), (1.0, 0.2))
    assert schedule.learning_rates()[[39, 40, 60, 99]] == pytest.approx(rates)


@pytest.mark.parametrize(
    "start", [{"warmup_start_learning_rate": 0.1}, {"warmup_start_learning_rate_fraction": 0.2}]
)
def test_warmup_can_begin_above_0(start):
    config = ScheduleConfig(base_learning_rate=0.5, warmup_fraction=0.1, **start)
    assert resolve_schedule(config, 100) == Schedule(0.5, 10, 90, warmup_start_learning_rate=0.1)
    # A trial that has no warmup, such as one of a search over its length, has no start of it.
    none = dataclasses.replace(config, warmup_fraction=0.0)
    assert resolve_schedule(none, 100) == Schedule(0.5, 0, 100)


def test_the_final_learning_rate_is_held():
    config = ScheduleConfig(
        base_learning_rate=0.5, warmup_steps=5, decay="cosine", decay_steps=30,
        final_learning_rate_fraction=0.1, final_steps=40,
    )  # fmt: skip
    schedule = resolve_schedule(config, 100)
    assert schedule == Schedule(0.5, 5, 25, 30, "cosine", 0.05, final_steps=40)
    assert schedule.learning_rates()[60:] == pytest.approx([0.05] * 40)


def triangle(count):
    """A schedule of a user's own: up to 0.2 at step 50 and down again."""
    return 0.2 * (1 - jnp.abs(count - 50) / 50)


joined = optax.join_schedules([optax.constant_schedule(0.3), optax.constant_schedule(0.1)], [20])
not_a_schedule = 0.1


def negative(count):
    return 0.05 - 0.001 * count


def untraceable(count):
    return 0.1 if count < 50 else 0.01


CALLS = []


def counting(count):
    CALLS.append(count)
    return 0.1 * 0.9 ** len(CALLS)


def at_random(count):
    return np.random.default_rng().uniform(0.01, 0.1)


def pair(count):
    return jnp.stack([0.1 * count, 0.2])


@pytest.mark.parametrize(("name", "highest"), [("triangle", 0.2), ("joined", 0.3)])
def test_a_schedule_of_ones_own_is_used_as_it_is(name, highest):
    config = ScheduleConfig(function=f"{__name__}.{name}")
    schedule = resolve_schedule(config, 100)
    assert (schedule.decay, schedule.total_steps, schedule.decay_start_step) == ("function", 100, 0)
    assert schedule.base_learning_rate == pytest.approx(highest)
    expected = [float(globals()[name](jnp.asarray(step))) for step in range(100)]
    assert schedule.learning_rates() == pytest.approx(expected, abs=1e-7)
    assert Schedule(**schedule.to_dict()) == schedule
    assert schedule.to_optax() is globals()[name]
    assert schedule.end_learning_rate == pytest.approx(float(globals()[name](100)), abs=1e-7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"has no 'missing'"),
        ("not_a_schedule", "not a class or function"),
        ("counting", r"gives the learning rate 0\.\d+ when it is asked for step \d+, but 0\.0"),
        ("at_random", "depend on nothing but the step"),
        ("negative", "gives the learning rate -0.001 at step 51"),
        ("untraceable", "raised TracerBoolConversionError"),
        ("pair", "returns an array of shape"),
    ],
)
def test_what_is_no_schedule_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        resolve_schedule(ScheduleConfig(function=f"{__name__}.{name}"), 100)


def test_a_schedule_of_ones_own_goes_with_no_other_field():
    with pytest.raises(ConfigError, match=r"schedule\.warmup_steps is set, but .*triangle"):
        resolve_schedule(ScheduleConfig(function=f"{__name__}.triangle", warmup_steps=5), 100)
