import pytest

from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import read_json, write_json
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.studies.store.trial import TrialRecord, read_trials, write_trial


def test_a_record_set_back_keeps_the_fit_only_if_it_came_before():
    rows = tuple({"step": s, "validation_loss": 1 / s, "train_loss": 1.0} for s in (10, 20, 30))
    record = TrialRecord(
        trial=0,
        hyperparameters={},
        schedule=Schedule(0.1, constant_steps=30),
        seed=0,
        max_train_steps=30,
        step=30,
        fitted_at_step_bracket=(17, 18),
        rows=rows,
    )
    for step, bracket, best in ((30, (17, 18), 30), (20, (17, 18), 20), (10, None, 10)):
        earlier = record.back_to(step, Selection("validation_loss"))
        assert earlier.step == earlier.best_step == best
        assert earlier.fitted_at_step_bracket == bracket
        assert [row["step"] for row in earlier.rows] == [s for s in (10, 20, 30) if s <= step]


def test_a_record_comes_back_as_it_was_whatever_a_later_version_added(tmp_path):
    record = TrialRecord(
        trial=3,
        hyperparameters={"optimizer.momentum": 0.9, "model.hidden_sizes": (32, 16)},
        schedule=Schedule(0.1, 0, 10, 20, "step", drop_steps=(0, 5)),
        seed=1,
        max_train_steps=30,
        reuse_key={"seed": 1, "devices": {"kind": "some"}},
        status="running",
        step=10,
        best_step=10,
        not_reused_because="they differ in seed",
        rows=({"step": 10, "validation_loss": 0.5},),
    )
    write_trial(tmp_path, record)
    assert read_trials(tmp_path) == [record]
    path = tmp_path / "trials" / "0003" / "trial.json"
    content = read_json(path)
    write_json(path, {**content, "added_later": {"a": 1}})
    assert read_trials(tmp_path) == [record]
    del content["schedule"]
    write_json(path, content)
    with pytest.raises(DamagedFileError, match=r"trial\.json is damaged"):
        read_trials(tmp_path)


def test_a_trial_that_begins_anew_has_none_of_what_it_had_measured(tmp_path):
    record = TrialRecord(0, {}, Schedule(0.1, 0, 30), 0, 30, step=10, rows=({"step": 10},))
    write_trial(tmp_path, record)
    anew = record.back_to(0, Selection("validation_loss"))
    write_trial(tmp_path, anew)
    assert read_trials(tmp_path) == [anew]
    assert anew.rows == ()
