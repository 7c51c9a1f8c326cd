import dataclasses
import json
import math

import pytest
from conftest import trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import PARTIAL, Add, Advance
from budgetflow.playbook.sweep.hopeless import LAG, SHARE, Lag, due, lag
from budgetflow.playbook.sweep.policy import decide
from budgetflow.playbook.sweep.race import LEARNING_RATE, SweepSettings, lockstep_grid

N = 400


def record(number, losses, fitted_at=None, partial=None):
    """A trial by its training loss at each step; on so many examples."""
    also = {PARTIAL: partial} if partial else {}
    return trial_record(
        number,
        Schedule(0.1 * (number + 1), 0, N),
        [{"step": step, "train_loss": loss, **also} for step, loss in losses.items()],
        status="running",
        fitted_at_step_bracket=(fitted_at - 1, fitted_at) if fitted_at else None,
    )


LEADER = record(1, {10: 0.9, 20: 0.5, 30: 0.6, 40: 0.2})


def test_a_lag_is_from_the_first_evaluation_at_which_the_leader_had_the_loss():
    assert lag(record(0, {10: 2.0, 20: 0.55}), LEADER) is None  # The leader had it no earlier.
    trial = record(0, {10: 2.0, 20: 1.5, 30: 0.95, 40: 1.1})
    assert lag(trial, LEADER) == Lag(0, 0.1, 40, 0.95, leader=1, leader_step=10)


def test_who_is_ahead_or_unmeasured_or_the_leader_has_no_lag():
    assert lag(record(0, {}), LEADER) is None
    assert lag(record(0, {10: 0.1}), LEADER) is None
    assert lag(LEADER, LEADER) is None


def test_losses_on_other_examples_are_not_compared():
    assert lag(record(0, {40: 0.95}, partial=256), LEADER) is None
    both = record(1, {10: 0.9, 20: 0.5}, partial=256)
    assert lag(record(0, {40: 0.95}, partial=256), both).leader_step == 10


def test_a_slow_trial_waits_until_its_leader_is_far_ahead_and_is_out_if_it_fits_before():
    grid, leader = tuple(range(10, N + 1, 10)), record(1, {10: 0.9, 150: 0.2})
    slow = record(0, {40: 0.95})
    assert due([slow, leader], leader, grid) == [leader]
    far = record(1, {10: 0.9, 160: 0.2})
    assert slow in due([slow, far], far, grid)
    assert due([slow], record(1, {10: 0.9, 160: 0.0}, fitted_at=160), grid) == []
    assert due([slow], record(1, {10: 0.9, 170: 0.0}, fitted_at=161), grid) == [slow]
    not_so_slow = record(0, {39: 0.95})
    assert due([not_so_slow], record(1, {10: 0.9, 50: 0.0}, fitted_at=50), grid) == [not_so_slow]


@dataclasses.dataclass(frozen=True)
class Fate:
    """A loss that falls as a power of how far a trial is on its way, which ends with the fit."""

    slowness: float
    noise: tuple[float, ...]
    diverges: bool = False

    @property
    def fits_at(self):
        return None if self.diverges else math.ceil(60 * self.slowness)

    def loss(self, step):
        if self.diverges:
            return math.nan
        wobble = 1 + 0.2 * self.noise[step % len(self.noise)]
        return wobble / (1 + step / self.slowness)


def simulate(settings, fates, kept=None):
    """The outcome of a sweep over trials by learning rate, and all decisions.

    A kill after so many decisions leaves a share of each trial's steps: ``kept`` has both.
    """
    trials, decisions, grid = {}, [], lockstep_grid(settings.max_train_steps)

    def view(number, rate, step):
        fate = fates[rate]
        ends = sorted({*(s for s in grid if s <= step), *([step] if step else [])})
        rows = [{"step": s, "train_loss": fate.loss(s), "train_error_rate": 0.0} for s in ends]
        is_fitted = fate.fits_at is not None and fate.fits_at <= step
        return trial_record(
            number,
            Schedule(rate, 0, settings.max_train_steps),
            rows[:1] if fate.diverges else rows,
            hyperparameters={LEARNING_RATE: rate},
            status="diverged" if fate.diverges and rows else "running",
            fitted_at_step_bracket=(fate.fits_at - 1, fate.fits_at) if is_fitted else None,
        )

    while True:
        if kept is not None and len(decisions) == kept[0]:
            for (n, trial), share in zip(trials.items(), kept[1], strict=False):
                saved = max(s for s in (0, *grid) if s <= share * trial.step)
                trials[n] = trial if trial.diverged else view(n, trial.base_learning_rate, saved)
        decision = decide(settings, [trials[n] for n in sorted(trials)])
        decisions.append(decision)
        if isinstance(decision, Add):
            for n, hyperparameters in decision.trials.items():
                trials[n] = view(n, hyperparameters[LEARNING_RATE], 0)
        elif isinstance(decision, Advance):
            n = decision.trials[0]
            assert trials[n].step < decision.to_step
            trials[n] = view(n, trials[n].base_learning_rate, decision.to_step)
        else:
            return decision.outcome.to_json(), decisions


@st.composite
def races(draw):
    """Trials of which each is as slow all the way: none is ever four times as slow and first."""
    count = draw(st.integers(2, 9))
    noise = st.lists(st.floats(-1, 1), min_size=3, max_size=7).map(tuple)
    fate = st.builds(Fate, st.floats(0.3, 30), noise, st.just(False) | st.booleans())
    fates = draw(st.lists(fate, min_size=count, max_size=count))
    return {float(2**n): fate for n, fate in enumerate(fates)}


def asked(fates, stop_hopeless, **also):
    return SweepSettings(tuple(fates), N, 0, 1000, 20, stop_hopeless=stop_hopeless, **also)


ANSWER = ("status", "max_train_steps", "best_learning_rate", "fitted_at_step_bracket", "regime")


@settings(max_examples=150, deadline=None)
@given(races())
def test_the_answer_is_that_of_the_whole_race_where_nobody_catches_up(fates):
    exact, _ = simulate(asked(fates, stop_hopeless=False), fates)
    found, _ = simulate(asked(fates, stop_hopeless=True), fates)
    assert {key: found[key] for key in ANSWER} == {key: exact[key] for key in ANSWER}
    assert "set_aside" not in exact
    for one in found["set_aside"]:
        assert one["step"] >= LAG * one["leader_step"]
        assert exact["fitted_at_step_bracket"][1] <= one["step"] / SHARE
    if exact["status"] == "not_fitted":
        assert found["set_aside"] == []
        assert found["steps_trained"] == exact["steps_trained"]


@settings(max_examples=150, deadline=None)
@given(races(), st.integers(1, 200), st.lists(st.floats(0, 1), min_size=9, max_size=9))
def test_a_kill_changes_no_answer_however_far_back_it_sets_each_trial(fates, decisions, shares):
    whole, _ = simulate(asked(fates, stop_hopeless=True), fates)
    found, _ = simulate(asked(fates, stop_hopeless=True), fates, kept=(decisions, shares))
    assert {key: found[key] for key in ANSWER} == {key: whole[key] for key in ANSWER}


def test_slow_trials_are_set_aside_and_named():
    fates = {rate: Fate(slow, (0.0,)) for rate, slow in ((0.1, 24), (0.2, 3), (0.4, 40))}
    exact, _ = simulate(asked(fates, stop_hopeless=False), fates)
    found, _ = simulate(asked(fates, stop_hopeless=True), fates)
    assert exact["max_train_steps"] == found["max_train_steps"] == 180
    assert found["steps_trained"] < 0.7 * exact["steps_trained"]
    assert [one["learning_rate"] for one in found["set_aside"]] == [0.1, 0.4]
    first = found["set_aside"][0]
    sentence = next(reason for reason in found["reasons"] if reason.startswith("Set aside"))
    assert f"trial 0 (learning rate 0.1) at step {first['step']}" in sentence
    assert f"that trial 1 had by step {first['leader_step']};" in sentence
    assert not any("Set aside" in reason for reason in exact["reasons"])
    assert json.loads(json.dumps(found)) == found


def test_one_that_never_fits_does_not_keep_others_waiting_for_ever():
    fast = Fate(0.3, (0.0,))
    stuck = type("Stuck", (), {"fits_at": None, "diverges": False, "loss": fast.loss})()
    fates = {0.1: Fate(5, (0.0,)), 0.2: stuck, 0.4: Fate(6, (0.0,))}
    found, _ = simulate(asked(fates, stop_hopeless=True), fates)
    assert found["fitted_at_step_bracket"] == [299, 300]


def test_another_seed_and_extensions_set_aside_too():
    fates = {2.0**n: Fate(1 + 6 * abs(n), (0.0,)) for n in range(-9, 9)}
    grid = {2.0**n: fates[2.0**n] for n in (1, 2, 3)}
    settings_ = dataclasses.replace(asked(grid, stop_hopeless=True), max_extensions=4)
    found, _ = simulate(settings_, fates)
    whole, _ = simulate(dataclasses.replace(settings_, stop_hopeless=False), fates)
    assert found["status"] == whole["status"] == "found"
    assert found["best_learning_rate"] == whole["best_learning_rate"] == 1.0
    assert found["learning_rates"] == whole["learning_rates"]
    assert found["steps_trained"] < whole["steps_trained"]


@pytest.mark.parametrize("stop_hopeless", [False, True])
def test_nobody_fits(stop_hopeless):
    fates = {rate: Fate(slow, (0.0,)) for rate, slow in ((0.1, 60), (0.2, 10), (0.4, 80))}
    found, _ = simulate(asked(fates, stop_hopeless), fates)
    assert found["status"] == "not_fitted"
    assert found["steps_trained"] == 3 * N
