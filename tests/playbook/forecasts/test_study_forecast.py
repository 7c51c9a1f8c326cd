import dataclasses
import math

import numpy as np
import pytest
from conftest import trial_record
from test_forecast import THETA, true_losses

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.transfer import transfer
from budgetflow.playbook.forecasts.study_forecast import (
    LOSS,
    carried_trial,
    outlook,
    study_forecast,
)

SELECTION = Selection("validation_error_rate")
KEY = {"model": {"width": 64}, "seed": 0}
LINEAR = Schedule(0.1, warmup_steps=100, constant_steps=1400, decay_steps=500, decay="linear")


def trial(number, schedule=LINEAR, loss=None, metric=lambda loss: 0.2 * loss, seed=0, **fields):
    """A trial whose losses follow a law, or a function of step and that law's loss."""
    steps = np.arange(50, schedule.total_steps + 1, 50)
    draws = np.random.default_rng(number).standard_normal(len(steps))
    losses = true_losses(schedule, steps, THETA) * np.exp(0.001 * draws)
    if loss is not None:
        losses = [loss(step, value) for step, value in zip(steps, losses, strict=True)]
    rows = [
        {"step": int(step), LOSS: float(value), "validation_error_rate": metric(float(value))}
        for step, value in zip(steps, losses, strict=True)
    ]
    return trial_record(number, schedule, rows, **{"reuse_key": KEY, **fields})


def with_base(rate):
    return dataclasses.replace(LINEAR, base_learning_rate=rate)


def test_a_longer_run_is_forecast_by_the_schedule_carried_over():
    trials = [trial(0), trial(1, with_base(0.08), lambda step, loss: 1.01 * loss)]
    found = study_forecast(trials, SELECTION, [4000, 8000])
    assert (found.trial, found.curves) == (0, (0, 1))
    assert found.loss == trials[0].rows[-1][LOSS]
    for run in found.longer:
        schedule = transfer(LINEAR, run.length_steps).after
        came = float(true_losses(schedule, [run.length_steps])[0])
        assert run.schedule == schedule
        assert run.loss.low < came < run.loss.high
        assert run.loss.value == pytest.approx(came, rel=0.02)
        assert run.gain.value == pytest.approx(found.loss - run.loss.value)
        assert run.gain.low < run.gain.value < run.gain.high
        assert run.metric.value == pytest.approx(0.2 * run.loss.value, rel=1e-3)
        # All but the decay is shared with the trial itself.
        assert run.steps_to_train == run.length_steps - 1500
    assert [end.length_steps for end in found.ends] == sorted({e.length_steps for e in found.ends})
    assert found.ends[0].length_steps == 2000 and found.ends[-1].length_steps == 10_000


def test_the_same_trials_give_the_same_forecast():
    trials = [trial(0), trial(1, with_base(0.08))]
    assert study_forecast(trials, SELECTION, [4000]) == study_forecast(trials, SELECTION, [4000])


@pytest.mark.parametrize(
    "other",
    [
        {"reuse_key": {**KEY, "seed": 1}},
        {"reuse_key": {**KEY, "weight_decay": 0.1}},
        {"reuse_key": {}},
        {"measurement_key": {"validation": "other data"}},
        {"schedule": with_base(0.01)},
        {"status": "diverged"},
    ],
)
def test_what_is_another_setting_does_not_count(other):
    best = trial(0)
    assert [t.trial for t in outlook([best, trial(1)], best, SELECTION).curves] == [0, 1]
    assert [t.trial for t in outlook([best, trial(1, **other)], best, SELECTION).curves] == [0]


def test_a_setting_of_which_nothing_is_known_is_alone():
    trials = [trial(0, reuse_key={}), trial(1, reuse_key={})]
    assert [t.trial for t in outlook(trials, trials[0], SELECTION).curves] == [0]


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (lambda step, loss: -loss, "above 0"),
        (lambda step, loss: 0.0 if step == 1000 else loss, "above 0"),
        (lambda step, loss: math.nan if step == 1000 else loss, "not always finite"),
        (lambda step, loss: loss * (1 + max(0, step - 1000) / 4000), "rises again"),
        (lambda step, loss: loss * math.exp(-step / 250), "says nothing|no law"),
    ],
)
def test_where_no_law_holds_there_is_no_figure(loss, why):
    found = study_forecast([trial(0, loss=loss)], SELECTION, [4000])
    (run,) = found.longer
    assert run.loss is None and run.gain is None and run.metric is None
    assert any(word in run.cannot_tell for word in why.split("|")), run.cannot_tell
    assert not found.ends and found.worth_until_steps is None and found.not_told_because


@pytest.mark.parametrize(("ends_at", "is_told"), [(0.95, True), (0.8, False), (0.01, False)])
def test_where_the_training_loss_leaves_the_validation_loss_behind_there_is_no_figure(
    ends_at, is_told
):
    alone = trial(0)
    rows = tuple(
        {**row, "train_loss": 0.7 * row[LOSS] * ends_at ** (row["step"] / 2000)}
        for row in alone.rows
    )
    (run,) = study_forecast([dataclasses.replace(alone, rows=rows)], SELECTION, [4000]).longer
    assert (run.loss is not None) == is_told
    assert is_told or "an overfit has begun" in run.cannot_tell


def test_without_a_validation_loss_or_enough_of_it_there_is_no_figure():
    bare = trial_record(0, LINEAR, [{"step": 2000, "validation_error_rate": 0.1}])
    (run,) = study_forecast([bare], SELECTION, [4000]).longer
    assert "measures no loss" in run.cannot_tell
    few = trial(0)
    few = dataclasses.replace(few, rows=few.rows[::8])
    (run,) = study_forecast([few], SELECTION, [4000]).longer
    assert "fewer than 12 evaluations" in run.cannot_tell


def test_without_a_rule_for_the_schedule_or_within_reach_there_is_no_figure():
    found = study_forecast([trial(0)], SELECTION, [4000, 20_000])
    assert found.at(4000).loss and "times the longest" in found.at(20_000).cannot_tell
    root = Schedule(0.1, warmup_steps=100, decay_steps=1900, decay="inverse_sqrt")
    (run,) = study_forecast([trial(0, root)], SELECTION, [4000]).longer
    assert run.schedule is None and "rule" in run.cannot_tell


def test_a_metric_may_be_higher_when_better_or_not_follow_the_loss():
    accuracy = Selection("validation_error_rate", higher_is_better=True)
    rising = trial(0, metric=lambda loss: 1 - 0.2 * loss)
    (run,) = study_forecast([rising], accuracy, [4000]).longer
    assert run.metric.low < 1 - 0.2 * run.loss.value < run.metric.high
    loose = trial(0, metric=lambda loss: 0.1 + 0.1 * ((1000 * loss) % 1))
    (run,) = study_forecast([loose], SELECTION, [4000]).longer
    assert run.loss and run.metric is None and "too loosely" in run.metric_cannot_tell
    (run,) = study_forecast([trial(0)], Selection(LOSS), [4000]).longer
    assert run.loss and run.metric is run.metric_cannot_tell is None


def test_the_setting_is_the_one_that_the_next_round_goes_on_with():
    idea = trial(0, loss=lambda step, loss: 0.5 * loss, role="idea", idea="wider")
    trials = [idea, trial(1), trial(2, status="diverged", loss=lambda step, loss: 0.1 * loss)]
    assert carried_trial(trials, SELECTION).trial == 1
    assert carried_trial([idea], SELECTION).trial == 0
    assert carried_trial([], SELECTION) is None
    assert study_forecast([trials[2]], SELECTION, [4000]) is None


def with_seeds(apart):
    other = trial(
        1,
        loss=lambda step, loss: loss * (1 + apart),
        hyperparameters={"seed": 1},
        reuse_key={**KEY, "seed": 1},
    )
    return study_forecast([trial(0), other], SELECTION, [4000])


def test_how_long_is_worth_it_is_told_by_the_noise_between_seeds():
    alone = study_forecast([trial(0)], SELECTION, [4000])
    assert alone.seed_noise is None and "two seeds" in alone.not_told_because
    loud = with_seeds(0.2)
    assert loud.worth_until_steps == 2000 and loud.seed_noise > 0.1
    quiet = with_seeds(0.0005)
    assert quiet.worth_until_steps is None and "beyond 5000 steps" in quiet.not_told_because
    gain = loud.at(4000).gain.value
    between = with_seeds(math.sqrt(2) * 0.8 * gain / loud.loss)
    assert 2000 < between.worth_until_steps < 5000


def test_receipts_widen_intervals_alike():
    narrow = study_forecast([trial(0)], SELECTION, [4000]).at(4000)
    wide = study_forecast([trial(0)], SELECTION, [4000], 3.0, ["one"]).at(4000)
    assert wide.loss.value == narrow.loss.value
    ratio = math.log(wide.loss.high / wide.loss.value) / math.log(
        narrow.loss.high / narrow.loss.value
    )
    assert ratio == pytest.approx(3.0)
    assert wide.metric.high > narrow.metric.high
