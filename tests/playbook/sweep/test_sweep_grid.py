"""Which learning rates a sweep tries: its grid, extensions of it, and what refines it."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_lr_sweep import LEARNING_RATE, NEVER, Fate, Simulation, sweep

from budgetflow.playbook.common.measurement import Add
from budgetflow.playbook.sweep.policy import decide
from budgetflow.playbook.sweep.race import lockstep_grid


def test_the_first_grid_is_added_at_once():
    decision = decide(sweep(0.01, 0.1, 1.0), [])
    assert decision == Add(
        {0: {LEARNING_RATE: 0.01}, 1: {LEARNING_RATE: 0.1}, 2: {LEARNING_RATE: 1.0}}
    )


def test_an_interior_optimum_is_the_answer():
    fates = {0.01: Fate(500), 0.1: Fate(37), 1.0: Fate(80)}
    outcome = Simulation(sweep(*fates), fates.__getitem__).outcome
    assert outcome["status"] == "found"
    assert outcome["max_train_steps"] == 37
    assert outcome["best_learning_rate"] == 0.1
    assert outcome["extensions"] == 0


def test_a_diverged_trial_bounds_the_optimum_and_is_not_counted_as_slow():
    fates = {0.01: Fate(500), 0.1: Fate(37), 1.0: Fate(20, diverges_at=5)}
    outcome = Simulation(sweep(*fates), fates.__getitem__).outcome
    assert outcome["status"] == "found"
    assert outcome["max_train_steps"] == 37
    assert outcome["diverged"] == 1
    assert any("1 diverged" in reason for reason in outcome["reasons"])


def test_a_trial_that_fits_before_it_diverges_is_feasible():
    fates = {0.01: Fate(500), 0.1: Fate(37, diverges_at=38), 1.0: Fate(80)}
    outcome = Simulation(sweep(*fates), fates.__getitem__).outcome
    assert outcome["max_train_steps"] == 37
    assert outcome["diverged"] == 0


@pytest.mark.parametrize("max_extensions", [0, 1, 5])
def test_where_everything_diverges_smaller_learning_rates_are_tried_and_then_given_up(
    max_extensions,
):
    simulation = Simulation(
        sweep(0.1, 1.0, max_extensions=max_extensions), lambda rate: Fate(diverges_at=3)
    )
    outcome = simulation.outcome
    assert outcome["status"] == "not_fitted"
    assert outcome["max_train_steps"] is None
    assert outcome["best_learning_rate"] is None
    assert outcome["extensions"] == max_extensions
    assert outcome["diverged"] == 2 + max_extensions
    assert outcome["learning_rates"][-1] == 1.0
    assert outcome["regime"] == "undecided"
    assert outcome["not_fitted_because"] == "bad_grid"
    assert outcome["suggested_max_train_steps"] is None
    assert any("diverged" in reason.lower() for reason in outcome["reasons"][1:])
    # No training past the stretch with the divergence.
    assert outcome["steps_trained"] == lockstep_grid(1000)[0] * len(simulation.trials)


def test_a_grid_that_is_all_too_high_is_left_downwards():
    def fate_of(rate):
        return Fate(diverges_at=2) if rate > 0.02 else Fate(round(1 / rate))

    outcome = Simulation(sweep(0.1, 1.0), fate_of).outcome
    assert outcome["status"] == "found"
    assert outcome["best_learning_rate"] == 0.01
    assert outcome["max_train_steps"] == 100


@pytest.mark.parametrize(
    ("rates", "best"), [((1e-4, 1e-3), 0.1), ((1.0, 10.0), 0.1), ((1.0,), 0.1), ((0.1,), 0.1)]
)
def test_an_optimum_outside_the_grid_is_reached_by_extension(rates, best):
    def fate_of(rate):
        return Fate(round(50 * math.exp(abs(math.log10(rate / 0.1)))))

    outcome = Simulation(sweep(*rates), fate_of).outcome
    assert outcome["status"] == "found"
    assert outcome["best_learning_rate"] == pytest.approx(best, rel=1e-2)
    assert outcome["max_train_steps"] == 50
    assert outcome["learning_rates"][0] < best < outcome["learning_rates"][-1]


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("max_extensions", [0, 2])
def test_an_optimum_that_stays_at_the_boundary_is_loudly_no_answer(direction, max_extensions):
    def fate_of(rate):
        return Fate(round(200 - direction * 20 * math.log10(rate)))

    outcome = Simulation(sweep(0.01, 0.1, 1.0, max_extensions=max_extensions), fate_of).outcome
    assert outcome["status"] == "at_boundary"
    assert outcome["max_train_steps"] is None
    assert outcome["extensions"] == max_extensions
    assert outcome["regime"] == "not_compute_bound"
    tried = outcome["learning_rates"]
    assert outcome["best_learning_rate"] == (tried[-1] if direction == 1 else tried[0])
    assert any("BOUNDARY" in reason for reason in outcome["reasons"])
    assert any("config.sweep" in reason for reason in outcome["reasons"])


def test_extensions_keep_the_ratio_of_the_grid_at_their_end():
    outcome = Simulation(
        sweep(0.01, 0.1, 0.3, max_extensions=2), lambda rate: Fate(round(200 - 50 * rate))
    ).outcome
    assert outcome["learning_rates"] == [0.01, 0.1, 0.3, 0.9, 2.7]


@pytest.mark.parametrize(
    # The learning rates at the boundary become interior ones by extension.
    ("fates", "best"),
    [
        ({0.01: Fate(50), 0.1: Fate(50), 1.0: Fate(50)}, 0.01),
        ({0.01: Fate(90), 0.1: Fate(50), 0.3: Fate(50), 1.0: Fate(90)}, 0.1),
        ({0.01: Fate(90), 0.1: Fate(50), 0.3: Fate(50)}, 0.1),
        ({0.01: Fate(50), 0.1: Fate(90), 0.3: Fate(50), 1.0: Fate(90)}, 0.01),
    ],
)
def test_of_equally_fast_learning_rates_interior_ones_and_then_smaller_ones_win(fates, best):
    outcome = Simulation(sweep(*fates), lambda rate: fates.get(rate, Fate())).outcome
    assert outcome["status"] == "found"
    assert outcome["best_learning_rate"] == best
    assert outcome["max_train_steps"] == 50


def test_a_tie_at_the_boundary_is_looked_into_although_another_one_is_interior():
    steps = {0.01: NEVER, 0.1: 50, 1.0: 50, 10.0: 30, 100.0: NEVER}
    outcome = Simulation(sweep(0.01, 0.1, 1.0), lambda rate: Fate(steps[rate])).outcome
    assert outcome["status"] == "found"
    assert outcome["best_learning_rate"] == 10.0
    assert outcome["max_train_steps"] == 30


def test_where_every_learning_rate_is_equally_fast_extensions_end_at_the_limit():
    outcome = Simulation(sweep(0.1, 1.0, max_extensions=3), lambda rate: Fate(50)).outcome
    assert outcome["status"] == "found"
    assert outcome["max_train_steps"] == 50
    assert outcome["extensions"] == 3


@pytest.mark.parametrize("rates", [(0.9999, 1.0), (0.1, 0.100001), (0.0123456,)])
@pytest.mark.parametrize("direction", [1, -1])
def test_every_extension_of_a_very_narrow_grid_is_a_new_learning_rate_further_out(rates, direction):
    # The simulation itself fails if a learning rate is tried twice.
    tried = Simulation(
        sweep(*rates, steps=10, max_extensions=4), lambda rate: Fate(loss=rate**-direction)
    ).outcome["learning_rates"]
    assert len(tried) == len(rates) + 4
    assert (tried[-1] > max(rates)) if direction == 1 else (tried[0] < min(rates))


def test_where_nothing_fits_the_best_curve_is_read_and_no_number_is_guessed():
    def fate_of(rate):
        return Fate(loss=1 + abs(math.log10(rate / 0.1)))

    outcome = Simulation(sweep(0.01, 0.1, 1.0), fate_of).outcome
    assert outcome["status"] == "not_fitted"
    assert outcome["max_train_steps"] is None
    assert outcome["best_learning_rate"] == 0.1
    # The simulated loss is flat from the middle on.
    assert outcome["not_fitted_because"] == "model_cannot_fit"
    assert outcome["regime"] == "undecided"
    assert outcome["steps_trained"] == outcome["steps_full_grid"] == 3000
    assert any("0.1" in reason and "lowest" in reason for reason in outcome["reasons"])


def test_where_nothing_fits_and_the_lowest_loss_is_at_the_edge_the_grid_is_moved():
    def fate_of(rate):
        if rate > 50:
            return Fate(diverges_at=4)
        return Fate(fits_at=700 if rate > 5 else NEVER, loss=1 / rate)

    outcome = Simulation(sweep(0.01, 0.1), fate_of).outcome
    assert outcome["status"] == "found"
    assert outcome["max_train_steps"] == 700


def test_where_nothing_fits_and_the_limit_is_reached_the_grid_is_blamed():
    outcome = Simulation(
        sweep(0.01, 0.1, max_extensions=2), lambda rate: Fate(loss=1 / rate)
    ).outcome
    assert outcome["status"] == "not_fitted"
    assert outcome["not_fitted_because"] == "bad_grid"
    assert outcome["regime"] == "undecided"
    assert any("BOUNDARY" in reason for reason in outcome["reasons"])


# Steps to fit with one minimum in the logarithm of the learning rate.


def valley(optimum, slope, steps_at_optimum=1000):
    def fate_of(rate):
        away = abs(math.log10(rate / optimum))
        return Fate(round(steps_at_optimum * math.exp(slope * away)), loss=1 + away)

    return fate_of


@settings(max_examples=40, deadline=None)
@given(
    log_optimum=st.floats(-4, 0),
    slope=st.floats(0.5, 4),
    off=st.floats(-2, 2),
    points=st.integers(1, 3),
    decades_per_point=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_a_grid_that_is_too_small_or_off_ends_with_the_answer_of_a_good_one(
    log_optimum, slope, off, points, decades_per_point
):
    fate_of = valley(10**log_optimum, slope)
    small = [10 ** (log_optimum + off + decades_per_point * i) for i in range(points)]
    # A single learning rate is extended by half decades.
    spacing = decades_per_point if points > 1 else 0.5
    good = [10 ** (-6 + spacing * i) for i in range(round(8 / spacing) + 1)]
    for rates in (small, good):
        outcome = Simulation(sweep(*rates, steps=10**5, max_extensions=40), fate_of).outcome
        assert outcome["status"] == "found"
        # Rounding of the learning rates to four digits is allowed for.
        distance = abs(math.log10(outcome["best_learning_rate"]) - log_optimum)
        assert distance <= spacing / 2 + 0.01
        assert (
            1000 <= outcome["max_train_steps"] <= 1000 * math.exp(slope * (spacing / 2 + 0.01)) + 1
        )


@settings(max_examples=40, deadline=None)
@given(
    log_edge=st.floats(-3, 0),
    power=st.floats(0.3, 1),
    off=st.floats(-3, 2),
    points=st.integers(1, 3),
)
def test_the_answer_lies_just_below_the_edge_of_divergence_where_larger_is_faster(
    log_edge, power, off, points
):
    def fate_of(rate):
        if rate > 10**log_edge:
            return Fate(diverges_at=2)
        steps = 100 * (10**log_edge / rate) ** power
        return Fate(round(steps), loss=1 / rate)

    rates = [10 ** (log_edge + off + 0.5 * i) for i in range(points)]
    outcome = Simulation(sweep(*rates, steps=10**5, max_extensions=20), fate_of).outcome
    assert outcome["status"] == "found"
    assert 100 <= outcome["max_train_steps"] <= 100 * 10 ** (0.51 * power) + 1
    assert outcome["diverged"] >= 1


@st.composite
def valleys(draw):
    """Steps to fit with one valley over a fine grid of learning rates: index to steps."""
    count = 65
    center = draw(st.integers(0, count - 1))
    floor = draw(st.integers(5, 200))
    rises = st.lists(st.sampled_from([0, 0, 1, 3, 10, 40]), min_size=count, max_size=count)
    down, up = draw(rises), draw(rises)
    steps = {center: floor}
    for index in range(center + 1, count):
        steps[index] = steps[index - 1] + up[index]
    for index in range(center - 1, -1, -1):
        steps[index] = steps[index + 1] + down[index]
    diverges_from = draw(st.integers(center + 1, count + 1))
    return [steps[i] if i < diverges_from else NEVER for i in range(count)]


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(valleys(), st.sampled_from([4, 8, 16]))
@example([5] * 62 + [NEVER] * 3, 4)
def test_coarse_to_fine_finds_what_the_whole_fine_grid_finds(valley, stride):
    fine = 10 ** (1 / 16)  # four decades in 64 steps

    def fate_of(rate):
        index = round(math.log(rate / 1e-4) / math.log(fine))
        if not 0 <= index < len(valley) or valley[index] is NEVER:
            return Fate(diverges_at=1)
        return Fate(fits_at=valley[index])

    coarse = [float(f"{1e-4 * fine**i:.4g}") for i in range(0, len(valley), stride)]
    simulation = Simulation(sweep(*coarse, steps=5000, refine=fine * 1.001), fate_of)
    outcome = simulation.outcome
    best_of_all = min(steps for steps in valley if steps is not NEVER)
    if outcome["status"] == "found":
        assert outcome["max_train_steps"] == best_of_all
        # An extension lies a coarse spacing outside, and that spacing too may be made fine.
        assert len(simulation.trials) <= len(valley) + outcome["extensions"] * stride
    else:
        # The valley lies at the end of the learning rates that train at all.
        assert outcome["status"] == "at_boundary"


def test_refinement_stops_at_the_spacing_asked_for():
    def fate_of(rate):
        return Fate(round(100 + 300 * abs(math.log10(rate / 0.05))))

    outcomes = [
        Simulation(sweep(0.001, 0.01, 0.1, 1.0, refine=refine), fate_of).outcome
        for refine in (None, 4.0, 2.0, 1.05)
    ]
    assert [o["refinements"] for o in outcomes[:2]] == [0, 1]
    best = [abs(math.log10(o["best_learning_rate"] / 0.05)) for o in outcomes]
    assert best == sorted(best, reverse=True) and best[-1] < 0.02
    for outcome, refine in zip(outcomes[1:], (4.0, 2.0, 1.05), strict=True):
        rates = outcome["learning_rates"]
        at = rates.index(outcome["best_learning_rate"])
        assert rates[at + 1] / rates[at] <= refine * 1.001
        assert rates[at] / rates[at - 1] <= refine * 1.001
        assert "added around the best" in outcome["reasons"][0]
        assert outcome["steps_trained"] < outcome["steps_full_grid"] / 3
