import numpy as np
import pytest

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.forecasts.laws import LAWS, MAX_DROPS, features, joined

THETA = {
    "steps": (-0.1, -3.0, -0.7),
    "momentum": (-0.1, -3.0, -0.7, -3.3, -3.0),
    "multi_power": (-0.1, -3.0, -0.7, -3.0, 4.0, -0.7, 0.5),
}
STEPS = np.arange(100, 1001, 100)
CONSTANT = Schedule(0.3, warmup_steps=50, constant_steps=950)
DECAYING = Schedule(0.3, warmup_steps=50, constant_steps=550, decay_steps=400, decay="linear")


def losses(name, schedule, steps=STEPS):
    run = features(steps, schedule.learning_rates(), longest=1000, highest=0.3)
    return LAWS[name].loss(np.array(THETA[name]), run)


@pytest.mark.parametrize("name", LAWS)
def test_losses_fall_at_a_constant_learning_rate(name):
    assert np.all(np.diff(losses(name, CONSTANT)) < 0)


@pytest.mark.parametrize("name", LAWS)
def test_a_decay_gives_something_if_the_law_knows_of_it(name):
    gain = losses(name, CONSTANT) - losses(name, DECAYING)
    assert gain[:6] == pytest.approx(np.zeros(6), abs=1e-6)
    if LAWS[name].anneals:
        assert gain[-1] > 0.01
    else:
        assert gain[-1] == 0


def test_momentum_is_the_published_sum():
    """Tissue et al.'s S2, summed step by step; a drop's effect here sets in over whole steps."""
    rates = DECAYING.learning_rates().astype(float) / 0.3
    tau = np.exp(-3.0) * 1000
    momentum = np.zeros(1000)
    for i in range(51, 1000):
        momentum[i] = momentum[i - 1] * np.exp(-1 / tau) + rates[i - 1] - rates[i]
    area = momentum.cumsum() * (1 - np.exp(-1 / tau))
    expected = np.exp(-0.1) + np.exp(-3.0) * (rates.cumsum()[STEPS - 1] / 1000) ** -np.exp(-0.7)
    expected -= np.exp(-3.3) * area[STEPS - 1]
    assert losses("momentum", DECAYING) == pytest.approx(expected, rel=1e-3)


def test_a_long_decay_is_gathered_into_few_drops_that_add_up():
    schedule = Schedule(0.3, decay_steps=20_000, decay="cosine")
    run = features(np.array([20_000]), schedule.learning_rates(), 20_000, 0.3)
    assert run.drops.shape == (1, MAX_DROPS)
    assert run.drops.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", LAWS)
def test_joined_runs_have_the_losses_that_they_have_alone(name):
    parts = [
        features(STEPS, schedule.learning_rates(), 1000, 0.3) for schedule in (CONSTANT, DECAYING)
    ]
    together = LAWS[name].loss(np.array(THETA[name]), joined(parts))
    alone = [losses(name, schedule) for schedule in (CONSTANT, DECAYING)]
    assert together == pytest.approx(np.concatenate(alone))
