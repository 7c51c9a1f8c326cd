from budgetflow.schedules import Schedule
from budgetflow.studies.trial import TrialRecord


def test_a_record_set_back_keeps_the_fit_only_if_it_came_before():
    rows = tuple({"step": s, "validation_loss": 1 / s, "train_loss": 1.0} for s in (10, 20, 30))
    record = TrialRecord(
        trial=0,
        hyperparameters={},
        schedule=Schedule(0.1, constant_steps=30),
        seed=0,
        max_train_steps=30,
        trajectory="",
        step=30,
        fitted_at_step_bracket=(17, 18),
        rows=rows,
    )
    for step, bracket, best in ((30, (17, 18), 30), (20, (17, 18), 20), (10, None, 10)):
        earlier = record.back_to(step, "validation_loss")
        assert earlier.step == earlier.best_step == best
        assert earlier.fitted_at_step_bracket == bracket
        assert [row["step"] for row in earlier.rows] == [s for s in (10, 20, 30) if s <= step]
