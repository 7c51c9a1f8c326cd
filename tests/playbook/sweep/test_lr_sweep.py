"""The laws of every sweep, whatever becomes of its trials; and the simulation of one."""

import bisect
import dataclasses
import json
import math

import pytest
from conftest import trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Add, Advance
from budgetflow.playbook.sweep.policy import decide
from budgetflow.playbook.sweep.race import SweepSettings, lockstep_grid

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


@pytest.mark.parametrize("steps", [400, 10_000, 1_000_000])
def test_the_cost_does_not_depend_on_the_number_of_steps_thought_sufficient(steps):
    fates = {0.01: Fate(), 0.1: Fate(300), 1.0: Fate(320)}
    simulation = Simulation(sweep(*fates, steps=steps), fates.__getitem__)
    assert simulation.outcome["max_train_steps"] == 300
    assert all(300 <= trial.step <= 1.15 * 300 + 1 for trial in simulation.trials.values())
