import types

import pytest

from budgetflow.studies.run import strategy as module
from budgetflow.studies.run.strategy import WORTH_TIMING_SECONDS, choose_strategy


@pytest.fixture
def timings(monkeypatch):
    """A mesh of four slices; seconds per step by trials at a time; the starts."""
    seconds, started = {}, []
    monkeypatch.setattr(module, "trial_slices", lambda mesh: ("a", "b", "c", "d"))
    monkeypatch.setattr(module, "hardware", lambda mesh: "4 x 1 x 1 cpu")
    monkeypatch.setattr(module, "step_seconds", lambda runs, _: seconds[len(runs)])

    def choose(asked_for=False, total_steps=10**6):
        def start_trial(mesh):
            started.append(mesh)
            return mesh

        return choose_strategy(None, asked_for, total_steps, start_trial)

    return types.SimpleNamespace(seconds=seconds, started=started, choose=choose)


@pytest.mark.parametrize(("side_by_side", "fastest"), [(0.4e-3, 4), (1.1e-3, 1)])
def test_what_is_fastest_is_chosen_and_told(timings, side_by_side, fastest):
    timings.seconds |= {1: 1e-3, 4: side_by_side}
    chosen = timings.choose()
    assert chosen.trials_at_a_time == fastest
    assert chosen.steps_per_second == pytest.approx({"1": 1000.0, "4": 1 / side_by_side})
    assert timings.started == ["a", "b", "c", "d"]


def test_a_short_study_is_not_held_up(timings):
    timings.seconds |= {1: 1e-3}
    chosen = timings.choose(total_steps=int(WORTH_TIMING_SECONDS * 1000) - 1)
    assert chosen.trials_at_a_time == 1 and "20 seconds" in chosen.reason
    assert timings.started == ["a"]


def test_what_the_config_says_holds(timings):
    assert timings.choose(asked_for=True).trials_at_a_time == 4
    assert timings.started == []


def test_an_accelerator_is_not_shared(timings, monkeypatch):
    monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")
    assert timings.choose().trials_at_a_time == 4
    assert timings.started == []
