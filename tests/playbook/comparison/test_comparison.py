"""The policy of a comparison on simulated trials, and the kind of study end to end."""

import dataclasses
import math

import numpy as np
import pytest
from conftest import run, trial_record
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.base.errors import ConfigError
from budgetflow.config import default_config
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import LEARNING_RATE, SEED, Add, Advance
from budgetflow.playbook.common.outcomes import from_json
from budgetflow.playbook.comparison.policy import decide, steps_factor
from budgetflow.playbook.sweep.race import CHANGED, SweepSettings
from budgetflow.results.reading import open_study
from budgetflow.studies.kinds import parse_study

RATES = (0.001, 0.01, 0.1, 1.0)


def compare(fits_at, seeds=(0, 1, 2), most=2000, train_loss=None):
    """The outcome of a comparison whose trials fit at ``fits_at(changed, seed, rate)``.

    With a training loss to reach, the loss falls like 1 / step, to that loss at that step.
    """
    race = SweepSettings(
        RATES, most, 2, 1000, 20, fitted_train_loss=train_loss, refine=None, seeds=seeds
    )
    sides = [
        {CHANGED: changed, "data.batch_size": size, SEED: seeds[0]}
        for changed, size in ((False, 128), (True, 32))
    ]
    trials = {}

    def advanced(trial, to_step):
        step = fits_at(*(trial.hyperparameters[key] for key in (CHANGED, SEED, LEARNING_RATE)))
        bracket = trial.fitted_at_step_bracket
        loss = (train_loss or 1.0) * step / to_step
        if bracket is None and (step <= to_step if train_loss is None else loss < train_loss):
            bracket = (step - 1, step) if train_loss is None else (trial.step, to_step)
        row = {"step": to_step, "train_loss": loss}
        return dataclasses.replace(
            trial, step=to_step, rows=(*trial.rows, row), fitted_at_step_bracket=bracket
        )

    for _ in range(5000):
        decision = decide(race, sides, [trials[number] for number in sorted(trials)])
        if isinstance(decision, Add):
            for number, values in decision.trials.items():
                assert number not in trials
                schedule = Schedule(values[LEARNING_RATE], constant_steps=most)
                trials[number] = trial_record(
                    number, schedule, hyperparameters=values, status="running"
                )
        elif isinstance(decision, Advance):
            for number in decision.trials:
                assert trials[number].step < decision.to_step <= most
                trials[number] = advanced(trials[number], decision.to_step)
        else:
            return decision.outcome
    raise AssertionError("the comparison does not end")


def valley(steps, best):
    """Steps to fit over learning rates, fewest at the best one."""
    return lambda rate: round(steps * 1.5 ** abs(math.log10(rate / best)))


def test_each_side_is_taken_at_its_own_best_learning_rate():
    def fits_at(changed, seed, rate):
        steps = (100, 110, 90)[seed]
        return valley(3 * steps, 0.01)(rate) if changed else valley(steps, 0.1)(rate)

    found = compare(fits_at)
    assert found.status == "measured" and found.has_answer
    assert [one.steps for one in found.unchanged.seeds] == [100, 110, 90]
    assert [one.steps for one in found.changed.seeds] == [300, 330, 270]
    assert {one.learning_rate for one in found.unchanged.seeds} == {0.1}
    assert {one.learning_rate for one in found.changed.seeds} == {0.01}
    assert found.steps_factor == pytest.approx(3) and found.direction == "more"
    assert found.changed.median_steps == 300
    # At one common learning rate, 0.1, the factor would have been 4.5.
    assert found.best_trial == found.unchanged.seeds[2].trial


def test_other_seeds_race_around_the_best_learning_rate_only():
    found = compare(lambda changed, seed, rate: valley(100 + seed, 0.1)(rate))
    # No more than the fastest of each race needs, with what the lockstep adds.
    assert found.steps_trained < 2 * (len(RATES) + 2 * 3) * 120


@pytest.mark.parametrize("failing", [False, True])
def test_a_side_that_never_gets_there_gives_no_factor(failing):
    found = compare(lambda changed, seed, rate: 5000 if changed == failing else 100)
    assert (found.status, found.steps_factor, found.direction) == ("cannot_be_told", None, None)
    sides = {False: found.unchanged, True: found.changed}
    # No other seed is raced for nothing.
    assert [one.status for one in sides[failing].seeds] == ["not_fitted"]
    assert sides[failing].median_steps is None
    ratio = f"ratio is {'above' if failing else 'below'}"
    assert any(ratio in reason.text for reason in found.reasons)


def test_a_single_seed_that_does_not_get_there_gives_no_factor():
    found = compare(lambda changed, seed, rate: 5000 if changed and seed == 2 else 100)
    assert found.status == "cannot_be_told" and found.steps_factor is None
    assert [one.steps for one in found.changed.seeds] == [100, 100, None]


def test_the_boundary_of_the_grid_gives_no_factor():
    found = compare(lambda changed, seed, rate: round(100 / rate**0.1) if changed else 100)
    assert found.status == "cannot_be_told"
    assert [one.status for one in found.changed.seeds] == ["at_boundary"]
    assert any("config.comparison.learning_rates" in reason.text for reason in found.reasons)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_fewer_than_three_seeds_give_no_factor(seeds):
    found = compare(lambda changed, seed, rate: valley(100, 0.1)(rate), seeds=seeds)
    assert (found.status, found.steps_factor) == ("cannot_be_told", None)
    assert any("config.comparison.seeds = 3" in reason.text for reason in found.reasons)


def test_a_training_loss_is_crossed_between_evaluations():
    fits = {(False, 0.1): 403, (True, 0.1): 806}
    found = compare(lambda changed, seed, rate: fits.get((changed, rate), 1500), train_loss=0.3)
    # The evaluations are up to 50 steps apart there.
    assert found.unchanged.seeds[0].steps == pytest.approx(403, abs=2)
    assert found.changed.seeds[0].steps == pytest.approx(806, abs=2)
    assert found.steps_factor == pytest.approx(2, rel=0.01)


def test_before_the_first_evaluation_nobody_knows_the_step():
    found = compare(lambda changed, seed, rate: 4 if changed else 100 + seed, train_loss=0.3)
    assert [one.status for one in found.changed.seeds] == ["too_early"] * 3
    assert found.status == "cannot_be_told" and found.steps_factor is None
    assert any("before the first evaluation" in reason.text for reason in found.reasons)


def test_the_interval_is_students_t_on_logarithms():
    found = steps_factor([2.0, 2.5, 3.0])
    logs = np.log([2.0, 2.5, 3.0])
    half = 4.3027 * logs.std(ddof=1) / math.sqrt(3)
    assert found.factor == pytest.approx(math.exp(logs.mean()))
    assert found.low == pytest.approx(math.exp(logs.mean() - half), rel=1e-4)
    assert found.high == pytest.approx(math.exp(logs.mean() + half), rel=1e-4)


@settings(max_examples=5)
@given(st.integers(3, 6), st.floats(0.01, 0.5), st.integers(0, 2**32 - 1))
def test_a_change_that_does_nothing_is_rarely_said_to_do_something(seeds, noise, start):
    generator, wrong, times = np.random.default_rng(start), 0, 500
    for _ in range(times):
        wrong += steps_factor(np.exp(noise * generator.normal(size=seeds))).direction is not None
    # 5 %, and what 500 comparisons can differ from it (four standard errors).
    assert wrong / times < 0.05 + 4 * math.sqrt(0.05 * 0.95 / times)


def config_of_batches(**fields):
    config = default_config("comparison")
    config.name = "compared"
    config.max_train_steps = 600
    config.data.batch_size = 128
    config.data.train_split = "train[:200]"
    config.model.hidden_sizes = (32,)
    config.mesh.trial = 1
    config.comparison.changes = (("data.batch_size", 16),)
    config.comparison.learning_rates = (0.03, 0.1, 0.3)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def test_batch_sizes_from_end_to_end(tmp_path):
    outcome, output = run(config_of_batches(comparison__refine=None), tmp_path)
    assert outcome["status"] == "measured" and outcome["direction"] == "more"
    assert outcome["steps_factor_low"] > 1
    study = open_study(tmp_path / "compared")
    assert study.found.to_json() == outcome and from_json(outcome) == study.found
    assert "compared: data.batch_size = 16 instead of 128 takes" in output
    by_number = {trial.record.trial: trial.record for trial in study.trials}
    for side, batch_size in ((study.found.unchanged, 128), (study.found.changed, 16)):
        assert side.noise_scale.examples > 0 and len(side.noise_scale.points) == 15
        for one in side.seeds:
            record = by_number[one.trial]
            assert record.hyperparameters["data.batch_size"] == batch_size
            assert (record.seed, record.fitted_at_step) == (one.seed, one.steps)
            # Batches of the trial's own size were trained on.
            assert record.reuse_key["data"]["batch_size"] == batch_size
    assert outcome["predicted_steps_factor"] > 1
    report = (study.folder / "report.html").read_text()
    assert "How many steps does each side take?" in report and "factor it predicts" in report
    # Killed before its end, it ends the same; what it measures anew is deterministic.
    (study.folder / "outcome.json").unlink()
    assert run(config_of_batches(comparison__refine=None), tmp_path)[0] == outcome


def test_a_training_loss_and_another_optimizer(tmp_path):
    config = config_of_batches(
        comparison__changes=(("optimizer.name", "adam"), ("optimizer.b1", 0.8)),
        comparison__train_loss=0.05,
        comparison__seeds=1,
        comparison__learning_rates=(0.001, 0.01, 0.1, 1.0),
    )
    outcome, output = run(config, tmp_path)
    # The momentum of sgd is no argument of adam.
    assert outcome["status"] == "cannot_be_told" and "1 seed says nothing" in output
    (one,) = outcome["changed"]["seeds"]
    losses = {
        row["step"]: row["train_loss"]
        for row in open_study(tmp_path / "compared").trials[one["trial"]].record.rows
    }
    before = max(step for step in losses if step < one["steps"])
    after = min(step for step in losses if step >= one["steps"])
    assert losses[after] < 0.05 <= losses[before]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((), "changes is empty"),
        ((("data.batch_size", 128),), "changes nothing"),
        ((("data.batch_size", 0),), "data.batch_size = 0: should be greater than 0"),
        ((("data.batch_size", 16), ("data.batch_size", 32)), "twice"),
        ((("data.name", "mnist"),), "'data.name' cannot differ"),
        ((("data.batchsize", 16),), "'data.batch_size'"),
        ((("task.name", "a.b"),), "'task.name' cannot differ"),
        ((("seed", 1),), "'seed' cannot differ"),
        ((("schedule.decay", "linear"),), "'schedule.decay' cannot differ"),
        ((("regularization.dropout_rate", 2.0),), "dropout_rate = 2.0: should"),
        ((("precision", "float16"),), "precision = 'float16': should"),
        ((("gradient_accumulation", 3),), "does not divide"),
        ((("model.name", ""),), "should"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_study(config_of_batches(comparison__changes=changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((("data.batch_size", 500),), "batch_size = 500 is larger than the training split"),
        ((("model.hiden_sizes", (8,)),), "'hidden_sizes'"),
        ((("regularization.droput_rate", 0.1),), "'dropout_rate'"),
    ],
)
def test_the_changed_side_is_checked_before_anything_runs(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(config_of_batches(comparison__changes=changes), tmp_path)
    assert not any(tmp_path.iterdir())


def test_nothing_builds_on_a_comparison(tmp_path):
    (tmp_path / "compared.py").write_text(
        "from test_comparison import config_of_batches\n"
        "def get_config():\n    return config_of_batches()\n"
    )
    config = default_config("round")
    config.name, config.builds_on = "after", str(tmp_path / "compared.py")
    with pytest.raises(ConfigError, match="compared is a comparison, which finds a factor"):
        run(config, tmp_path)


def test_a_task_without_a_perfect_fit_needs_a_training_loss():
    from test_own_parts import config_of_own_parts

    config = config_of_own_parts("comparison")
    config.comparison.changes = (("data.batch_size", 10),)
    with pytest.raises(ConfigError, match=r"config\.comparison\.train_loss is missing"):
        parse_study(config)
    config.comparison.train_loss = 0.1
    parse_study(config)
