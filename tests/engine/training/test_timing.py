import time

import jax
import pytest
from conftest import run, small_config, start_trial

from budgetflow.config import choices, default_config
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.training.timing import Profiler, Stopwatch
from budgetflow.results.reading import open_study
from budgetflow.studies.run.completion import timing


def test_compiling_is_an_activity_of_its_own():
    stopwatch = Stopwatch()
    with stopwatch("resting"):
        time.sleep(0.05)
    with stopwatch("training"):
        jax.jit(lambda x: x * 3.25 + 1)(2.0)
    with stopwatch("training"):
        pass
    assert stopwatch.seconds["resting"] >= 0.05
    assert stopwatch.seconds["compiling"] > 0
    total = Stopwatch()
    total.add(stopwatch)
    total.add(stopwatch, 0.5)
    assert total.seconds["resting"] == pytest.approx(1.5 * stopwatch.seconds["resting"])
    with total("training"), total.part_of("training", "data"):
        time.sleep(0.02)
    assert total.seconds["data"] >= 0.02
    assert total.seconds["training"] < 1.5 * stopwatch.seconds["training"] + 0.01


def test_a_run_says_where_its_time_went(digits):
    trial = start_trial(digits, small_config(), Schedule(0.1, constant_steps=40))
    trial.advance(40)
    assert trial.stopwatch.seconds.keys() == {"data", "training", "evaluation", "compiling"}


@pytest.mark.parametrize(("steps", "stops"), [((3, 7), [7, 20]), ((0, 40), [20, 40])])
def test_a_trace_changes_nothing(digits, tmp_path, steps, stops):
    schedule = Schedule(0.1, constant_steps=40)
    traced, plain = (start_trial(digits, small_config(), schedule) for _ in range(2))
    traced.profiler = Profiler(str(tmp_path / "profile"), steps)
    for stop in stops:
        assert traced.advance(stop) == plain.advance(stop)
    assert list(tmp_path.rglob("perfetto_trace.json.gz"))


def test_a_trace_that_never_began_is_not_ended():
    Profiler().stop()
    Profiler("nowhere", (100, 110)).stop()


def test_a_study_records_how_fast_it_trained(tmp_path):
    config = default_config("round")
    config.name = "timed"
    config.max_train_steps = 20
    config.search.space = (choices("optimizer.momentum", 0.8, 0.9),)
    config.search.method = "grid"
    _, output = run(config, tmp_path)
    assert "steps/s" in output and "examples/s" in output and "compiling" in output
    timing = open_study(tmp_path / "timed").timing
    assert timing["steps_trained"] == 40
    assert timing["examples_per_second"] == pytest.approx(64 * timing["steps_per_second"])
    assert sum(timing["share_of_time"].values()) == pytest.approx(1)


def test_a_process_that_trained_nothing_has_its_times_too():
    found = timing(100, 6400, 2.0, Stopwatch())
    assert found["steps_per_second"] == 50 and found["share_of_time"] == {"other": 1.0}
