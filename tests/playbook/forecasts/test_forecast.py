import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.forecasts.expected import CannotTell, wider_after
from budgetflow.playbook.forecasts.laws import LAWS, features
from budgetflow.playbook.forecasts.loss_forecast import Curve, fit

LENGTH = 2000
THETA = np.array([0.0, -2.9, -0.6, -3.3, -3.0])
TRUNK = Schedule(0.1, warmup_steps=100, constant_steps=LENGTH - 100)
COSINE = Schedule(0.1, warmup_steps=100, decay_steps=LENGTH - 100, decay="cosine")
DECAY = Schedule(0.1, warmup_steps=100, constant_steps=1400, decay_steps=500, decay="linear")
THREE = (TRUNK, COSINE, DECAY)
LONG = Schedule(0.1, warmup_steps=100, decay_steps=3 * LENGTH - 100, decay="cosine")


@functools.cache
def law_of_three(**others):
    """The law of three curves, which takes a second to fit."""
    return fit(three(**others))


def forecast(curves, learning_rates):
    """What curves say of the end of a run."""
    law = fit(curves)
    return law if isinstance(law, CannotTell) else law.forecast(learning_rates)


def true_losses(schedule, steps, theta=THETA):
    seen = features(np.asarray(steps), schedule.learning_rates(), LENGTH, 0.1)
    return LAWS["momentum"].loss(theta, seen)


def curve(schedule, seed=0, sd=0.001, theta=THETA, unit=1.0, every=40):
    steps = np.arange(every, schedule.total_steps + 1, every)
    noise = np.exp(sd * np.random.default_rng(seed).standard_normal(len(steps)))
    return Curve.of(schedule, steps, unit * true_losses(schedule, steps, theta) * noise)


def three(**others):
    return [curve(schedule, seed, **others) for seed, schedule in enumerate(THREE)]


@settings(max_examples=6, deadline=None)
@given(
    floor=st.floats(-0.3, 0.5),
    size=st.floats(-3.2, -1.5),
    exponent=st.floats(-0.9, -0.4),
    gain=st.floats(-4.0, -3.0),
    seed=st.integers(0, 100),
)
def test_a_forecast_finds_the_loss_of_a_run_that_follows_a_law(floor, size, exponent, gain, seed):
    theta = np.array([floor, size, exponent, gain, -3.0])
    law = fit([curve(s, seed + i, theta=theta) for i, s in enumerate(THREE)])
    (said,) = law.forecast(LONG)
    came = float(true_losses(LONG, [LONG.total_steps], theta)[0])
    assert law.law != "steps"
    assert said.value == pytest.approx(came, rel=0.01)
    assert said.low < came < said.high
    assert said.high / said.low < 1.1


def test_the_unit_of_the_loss_does_not_matter():
    (said,) = law_of_three().forecast(LONG)
    (scaled,) = forecast(three(unit=1000.0), LONG)
    for name in ("value", "low", "high"):
        assert getattr(scaled, name) == pytest.approx(1000 * getattr(said, name), rel=1e-5)


def test_the_unit_of_the_learning_rate_does_not_matter():
    (said,) = law_of_three().forecast(LONG)
    curves = [dataclasses.replace(c, learning_rates=7 * c.learning_rates) for c in three()]
    (scaled,) = forecast(curves, 7 * LONG.learning_rates().astype(float))
    assert scaled.value == pytest.approx(said.value, rel=1e-4)


def test_the_same_curves_give_the_same_forecast():
    assert forecast(three(), LONG) == law_of_three().forecast(LONG)


def test_what_two_curves_share_counts_once():
    curves = three()
    (said,) = forecast(curves, LONG)
    (again,) = forecast([*curves, curves[0]], LONG)
    assert again == said


def test_more_noise_makes_a_wider_interval():
    widths = [
        np.log(said.high / said.low)
        for sd in (0.001, 0.01)
        for said in law_of_three(sd=sd).forecast(LONG)
    ]
    assert widths[1] > 1.5 * widths[0]


def test_a_curve_is_forecast_at_the_steps_that_are_asked_for():
    law = law_of_three()
    said = law.forecast(LONG, [2000, 4000, 6000])
    assert said[0].value > said[1].value > said[2].value
    assert said[2:] == law.forecast(LONG)


def test_trunks_alone_tell_of_longer_trunks_only():
    law = fit([curve(TRUNK)])
    longer = dataclasses.replace(TRUNK, constant_steps=2 * LENGTH - 100)
    (said,) = law.forecast(longer)
    came = float(true_losses(longer, [2 * LENGTH])[0])
    assert said.low < came < said.high
    refused = law.forecast(LONG)
    assert isinstance(refused, CannotTell)
    assert "not yet annealed" in refused.reason


def test_trunks_of_lower_learning_rates_are_no_decays():
    lower = [dataclasses.replace(TRUNK, base_learning_rate=rate) for rate in (0.05, 0.01)]
    assert "not yet annealed" in reason([curve(schedule) for schedule in (TRUNK, *lower)])


def test_warmup_cannot_be_told():
    said = law_of_three().forecast(LONG, [50, 6000])
    assert isinstance(said, CannotTell)
    assert "no law holds in warmup, of which step 50 is" in said.reason


def test_what_an_interval_needed_is_over_one_outside_it():
    (said,) = law_of_three().forecast(LONG)
    assert said.width_needed(said.high) == pytest.approx(1)
    assert said.width_needed(said.low) == pytest.approx(1)
    assert said.width_needed(said.value) == 0
    assert said.width_needed(1.1 * said.high) > 1
    assert np.isnan(said.width_needed(np.nan))


def test_wrong_forecasts_widen_the_next():
    assert wider_after([]) == 1.0
    assert wider_after([0.2, 0.4]) == 1.0
    assert wider_after([0.2, 3.0]) == 3.0
    assert wider_after([*np.linspace(0.1, 1.9, 19)]) == pytest.approx(1.8)
    law = law_of_three()
    (said,), (wide,) = law.forecast(LONG), law.forecast(LONG, wider=3.0)
    assert np.log(wide.high / wide.low) == pytest.approx(3 * np.log(said.high / said.low))


def reason(curves, target=LONG):
    said = forecast(curves, target)
    assert isinstance(said, CannotTell)
    return said.reason


def test_no_curve_tells_nothing():
    assert "none of 0 curves" in reason([])


def test_too_short_curves_tell_nothing():
    assert "too few evaluations" in reason(three(every=700))


def test_a_constant_loss_tells_nothing():
    steps = np.arange(40, LENGTH + 1, 40)
    assert "no more than their noise" in reason([Curve.of(TRUNK, steps, np.full(len(steps), 2.0))])


def test_noise_alone_tells_nothing():
    steps = np.arange(40, LENGTH + 1, 40)
    losses = np.exp(0.3 * np.random.default_rng(0).standard_normal(len(steps)))
    assert reason([Curve.of(TRUNK, steps, losses)])


def test_losses_that_rise_again_fit_no_law():
    steps = np.arange(40, LENGTH + 1, 40)
    losses = 2 + (steps / LENGTH - 0.5) ** 2
    assert "no law fits" in reason([Curve.of(TRUNK, steps, losses)], TRUNK)


def test_losses_below_zero_are_not_the_laws():
    bad = curve(TRUNK)
    assert "above 0" in reason([dataclasses.replace(bad, losses=bad.losses - 1.1)])


def test_a_diverged_curve_is_left_out():
    diverged = curve(TRUNK)
    losses = diverged.losses.copy()
    losses[-1] = np.nan
    diverged = dataclasses.replace(diverged, losses=losses)
    assert forecast([*three(), diverged], LONG) == law_of_three().forecast(LONG)
    assert "finite" in reason([diverged])


def test_far_longer_runs_cannot_be_told():
    longest = dataclasses.replace(TRUNK, constant_steps=20 * LENGTH)
    assert "more than 5 times" in reason(three(), longest)


def test_far_other_learning_rates_cannot_be_told():
    assert "far from" in reason(three(), dataclasses.replace(LONG, base_learning_rate=1.0))


@pytest.mark.parametrize(
    ("rates", "steps", "losses", "words"),
    [
        (np.ones(10), [5, 10], [1.0], "2 steps do not go with 1 losses"),
        (np.ones(10), [5, 5], [1.0, 1.0], "ascend"),
        (np.ones(10), [0, 5], [1.0, 1.0], "ascend"),
        (np.ones(10), [5, 11], [1.0, 1.0], "step 11 is beyond the 10 learning rates"),
        (np.zeros(10), [5], [1.0], "not all 0"),
        (np.full(10, np.nan), [5], [1.0], "finite"),
    ],
)
def test_impossible_curves_are_refused(rates, steps, losses, words):
    with pytest.raises(ValueError, match=words):
        Curve(rates, steps, losses)


def test_steps_outside_the_run_are_refused():
    with pytest.raises(ValueError, match="not in a run of 6000 steps"):
        law_of_three().forecast(LONG, [6001])
