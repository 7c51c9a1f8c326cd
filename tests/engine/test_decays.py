"""Every decay in the table is held to the same laws; a new one is tested by being listed there."""

import dataclasses
import itertools
import json
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import read_json, write_json
from budgetflow.engine.decays import BOUNDARIES, DECAYS, DROPS, Decay, DecayName
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.transfer import NoTransferRuleError, compare, stretch, transfer
from budgetflow.playbook.rounds.best_step import shortened
from budgetflow.studies.store.trial import TrialRecord, read_trials, trial_folder, write_trial
from budgetflow.testing import check_decay

# One array shape for every example, longer than any schedule drawn, so that little is compiled.
COUNTS = np.arange(768)
LENGTHS = st.integers(0, 150)
POSITIVE_LENGTHS = st.integers(1, 150)
LATER_STEPS = st.sets(st.integers(1, 150), min_size=1, max_size=4).map(sorted)
BASES = st.floats(1e-6, 100.0)
SHARES = st.sampled_from([0.01, 0.5, 1.0]) | st.floats(0.01, 1.0)

# What each family's own parameters can be.
PARAMETERS = {
    "power": st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    "timescale_steps": POSITIVE_LENGTHS,
    "drop_factor": st.floats(0.1, 0.9),
    "boundary_factors": st.lists(SHARES, min_size=5, max_size=5),
}
# Families whose learning rate may rise after warmup. No other's does.
RISING = {"piecewise_constant", "piecewise_linear", "function"}

modest = settings(max_examples=30, deadline=None)
every_decay = pytest.mark.parametrize("decay", DECAYS)


def halving(count):
    """A schedule of a user's own."""
    return 0.1 / (1 + count / 50)


@st.composite
def schedules(draw, decays=tuple(DECAYS)):
    """Schedules of a family, or of any."""
    decay = draw(st.sampled_from(decays))
    family = DECAYS[decay]
    steps = draw(POSITIVE_LENGTHS) if family.has_steps else 0
    if family.learning_rate is None:
        return Schedule(0.1, decay_steps=steps, decay=decay, function=f"{__name__}.halving")
    base, warmup = draw(BASES), draw(LENGTHS)
    fields = {name: draw(PARAMETERS[name]) for name in family.parameters}
    if family.has_end:
        fields["final_learning_rate"] = base * draw(st.just(0.0) | SHARES)
        fields["final_steps"] = draw(st.just(0) | LENGTHS)
    if family.points:
        points = (0, *draw(LATER_STEPS))
        fields[f"{family.points.name}_steps"] = points
        if "boundary_factors" in fields:
            first = draw(st.sampled_from([1.0, 0.3]))
            fields["boundary_factors"] = (first, *fields["boundary_factors"][1 : len(points)])
    try:
        return Schedule(
            base_learning_rate=base,
            warmup_steps=warmup,
            warmup_start_learning_rate=base * draw(st.just(0.0) | SHARES),
            constant_steps=draw(LENGTHS if family.has_steps else POSITIVE_LENGTHS),
            decay_steps=steps,
            decay=decay,
            **fields,
        )
    except ValueError:
        reject()


def ratios(schedule):
    """Boundaries and scales as optax has them: each times the one before."""
    factors = itertools.pairwise((1.0, *schedule.boundary_factors))
    scales = (factor / before for before, factor in factors)
    return dict(zip(schedule.boundary_steps, scales, strict=True))


# What optax calls the same; those that it does not have, by their papers' formulas.
OPTAX = {
    "none": lambda s: optax.constant_schedule(s.base_learning_rate),
    "linear": lambda s: optax.linear_schedule(
        s.base_learning_rate, s.final_learning_rate, s.decay_steps
    ),
    "cosine": lambda s: optax.cosine_decay_schedule(
        s.base_learning_rate, s.decay_steps, alpha=s.final_learning_rate / s.base_learning_rate
    ),
    "1-sqrt": lambda s: (
        lambda count: (
            s.final_learning_rate
            + (s.base_learning_rate - s.final_learning_rate)
            * (1 - jnp.sqrt(jnp.clip(count / s.decay_steps, 0, 1)))
        )
    ),
    "exponential": lambda s: optax.exponential_decay(
        s.base_learning_rate,
        s.decay_steps,
        s.final_learning_rate / s.base_learning_rate,
        end_value=s.final_learning_rate,
    ),
    "polynomial": lambda s: optax.polynomial_schedule(
        s.base_learning_rate, s.final_learning_rate, s.power, s.decay_steps
    ),
    "inverse_sqrt": lambda s: (
        lambda count: (
            s.base_learning_rate
            * jnp.sqrt(s.timescale_steps / (s.timescale_steps + jnp.maximum(count, 0)))
        )
    ),
    "step": lambda s: optax.piecewise_constant_schedule(
        s.base_learning_rate, dict.fromkeys(s.drop_steps, s.drop_factor)
    ),
    "piecewise_constant": lambda s: optax.piecewise_constant_schedule(
        s.base_learning_rate, ratios(s)
    ),
    # It takes a single count.
    "piecewise_linear": lambda s: jnp.vectorize(
        optax.piecewise_interpolate_schedule(
            "linear", s.base_learning_rate, {step: r for step, r in ratios(s).items() if step}
        )
    ),
    "function": lambda s: halving,
}


def optax_equivalent(schedule):
    """A schedule as optax's own pieces, joined."""
    base, start = schedule.base_learning_rate, schedule.warmup_start_learning_rate
    pieces = [
        optax.linear_schedule(start, base, schedule.warmup_steps),
        optax.constant_schedule(base),
        OPTAX[schedule.decay](schedule),
    ]
    return optax.join_schedules(pieces, [schedule.warmup_steps, schedule.decay_start_step])


def assert_is(schedule, reference):
    expected = np.broadcast_to(np.asarray(reference(jnp.asarray(COUNTS))), COUNTS.shape)
    # Optax rounds the share of the decay that is left: by 6e-8 near 0, of which roots are more.
    rounding = max(1e-6, 1.2e-7**schedule.power)
    tolerance = {"rtol": 0, "atol": rounding * schedule.base_learning_rate}
    np.testing.assert_allclose(schedule.learning_rates(len(COUNTS)), expected, **tolerance)
    np.testing.assert_allclose(schedule.to_optax()(jnp.asarray(COUNTS)), expected, **tolerance)


# The table.


def test_a_config_can_have_every_decay_of_the_table_but_a_function():
    assert (*typing.get_args(DecayName), "function") == tuple(DECAYS)


@pytest.mark.parametrize("fact", [field.name for field in dataclasses.fields(Decay)])
def test_a_family_cannot_leave_a_fact_out(fact):
    facts = {field.name: None for field in dataclasses.fields(Decay) if field.name != fact}
    with pytest.raises(TypeError, match=fact):
        Decay(**facts)


@pytest.mark.parametrize(
    ("name", "hint"), [("cosin", "'cosine'"), ("Linear", "'linear'"), ("zzzzzz", "valid: 1-sqrt, ")]
)
def test_a_decay_that_does_not_exist_is_refused_and_the_nearest_named(name, hint):
    with pytest.raises(ValueError, match=f"'{name}' does not exist; .*{hint}"):
        Schedule(0.1, 0, 10, 10, name)


def test_a_record_with_a_decay_that_does_not_exist_is_damaged(tmp_path):
    write_trial(tmp_path, TrialRecord(0, {}, Schedule(0.1, 0, 10, 10, "cosine"), 0, 20))
    path = trial_folder(tmp_path, 0) / "trial.json"
    record = read_json(path)
    record["schedule"]["decay"] = "cosin"
    write_json(path, record)
    with pytest.raises(DamagedFileError, match=r"trial\.json is damaged: .*'cosin'.*'cosine'"):
        read_trials(tmp_path)


# Made by the code before decays were in a table: schedules as trial.json had them, and their
# learning rates (float32, by NumPy, jax.numpy and under jit) and last ones, as bytes in hex. Under
# jit the last bit is XLA's affair, which changes from version to version.
GOLDEN = json.loads(Path(__file__).with_name("golden_learning_rates.json").read_text())


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["schedule"]["decay"])
def test_learning_rates_are_bit_for_bit_what_they_have_been(golden):
    schedule = Schedule(**golden["schedule"])
    written = json.loads(json.dumps(schedule.to_dict()))
    assert {name: written[name] for name in golden["schedule"]} == golden["schedule"]
    counts = np.arange(schedule.total_steps + 3)
    function = schedule.to_optax()
    found = {
        "numpy": schedule.learning_rates(len(counts)),
        "jax": np.asarray(function(jnp.asarray(counts))),
        "jit": np.asarray(jax.jit(function)(jnp.asarray(counts))),
    }
    assert all(rates.dtype == np.float32 for rates in found.values())
    expected = {name: np.frombuffer(bytes.fromhex(golden[name]), np.float32) for name in found}
    np.testing.assert_array_equal(found["numpy"], expected["numpy"])
    np.testing.assert_array_equal(found["jax"], expected["jax"])
    np.testing.assert_array_max_ulp(found["jit"], expected["jit"], 1)
    assert schedule.end_learning_rate.hex() == golden["end"]


# Learning rates.


@every_decay
@modest
@given(st.data())
def test_every_learning_rate_is_that_of_optax_pieces_joined(decay, data):
    schedule = data.draw(schedules([decay]))
    assert_is(schedule, optax_equivalent(schedule))


@every_decay
@modest
@given(st.data())
def test_every_decay_does_what_a_decay_has_to(decay, data):
    check_decay(data.draw(schedules([decay])), may_rise=decay in RISING)


@every_decay
@modest
@given(st.data())
def test_parameters_of_other_families_change_no_learning_rate(decay, data):
    schedule = data.draw(schedules([decay]))
    others = PARAMETERS.keys() - {*DECAYS[decay].parameters}
    drawn = {name: data.draw(PARAMETERS[name]) for name in sorted(others)}
    changed = dataclasses.replace(schedule, **drawn)
    rates = (one.learning_rates(len(COUNTS)) for one in (schedule, changed))
    np.testing.assert_array_equal(*rates)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_warmup_from_above_0_is_that_of_optax(share):
    schedule = Schedule(0.4, 20, 0, 60, "cosine", 0.04, warmup_start_learning_rate=0.4 * share)
    reference = optax.warmup_cosine_decay_schedule(
        init_value=0.4 * share, peak_value=0.4, warmup_steps=20, decay_steps=80, end_value=0.04
    )
    assert_is(schedule, reference)


# Other lengths.


@every_decay
@modest
@given(st.data(), st.integers(1, 500))
def test_a_longer_run_has_its_extra_steps_by_a_rule_or_there_is_said_to_be_none(decay, data, extra):
    """Of each decay; what else a longer run is, check_decay says."""
    schedule = data.draw(schedules([decay]))
    length = schedule.total_steps + extra
    rule = DECAYS[decay].lengthen(schedule)
    if rule.grows is None:
        with pytest.raises(NoTransferRuleError) as caught:
            transfer(schedule, length)
        assert str(caught.value).startswith(f"{rule.words}. The nearest")
        return
    carried = transfer(schedule, length)
    assert carried.rule == rule.words
    if rule.grows == "constant_steps":
        tails = (s.learning_rates()[s.decay_start_step :] for s in (schedule, carried.after))
        np.testing.assert_array_equal(*tails)
        assert carried.mean_relative_learning_rate == pytest.approx(1.0, abs=1e-5)
    assert shortened(carried.after, length) == carried.after


@every_decay
@modest
@given(st.data(), st.floats(0.05, 6.0))
def test_a_stretched_schedule_has_its_lengths_in_proportion_and_all_else_as_it_was(
    decay, data, factor
):
    schedule = data.draw(schedules([decay]))
    length = max(4, round(factor * schedule.total_steps))
    stretched = stretch(schedule, length)
    assert stretched.total_steps == length
    lengths = {"warmup_steps", "constant_steps", "decay_steps", "final_steps"}
    for name in lengths:
        expected = length / schedule.total_steps * getattr(schedule, name)
        assert getattr(stretched, name) == pytest.approx(expected, abs=2)
    moving = lengths | {f"{points.name}_steps" for points in (DROPS, BOUNDARIES)}
    for name in {field.name for field in dataclasses.fields(Schedule)} - moving:
        assert getattr(stretched, name) == getattr(schedule, name)
    assert stretch(schedule, schedule.total_steps) == schedule
    assert len(stretched.boundary_steps) == len(schedule.boundary_steps)


@every_decay
@modest
@given(st.data(), st.floats(0.0, 1.0))
def test_a_shorter_run_has_the_length_asked_for_or_there_is_said_to_be_no_rule(decay, data, share):
    schedule = data.draw(schedules([decay]))
    length = max(1, round(share * schedule.total_steps))
    if DECAYS[decay].shortens is None:
        with pytest.raises(NoTransferRuleError, match="in a shorter run"):
            shortened(schedule, length)
        return
    assert shortened(schedule, length).total_steps == length


def test_stretched_points_keep_their_distances_in_proportion():
    drops = Schedule(0.1, 0, 40, 60, "step", drop_steps=(0, 20, 21), drop_factor=0.5)
    boundaries = {"boundary_steps": (0, 20, 21), "boundary_factors": (0.5, 1.0, 0.25)}
    pieces = Schedule(0.1, 0, 40, 60, "piecewise_constant", **boundaries)
    assert stretch(drops, 200).drop_steps == stretch(pieces, 200).boundary_steps == (0, 40, 42)
    # Drops at the same step become one; a boundary, with a factor of its own, moves on.
    assert stretch(drops, 20).drop_steps == (0, 4)
    assert stretch(pieces, 20).boundary_steps == (0, 4, 5)


def test_a_longer_run_of_pieces_has_all_extra_steps_at_the_base():
    boundaries = {"boundary_steps": (0, 30, 60), "boundary_factors": (1.0, 0.2, 0.0)}
    before = Schedule(0.1, 0, 40, 60, "piecewise_linear", **boundaries)
    carried = transfer(before, 300)
    assert carried.after == dataclasses.replace(before, constant_steps=240)
    assert carried.mean_relative_learning_rate == 1.0
    assert carried.rule.startswith("piecewise_linear: warmup and the decay's length are kept")
    stretched = compare(before, stretch(before, 300), "in proportion")
    assert stretched.after.boundary_steps == (0, 90, 180)
    assert stretched.mean_relative_learning_rate < 0.65


PIECES = {"boundary_steps": (0, 5), "boundary_factors": (1.0, 0.5)}


@pytest.mark.parametrize(
    ("decay", "fields", "message"),
    [
        ("piecewise_constant", {"boundary_steps": ()}, "does not go with boundaries"),
        ("linear", {}, "does not go with boundaries"),
        ("piecewise_constant", {"boundary_steps": (2, 5)}, "first at 0"),
        ("piecewise_linear", {"boundary_steps": (0, 5, 5)}, "ascending"),
        ("piecewise_linear", {"boundary_factors": (1.0,)}, "one for each"),
        ("piecewise_constant", {"boundary_factors": (1.0, 1.5)}, "from 0 to 1"),
        ("piecewise_linear", {"boundary_factors": (0.5, 1.0)}, r"should be .*the first 1\.0"),
        ("piecewise_constant", {"warmup_start_learning_rate": 0.2}, "warmup leads from 0.2"),
        ("piecewise_constant", {"warmup_start_learning_rate": -0.1}, "warmup leads from -0.1"),
    ],
)
def test_pieces_and_warmups_that_make_no_sense_are_refused(decay, fields, message):
    with pytest.raises(ValueError, match=message):
        Schedule(0.1, 5, 10, 20, decay, **{**PIECES, **fields})
