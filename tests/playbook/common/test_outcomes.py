import dataclasses
import json

import pytest
from test_round_wording import ROUND, SPREAD, cooldowns

from budgetflow.base.import_path import import_object
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.outcomes import (
    NAMED,
    RoundOutcome,
    SeedAnswer,
    SweepOutcome,
    from_json,
)
from budgetflow.playbook.common.reasons import Reason

FOUND = SweepOutcome(
    status="found",
    max_train_steps=37,
    fitted_at_step_bracket=(36, 37),
    best_learning_rate=0.1,
    learning_rates=(0.01, 0.1, 1.0),
    extensions=0,
    regime="not_compute_bound",
    steps_trained=150,
    steps_full_grid=3000,
    diverged=0,
    suggested_max_train_steps=None,
)
DECAYING = Schedule(0.1, 0, 10, 20, "step", drop_steps=(0, 5))
DIAGNOSIS = dataclasses.replace(ROUND.best_step_diagnosis, suggested_schedule=DECAYING)
COMPLETE = {
    "fingerprint": "abc",
    "selection_metric": "error_rate",
    "higher_is_better": False,
}
BEST = {"best_validation": {"error_rate": 0.1}, "best_test": {"error_rate": 0.2}}


def answer(seed, steps):
    status = "found" if steps else "not_fitted"
    return SeedAnswer(seed=seed, status=status, max_train_steps=steps, best_learning_rate=0.1)


@pytest.mark.parametrize(
    "outcome",
    [
        FOUND,
        dataclasses.replace(
            FOUND, **COMPLETE, seeds=(answer(0, 37), answer(1, None)), switched_off=("dropout",)
        ),
        ROUND,
        dataclasses.replace(
            ROUND, **COMPLETE, **BEST, best_step_diagnosis=DIAGNOSIS, decay_spread=SPREAD
        ),
        cooldowns(0.1, None, **{**COMPLETE, **BEST}, transfer={"rule": "constant"}),
    ],
)
def test_an_outcome_comes_back_as_it_was(outcome):
    content = outcome.to_json()
    read = from_json(json.loads(json.dumps(content)))
    # Not a number is equal to nothing.
    assert json.dumps(read.to_json()) == json.dumps(content)
    if outcome is not ROUND:
        assert read == outcome


@pytest.mark.parametrize("name", ["halving", "round"])
def test_an_outcome_that_would_be_read_as_another_class_is_refused(name):
    with pytest.raises(TypeError, match=f"kind = '{name}' should be left out"):
        type("HalvingOutcome", (RoundOutcome,), {"kind": name})


@pytest.mark.parametrize("name", NAMED)
def test_every_name_leads_to_the_class_that_has_it(name):
    assert import_object(NAMED[name], "kind", of_type=type).kind == name


def test_what_only_a_complete_study_knows_is_left_out_until_then():
    complete = set(COMPLETE) | {"switched_off", "best_test", "not_fitted_because"}
    assert not complete & FOUND.to_json().keys()
    # What has a meaning where it is None stays.
    assert ROUND.to_json()["transfer"] is None
    assert FOUND.to_json()["suggested_max_train_steps"] is None


def test_outcomes_of_the_first_version_can_be_read():
    sweep = {
        "kind": "lr_sweep",
        "status": "found",
        "max_train_steps": 37,
        "fitted_at_step_bracket": [36, 37],
        "best_learning_rate": 0.1,
        "learning_rates": [0.01, 0.1, 1.0],
        "extensions": 0,
        "regime": "not_compute_bound",
        "steps_trained": 150,
        "steps_full_grid": 3000,
        "diverged": 0,
        "suggested_max_train_steps": None,
        "reasons": [],
        "fingerprint": "abc",
        "switched_off": [],
    }
    read = from_json(sweep)
    assert isinstance(read, SweepOutcome)
    assert (read.best_trial, read.seeds, read.selection_metric) == (None, (), None)
    diagnosis = {
        "verdict": "about_right",
        "share_in_first_10_percent": 0.0,
        "share_in_last_25_percent": 0.0,
        "suggested_max_train_steps": 1000,
        "trials": 3,
        "in_first_10_percent": 0,
        "in_last_25_percent": 0,
        "caveats": [],
        "means": "It means.",
    }
    old = {name: value for name, value in ROUND.to_json().items() if name != "decay_spread"}
    read = from_json({**old, "best_step_diagnosis": diagnosis})
    assert isinstance(read, RoundOutcome)
    assert read.best_step_diagnosis.hopeless_trials == ()
    assert read.decay_spread is None


def test_what_a_later_version_added_is_left_out():
    assert from_json({**FOUND.to_json(), "added_later": 1}) == FOUND


def test_what_a_sweep_with_stop_hopeless_wrote_can_be_read():
    lag = {"trial": 0, "learning_rate": 0.1, "step": 40, "loss": 0.95, "leader": 1}
    assert from_json({**FOUND.to_json(), "set_aside": [{**lag, "leader_step": 10}]}) == FOUND


def test_warnings_are_told_by_their_type_and_come_back_from_a_file():
    calm, warning = Reason("MNIST is not loud."), Reason("This is.", loud=True)
    outcome = dataclasses.replace(FOUND, reasons=("Plain text.", calm)).with_reasons([warning])
    assert [reason.loud for reason in outcome.reasons] == [False, False, True]
    content = outcome.to_json()
    assert content["reasons"] == ["Plain text.", "MNIST is not loud.", "This is."]
    assert content["loud_reasons"] == [2]
    assert from_json(content) == outcome


def test_warnings_of_older_folders_are_told_by_their_capitals():
    told = [{"reasons": [text], "kind": "lr_sweep"} for text in ("THE BEST IS", "The best is")]
    read = [from_json({**FOUND.to_json(), **content}) for content in told]
    assert [outcome.reasons[0].loud for outcome in read] == [True, False]
    assert all("loud_reasons" not in outcome.to_json() for outcome in read)


def test_a_sweep_may_end_without_an_answer():
    assert FOUND.has_answer
    assert ROUND.has_answer
    assert not dataclasses.replace(FOUND, status="at_boundary").has_answer
