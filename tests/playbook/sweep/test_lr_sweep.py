import bisect
import dataclasses
import json
import math

import pytest
from conftest import trial_record
from hypothesis import example, given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Add, Advance
from budgetflow.playbook.common.outcomes import from_json
from budgetflow.playbook.sweep.policy import decide
from budgetflow.playbook.sweep.race import SweepSettings, lockstep_grid
from budgetflow.results.kind_views import headline as headline_of

LEARNING_RATE = "schedule.base_learning_rate"
NEVER = None

modest = settings(max_examples=150, deadline=None)


@dataclasses.dataclass(frozen=True)
class Fate:
    """What becomes of a trial if it is trained for long enough."""

    fits_at: int | None = NEVER
    diverges_at: int | None = NEVER
    loss: float = 1.0
    holds: bool = True

    def fits_within(self, step):
        return (
            self.fits_at is not None
            and self.fits_at <= step
            and (self.diverges_at is None or self.fits_at < self.diverges_at)
        )


def headline(outcome):
    return headline_of(from_json(outcome))


# Updates per epoch of the simulated studies.
EPOCH = 20


def sweep(*learning_rates, steps=1000, max_extensions=8, refine=None, seeds=(0,)):
    return SweepSettings(
        learning_rates, steps, max_extensions, 1000, EPOCH, refine=refine, seeds=seeds
    )


class Simulation:
    """A study whose trials meet fates: by learning rate, or by learning rate and seed.

    Attributes:
        trials: the trials by number, at the end.
        history: before each decision, the trials; and the decision.
        outcome: the outcome that the study ends with.
    """

    def __init__(self, settings, fate_of, start=(), exact=True):
        self.settings = settings
        self.fate_of = fate_of
        self.exact = exact
        self.trials = {trial.trial: trial for trial in start}
        self.history = []
        for _ in range(5000):
            views = self.sorted_trials()
            decision = decide(settings, views)
            self.history.append((views, decision))
            if isinstance(decision, Add):
                self._add(decision)
            elif isinstance(decision, Advance):
                self._advance(decision)
            else:
                self.outcome = decision.outcome.to_json()
                return
        raise AssertionError("the sweep does not end")

    def sorted_trials(self):
        return [self.trials[number] for number in sorted(self.trials)]

    def fates(self):
        """The fate of every learning rate that was tried."""
        rates = [trial.base_learning_rate for trial in self.trials.values()]
        return {rate: self.fate_of(rate) for rate in rates}

    def fate(self, hyperparameters):
        """The fate of a trial."""
        return self.fate_of(*hyperparameters.values())

    def view(self, number, hyperparameters, step):
        """The trial after training to a step, as far as it gets."""
        fate, rows, bracket, status, before = self.fate(hyperparameters), [], None, "pending", 0
        grid = lockstep_grid(self.settings.max_train_steps)
        for end in sorted({*(s for s in grid if s <= step), *([step] if step else [])}):
            if bracket is None and fate.fits_within(end):
                bracket = (fate.fits_at - 1, fate.fits_at) if self.exact else (before, end)
            diverged = fate.diverges_at is not None and fate.diverges_at <= end
            loss = math.nan if diverged else fate.loss * (1 + 1 / end)
            lowest = self.settings.lowest_evaluated_error_rate
            error = lowest if fate.fits_within(end) and fate.holds else 0.5
            rows.append({"step": end, "train_loss": loss, "train_error_rate": error})
            status, before = "diverged" if diverged else "running", end
            if diverged:
                break
        return trial_record(
            number,
            Schedule(hyperparameters[LEARNING_RATE], 0, self.settings.max_train_steps),
            rows,
            hyperparameters=hyperparameters,
            status=status,
            fitted_at_step_bracket=bracket,
        )

    def _add(self, decision):
        assert decision.trials
        for number, hyperparameters in decision.trials.items():
            tried = [trial.hyperparameters for trial in self.trials.values()]
            assert number not in self.trials
            assert hyperparameters[LEARNING_RATE] > 0
            assert hyperparameters not in tried, f"{hyperparameters} is tried a second time"
            self.trials[number] = self.view(number, hyperparameters, 0)

    def _advance(self, decision):
        assert decision.trials
        assert decision.to_step <= self.settings.max_train_steps
        for number in decision.trials:
            trial = self.trials[number]
            assert trial.step < decision.to_step
            assert not trial.diverged
            self.trials[number] = self.view(number, trial.hyperparameters, decision.to_step)


@st.composite
def random_fates(draw, max_train_steps):
    step = st.integers(1, max_train_steps)
    fate = st.builds(
        Fate,
        # Few distinct steps make ties likely.
        st.none() | step | st.sampled_from([1, (max_train_steps + 1) // 2, max_train_steps]),
        st.none() | st.none() | step,
        st.sampled_from([0.1, 0.5, 1.0, 2.0]),
    )
    fates = draw(st.lists(fate, min_size=1, max_size=16))
    return lambda rate: fates[round(4 * math.log2(rate)) % len(fates)]


@st.composite
def random_sweeps(draw):
    steps = draw(st.integers(1, 60) | st.integers(1, 3000))
    count = draw(st.integers(1, 5))
    if draw(st.booleans()):
        start, ratio = (
            draw(st.sampled_from([1e-3, 0.01, 0.5])),
            draw(st.sampled_from([2, 3.162, 10])),
        )
        rates = [start * ratio**i for i in range(count)]
    else:
        rates = draw(st.lists(st.sampled_from([1e-3, 0.002, 0.01, 0.1, 0.15, 0.7, 3.0]),
                              min_size=count, max_size=count, unique=True))  # fmt: skip
    settings = sweep(
        *rates,
        steps=steps,
        max_extensions=draw(st.integers(0, 6)),
        refine=draw(st.sampled_from([None, 3.0, 1.3])),
    )
    return settings, draw(random_fates(steps))


@modest
@given(random_sweeps())
def test_the_answer_is_that_of_the_fastest_of_all_tried_or_none_is_given(random_sweep):
    settings, fate_of = random_sweep
    simulation = Simulation(settings, fate_of)
    outcome, steps, fates = simulation.outcome, settings.max_train_steps, simulation.fates()
    fastest = min((f.fits_at for f in fates.values() if f.fits_within(steps)), default=None)
    tried = sorted(fates)
    assert outcome["learning_rates"] == tried
    if fastest is None:
        assert outcome["status"] == "not_fitted"
        assert outcome["max_train_steps"] is None
        assert outcome["fitted_at_step_bracket"] is None
        assert outcome["regime"] in ("undecided", "compute_bound")
        return
    best = outcome["best_learning_rate"]
    assert fates[best].fits_within(steps)
    assert fates[best].fits_at == fastest
    assert outcome["fitted_at_step_bracket"] == [fastest - 1, fastest]
    assert outcome["regime"] == "not_compute_bound"
    if outcome["status"] == "found":
        assert outcome["max_train_steps"] == fastest
        assert tried[0] < best < tried[-1]
    else:
        assert outcome["status"] == "at_boundary"
        assert outcome["max_train_steps"] is None
        assert best in (tried[0], tried[-1])
        # An interior learning rate that is as fast would have settled it.
        assert all(
            not fates[rate].fits_within(steps) or fates[rate].fits_at > fastest
            for rate in tried[1:-1]
        )


@modest
@given(random_sweeps())
def test_an_answer_is_given_up_only_when_extensions_are_used_up(random_sweep):
    settings, fate_of = random_sweep
    outcome = Simulation(settings, fate_of).outcome
    added = len(outcome["learning_rates"]) - len(settings.learning_rates)
    assert outcome["extensions"] + outcome["refinements"] == added
    assert outcome["refinements"] == 0 or settings.refine is not None
    assert outcome["extensions"] <= settings.max_extensions
    best, tried = outcome["best_learning_rate"], outcome["learning_rates"]
    if best is None or best in (tried[0], tried[-1]):
        assert outcome["status"] != "found"
        assert outcome["extensions"] == settings.max_extensions
        if best is not None:
            assert any("boundary" in reason.lower() for reason in outcome["reasons"])


@modest
@given(random_sweeps())
def test_the_outcome_adds_up(random_sweep):
    settings, fate_of = random_sweep
    simulation = Simulation(settings, fate_of)
    outcome, trials = simulation.outcome, simulation.trials.values()
    json.dumps(outcome, allow_nan=False)
    assert outcome["kind"] == "lr_sweep"
    assert outcome["steps_trained"] == sum(trial.step for trial in trials)
    assert outcome["steps_full_grid"] == len(trials) * settings.max_train_steps
    assert outcome["steps_trained"] <= outcome["steps_full_grid"]
    assert outcome["diverged"] == sum(trial.diverged for trial in trials)
    assert all(reason.endswith(".") for reason in outcome["reasons"])


@modest
@given(random_sweeps())
def test_trials_run_in_lockstep_and_no_further_than_the_step_that_decides(random_sweep):
    settings, fate_of = random_sweep
    simulation = Simulation(settings, fate_of)
    grid = lockstep_grid(settings.max_train_steps)
    for views, decision in simulation.history:
        if not isinstance(decision, Advance):
            continue
        going_on = [t for t in views if t.trial in decision.trials]
        known = [t.fitted_at_step for t in views if t.fitted_at_step is not None]
        decides = min(known, default=settings.max_train_steps)
        if going_on[0].fitted_at_step is not None:
            # The winner, an epoch further, once nobody else can be as fast.
            assert [going_on[0].fitted_at_step] == [decides] and len(going_on) == 1
            assert decision.to_step <= decides + EPOCH
            continue
        slowest = min(t.step for t in going_on)
        assert decision.to_step == min(decides, grid[bisect.bisect_right(grid, slowest)])
        # Whoever is furthest behind and could still be the fastest takes part, leaders first.
        racing = [t for t in views if t.fitted_at_step is None and not t.diverged]
        behind = {t.trial for t in racing if t.step == min(r.step for r in racing)}
        assert behind == set(decision.trials)
        losses = {t.trial: t.rows[-1]["train_loss"] if t.rows else 0 for t in going_on}
        assert [losses[n] for n in decision.trials] == sorted(losses.values())


@modest
@given(random_sweeps())
def test_removing_the_last_trial_and_deciding_again_gives_the_same_outcome(random_sweep):
    settings, fate_of = random_sweep
    first = Simulation(settings, fate_of)
    without_last = first.sorted_trials()[:-1]
    again = Simulation(settings, fate_of, start=without_last)
    # What the last trial alone now takes depends on when the race was known to be decided.
    assert again.outcome.pop("steps_trained") <= first.outcome.pop("steps_trained")
    assert again.outcome == first.outcome


@modest
@given(random_sweeps(), st.data())
def test_a_sweep_that_lost_progress_at_any_moment_gives_the_same_answer(random_sweep, data):
    settings, fate_of = random_sweep
    first = Simulation(settings, fate_of)
    views, _ = data.draw(st.sampled_from(first.history))
    grid = lockstep_grid(settings.max_train_steps)
    set_back = [
        first.view(t.trial, t.hyperparameters, data.draw(st.sampled_from([0, *grid, t.step])))
        for t in views
    ]
    set_back = [
        old if new.step > old.step else new for old, new in zip(views, set_back, strict=True)
    ]
    again = Simulation(settings, fate_of, start=set_back)
    for key in ("status", "max_train_steps", "fitted_at_step_bracket", "best_learning_rate",
                "learning_rates", "extensions", "regime"):  # fmt: skip
        assert again.outcome[key] == first.outcome[key]


@modest
@given(random_sweeps())
def test_where_fits_are_seen_only_at_evaluations_the_truth_lies_in_the_bracket(random_sweep):
    settings, random_fate_of = random_sweep

    def fate_of(rate):
        fate = random_fate_of(rate)
        # A fit that is lost by divergence before the next evaluation would not be seen.
        return fate if fate.fits_at is None else dataclasses.replace(fate, diverges_at=NEVER)

    simulation = Simulation(settings, fate_of, exact=False)
    outcome, fates = simulation.outcome, simulation.fates()
    fits = [fate.fits_at for fate in fates.values() if fate.fits_at is not None]
    assert (outcome["status"] == "not_fitted") == (not fits)
    if outcome["status"] == "found":
        before, at = outcome["fitted_at_step_bracket"]
        assert before < min(fits) <= at
        assert outcome["max_train_steps"] == at


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


@pytest.mark.parametrize("steps", [400, 10_000, 1_000_000])
def test_the_cost_does_not_depend_on_the_number_of_steps_thought_sufficient(steps):
    fates = {0.01: Fate(), 0.1: Fate(300), 1.0: Fate(320)}
    simulation = Simulation(sweep(*fates, steps=steps), fates.__getitem__)
    assert simulation.outcome["max_train_steps"] == 300
    assert all(300 <= trial.step <= 1.15 * 300 + 1 for trial in simulation.trials.values())


@pytest.mark.parametrize("holds", [True, False])
def test_the_winner_is_trained_an_epoch_further_to_see_whether_the_fit_holds(holds):
    fates = {0.01: Fate(500), 0.1: Fate(37, holds=holds), 1.0: Fate(80)}
    simulation = Simulation(sweep(*fates), fates.__getitem__)
    assert simulation.trials[1].step >= 37 + EPOCH
    assert simulation.outcome["max_train_steps"] == 37
    assert simulation.outcome["fit_held"] == holds
    assert ("held" if holds else "did not hold") in simulation.outcome["reasons"][-1]


# Six of the thousand examples must be wrong; of those that are evaluated, up to 0.8 %.
CONTRADICTING = {
    "contradicting_examples": 12, "lowest_train_errors": 6, "lowest_train_loss": 0.008,
    "lowest_evaluated_error_rate": 0.008,
}  # fmt: skip


@pytest.mark.parametrize("holds", [True, False])
def test_where_examples_contradict_each_other_the_race_is_to_the_lowest_possible_error(holds):
    settings = dataclasses.replace(sweep(0.01, 0.1, 1.0), **CONTRADICTING)
    fates = {0.01: Fate(500), 0.1: Fate(37, holds=holds), 1.0: Fate(80)}
    outcome = Simulation(settings, fates.__getitem__).outcome
    json.dumps(outcome, allow_nan=False)
    assert (outcome["status"], outcome["max_train_steps"]) == ("found", 37)
    assert outcome["regime"] == "not_compute_bound"
    assert (outcome["contradicting_examples"], outcome["lowest_train_errors"]) == (12, 6)
    # The rate of the examples evaluated is not 0, and yet the fit holds.
    assert outcome["fit_held"] is holds
    reasons = " ".join(outcome["reasons"])
    assert "12 of 1000 training examples contradict each other" in reasons
    assert "at least 6 (0.60%) must be wrong" in reasons
    assert "went to that lowest possible error" in reasons
    assert "first had the lowest possible error (6 examples wrong)" in reasons
    assert "the whole training set" not in reasons
    told = headline(outcome)
    assert "as well as possible, with 6 wrong (since 12 examples contradict each other)" in told
    assert "perfectly" not in told


def test_where_not_even_the_lowest_possible_error_is_reached_that_is_said():
    settings = dataclasses.replace(sweep(0.01, 0.1, 1.0), **CONTRADICTING)
    outcome = Simulation(settings, lambda rate: Fate(loss=1 + abs(math.log10(rate / 0.1)))).outcome
    assert outcome["not_fitted_because"] == "model_cannot_fit"
    reasons = " ".join(outcome["reasons"])
    assert "No trial had the lowest possible error (6 examples wrong) within 1000" in reasons
    assert "12 examples that contradict each other do not explain it" in reasons
    assert "as well as possible, with 6 wrong" in headline(outcome)


def test_a_loss_that_contradictions_make_impossible_is_blamed_before_the_grid():
    settings = dataclasses.replace(
        sweep(0.01, 0.1, max_extensions=2), **CONTRADICTING, fitted_train_loss=0.005
    )
    outcome = Simulation(settings, lambda rate: Fate(loss=1 / rate)).outcome
    assert outcome["not_fitted_because"] == "threshold_too_low"
    assert any("under 0.005 is impossible" in reason for reason in outcome["reasons"])
    assert any("lowest possible training loss is 0.008" in reason for reason in outcome["reasons"])


@pytest.mark.parametrize(("counted", "errors"), [(None, None), (0, 0)])
def test_what_nobody_counted_is_not_called_zero(counted, errors):
    settings = dataclasses.replace(sweep(0.01, 0.1, 1.0), contradicting_examples=counted)
    fates = {0.01: Fate(500), 0.1: Fate(37), 1.0: Fate(80)}
    outcome = Simulation(settings, fates.__getitem__).outcome
    assert outcome["contradicting_examples"] is counted
    assert outcome["lowest_train_errors"] is errors
    assert "contradict" not in " ".join(outcome["reasons"]) + headline(outcome)
    assert "perfectly" in headline(outcome)


def test_a_race_of_few_epochs_is_undecided():
    settings = dataclasses.replace(sweep(0.01, 0.1, 1.0, steps=100), steps_per_epoch=50)
    outcome = Simulation(settings, lambda rate: Fate(loss=1 + abs(math.log10(rate / 0.1)))).outcome
    assert outcome["regime"] == "undecided"
    assert outcome["not_fitted_because"] == "n_too_small"
    assert outcome["suggested_max_train_steps"] == 2000
    assert any("(2 epochs)" in reason for reason in outcome["reasons"])


def test_a_fit_at_the_very_last_step_cannot_be_seen_to_hold():
    fates = {0.01: Fate(), 0.1: Fate(1000), 1.0: Fate()}
    outcome = Simulation(sweep(*fates), fates.__getitem__).outcome
    assert outcome["status"] == "found" and outcome["fit_held"] is None


def test_it_is_said_how_far_behind_the_next_best_learning_rate_was():
    fates = {0.01: Fate(500, loss=3.0), 0.1: Fate(37), 1.0: Fate(80, loss=2.0)}
    reasons = Simulation(sweep(*fates), fates.__getitem__).outcome["reasons"]
    assert any("next best learning rate, 1, had 50.00% of the training" in r for r in reasons)
    fates = {0.01: Fate(500), 0.1: Fate(37), 0.5: Fate(37), 1.0: Fate(80)}
    reasons = Simulation(sweep(*fates), fates.__getitem__).outcome["reasons"]
    assert any("0.5 fitted at the same step" in reason for reason in reasons)


# Several seeds.

NOISE = {0: 1.0, 1: 0.7, 2: 1.3, 3: 0.9, 4: 1.1}


def noisy_valley(rate, seed=0):
    return Fate(round(NOISE[seed] * 100 * math.exp(abs(math.log10(rate / 0.1)))), loss=1 / rate)


@pytest.mark.parametrize(("count", "median"), [(1, 100), (2, 100), (3, 100), (4, 100), (5, 100)])
def test_the_answer_is_the_median_over_seeds(count, median):
    settings = sweep(0.001, 0.01, 0.1, 1.0, 10.0, seeds=tuple(range(count)))
    simulation = Simulation(settings, noisy_valley)
    outcome = simulation.outcome
    answers = [round(100 * NOISE[seed]) for seed in range(count)]
    assert [o["max_train_steps"] for o in outcome["seeds"]] == answers
    assert outcome["max_train_steps"] == sorted(answers)[count // 2] == median
    assert outcome["fitted_at_step_bracket"] == [median - 1, median]
    # The other seeds race around the first one's best only.
    assert len(simulation.trials) == 5 + 3 * (count - 1)
    assert simulation.trials[outcome["best_trial"]].fitted_at_step == median
    assert any("median" in reason for reason in outcome["reasons"]) == (count > 1)


def test_a_seed_whose_best_lies_elsewhere_is_followed_there():
    def fate_of(rate, seed=0):
        return Fate(round(100 * math.exp(abs(math.log10(rate / (0.1 if seed == 0 else 10))))))

    simulation = Simulation(sweep(0.01, 0.1, 1.0, seeds=(0, 1)), fate_of)
    assert [o["best_learning_rate"] for o in simulation.outcome["seeds"]] == [0.1, 10]
    assert simulation.outcome["max_train_steps"] == 100


def test_a_seed_without_an_answer_counts_as_slow_and_is_told():
    def fate_of(rate, seed=0):
        return Fate(NEVER) if seed == 2 else noisy_valley(rate, seed)

    settings = sweep(0.01, 0.1, 1.0, max_extensions=1, seeds=(0, 1, 2))
    outcome = Simulation(settings, fate_of).outcome
    assert outcome["max_train_steps"] == 100
    assert outcome["seeds"][2]["max_train_steps"] is None
    assert any("1 found no answer" in reason for reason in outcome["reasons"])
    outcome = Simulation(dataclasses.replace(settings, seeds=(0, 2)), fate_of).outcome
    assert outcome["status"] == "not_fitted" and outcome["max_train_steps"] is None


@modest
@given(random_sweeps(), st.integers(2, 4), st.data())
def test_every_seed_gets_an_answer_of_its_own_that_is_its_fastest(random_sweep, count, data):
    settings, fate_of = random_sweep
    settings = dataclasses.replace(settings, seeds=tuple(range(count)), refine=None)
    later = [data.draw(st.floats(0.3, 3)) for _ in range(count)]

    def fate_of_seed(rate, seed=0):
        fate = fate_of(rate)
        steps = fate.fits_at and max(1, round(fate.fits_at * (later[seed] if seed else 1)))
        return dataclasses.replace(fate, fits_at=steps)

    simulation = Simulation(settings, fate_of_seed)
    outcome, trials = simulation.outcome, simulation.trials.values()
    json.dumps(outcome, allow_nan=False)
    for answer in outcome["seeds"]:
        if answer["status"] != "found":
            assert answer["max_train_steps"] is None
            continue
        mine = [t.hyperparameters for t in trials]
        own = [h for h in mine if h.get("seed", 0) == answer["seed"]]
        fates = [simulation.fate(h) for h in own]
        assert answer["max_train_steps"] == min(
            f.fits_at for f in fates if f.fits_within(settings.max_train_steps)
        )
    if len(outcome["seeds"]) == count:
        answers = sorted(o["max_train_steps"] or math.inf for o in outcome["seeds"])
        assert (outcome["max_train_steps"] or math.inf) == answers[count // 2]
    else:
        assert outcome["status"] != "found"


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
