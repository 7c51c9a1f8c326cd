"""The trials of a derived round, before any config is filled in."""

import dataclasses

import pytest
from conftest import trial_record

from budgetflow.config import choices, log_uniform
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.transfer import NoTransferRuleError
from budgetflow.playbook.derived.search_space import derive
from budgetflow.playbook.derived.trials import next_trials, seed_values

SELECTION = Selection("validation_loss")
RATE, DECAY = "schedule.base_learning_rate", "schedule.decay_fraction"
SPACE = (log_uniform(RATE, 0.01, 1.0), choices(DECAY, 0.2, 0.4))


def record(number, rate, decay, loss, **setting):
    """A complete trial of 100 steps."""
    schedule = Schedule(rate, 5, 95 - decay, decay, "linear")
    rows = [{"step": s, "validation_loss": loss * 100 / s} for s in range(10, 101, 10)]
    return trial_record(
        number, schedule, rows, hyperparameters={RATE: rate, DECAY: decay / 100, **setting}
    )


RECORDS = {
    r.trial: r
    for r in (
        record(0, 0.1, 20, loss=1.1),
        record(1, 0.2, 40, loss=1.0),
        record(2, 0.5, 20, loss=1.2),
        record(3, 0.2, 40, loss=1.05, seed=8),
    )
}


def trials(records=RECORDS, length=400, **options):
    derivation = derive(SPACE, list(records.values()), SELECTION, {}, max_train_steps=length)
    options = {"reruns": 1, "seeds": 2, "points": 4, "seed": 7} | options
    return list(next_trials(derivation, records, SELECTION, max_train_steps=length, **options))


def test_the_best_and_a_re_run_come_first_in_every_seed_then_points():
    found = trials()
    assert [t.role for t in found] == ["best"] * 2 + ["rerun"] * 2 + ["point"] * 4
    best = {RATE: 0.2, DECAY: 0.4}
    assert [t.hyperparameters for t in found[:2]] == [best, best | {"seed": 8}]
    assert [t.promoted_from and t.promoted_from.trial for t in found] == [1, 3, 0] + [None] * 5
    assert all(t.schedule.total_steps == 400 for t in found)


def test_schedules_are_carried_over_and_points_have_their_own():
    best, _, rerun, _, *points = trials()
    assert best.schedule == Schedule(0.2, 5, 355, 40, "linear") == best.transfer.after
    assert rerun.schedule == Schedule(0.1, 5, 375, 20, "linear")
    assert {p.transfer.before for p in points} == {RECORDS[1].schedule}
    for point in points:
        assert point.schedule.base_learning_rate == point.hyperparameters[RATE]
        assert point.schedule.decay_steps == point.hyperparameters[DECAY] * 400
        assert point.schedule.warmup_steps == 5
    assert {p.schedule.base_learning_rate for p in points} > {0.1, 0.4}


def test_a_decay_in_steps_and_none_at_all():
    space = (choices("schedule.decay_steps", 20, 40),)
    records = {
        n: dataclasses.replace(r, hyperparameters={"schedule.decay_steps": r.schedule.decay_steps})
        for n, r in RECORDS.items()
        if n in (0, 1)
    }
    derivation = derive(space, list(records.values()), SELECTION, {}, max_train_steps=200)
    options = {"max_train_steps": 200, "reruns": 0, "seeds": 1, "points": 2, "seed": 0}
    best, *points = next_trials(derivation, records, SELECTION, **options)
    assert best.schedule.decay_steps == 40
    assert [p.schedule for p in points] == [
        Schedule(0.2, 5, 115, 80, "linear"),
        Schedule(0.2, 5, 175, 20, "linear"),
    ]


def test_a_schedule_without_a_rule_is_refused():
    schedule = Schedule(0.1, 10, 0, 90, "inverse_sqrt", timescale_steps=10)
    records = {n: dataclasses.replace(r, schedule=schedule) for n, r in RECORDS.items()}
    with pytest.raises(NoTransferRuleError, match="nearest"):
        trials(records)


def test_the_study_s_own_seed_is_no_hyperparameter():
    assert list(seed_values(5, 3)) == [{}, {"seed": 6}, {"seed": 7}]
