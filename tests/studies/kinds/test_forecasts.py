"""Rounds that forecast longer ones, and score what was forecast for them, on real studies."""

import json
import shutil

import pytest
from conftest import run, write_chain

import budgetflow
from budgetflow.base.errors import UserError
from budgetflow.base.files import read_json
from budgetflow.config import load_config_file
from budgetflow.results.report.page import render_report
from budgetflow.studies.store.forecast_ledger import LEDGER, add_to_ledger, read_ledger

FIRST = {
    "max_train_steps": 200,
    "evaluation.evaluations": 40,
    "schedule.base_learning_rate": 0.03,
}
SECOND = {"max_train_steps": 400}


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory):
    """The folder of two rounds, 200 and 400 steps, and what was printed of each."""
    folder = tmp_path_factory.mktemp("rounds")
    config = write_chain(folder, FIRST, SECOND)
    _, first = run(load_config_file(folder / "first.py"), folder)
    before = (folder / "first" / "outcome.json").read_bytes()
    _, second = run(config, folder)
    return folder, before, first, second


def test_the_forecast_is_written_before_the_longer_round_and_scored_by_it(two_rounds):
    folder, before, first, second = two_rounds
    assert (folder / "first" / "outcome.json").read_bytes() == before
    said = json.loads(before)["forecast"]
    assert [run["length_steps"] for run in said["longer"]] == [400, 800]
    # All decays of the one trunk are of the same setting.
    assert sorted(said["curves"]) == [0, 1, 2]
    (receipt,) = read_json(folder / "second" / "outcome.json")["receipts"]
    assert receipt["loss"] == said["longer"][0]["loss"]
    best = budgetflow.open_study(folder / "second").trial(receipt["scored_trial"])
    assert receipt["came"] == best.record.rows[-1]["validation_loss"]
    assert receipt["inside"] == (
        receipt["loss"]["low"] <= receipt["came"] <= receipt["loss"]["high"]
    )
    assert "Four times the steps (800) would bring the validation loss of trial" in first
    assert "Before these 400 steps were run, first forecast a validation loss of" in second
    (row,) = read_ledger(folder).rows
    assert row == receipt


def test_the_diagnosis_says_beside_its_rule_what_twice_the_steps_would_gain(two_rounds):
    outcome = read_json(two_rounds[0] / "first" / "outcome.json")
    means = outcome["best_step_diagnosis"]["means"]
    assert "Twice the steps (400) are expected to lower the validation loss by" in means
    assert means in outcome["reasons"]


@pytest.mark.slow
def test_people_ask_a_study_for_the_same_forecast_or_another(two_rounds):
    study = budgetflow.open_study(two_rounds[0] / "first")
    said = study.found.forecast.at(800)
    assert study.forecast(800) == said
    assert study.forecast(said.schedule) == said
    assert study.forecast(200).loss.value == pytest.approx(study.found.forecast.loss, rel=0.1)
    assert study.forecast(2000).loss is None
    with pytest.raises(UserError, match="a run of 30 steps is shorter than trial"):
        study.forecast(30)


@pytest.mark.slow
def test_a_round_concluded_again_is_the_same_whatever_was_scored_meanwhile(two_rounds, tmp_path):
    folder = shutil.copytree(two_rounds[0], tmp_path / "again")
    other = {**read_ledger(folder).rows[0], "study": "another", "needed": 9.0, "inside": False}
    add_to_ledger(folder, [other], lambda row: row["study"])
    ledger = (folder / LEDGER).read_bytes()
    for name in ("first", "second"):
        before = (folder / name / "outcome.json").read_bytes()
        (folder / name / "outcome.json").unlink()
        run(load_config_file(folder / f"{name}.py"), folder)
        assert (folder / name / "outcome.json").read_bytes() == before
    assert (folder / LEDGER).read_bytes() == ledger


@pytest.mark.slow
def test_a_round_that_begins_later_is_widened_by_what_was_scored_before(two_rounds, tmp_path):
    folder = shutil.copytree(two_rounds[0], tmp_path / "later")
    other = {**read_ledger(folder).rows[0], "study": "another", "needed": 2.0, "inside": False}
    (folder / LEDGER).unlink()
    add_to_ledger(folder, [other], lambda row: row["study"])
    with open(folder / LEDGER, "a") as ledger:
        ledger.write("damaged\n")
    narrow = budgetflow.open_study(folder / "first").found.forecast
    shutil.rmtree(folder / "first")
    run(load_config_file(folder / "first.py"), folder)
    study = budgetflow.open_study(folder / "first")
    wide = study.found.forecast
    assert wide.wider == 2.0 * other["wider"] and len(wide.receipts) == 1
    assert wide.at(400).loss.value == narrow.at(400).loss.value
    assert wide.at(400).loss.high > narrow.at(400).loss.high
    assert study.forecast(400) == wide.at(400)
    assert any("line 2 of" in reason.text for reason in study.found.reasons)
    assert "line 2 of" in render_report(study)


@pytest.mark.slow
def test_another_setting_is_not_scored(tmp_path):
    config = write_chain(tmp_path, FIRST, {**SECOND, "seed": 1})
    run(config, tmp_path)
    second = budgetflow.open_study(tmp_path / "second").found
    assert second.receipts is None and not (tmp_path / LEDGER).exists()
    assert any("none of these trials has the setting" in reason.text for reason in second.reasons)


def test_the_plan_says_what_a_longer_round_would_gain_and_cost(two_rounds):
    _, output = run(load_config_file(two_rounds[0] / "second.py"), two_rounds[0], dry_run=True)
    assert "first: Four times the steps (800) would bring the validation loss of trial" in output
    assert "more steps to train, about" in output and "at this speed" in output


def test_lengths_to_come_are_forecast(tmp_path):
    config = write_chain(tmp_path, FIRST, {"max_train_steps": 600})
    run(config, tmp_path)
    said = budgetflow.open_study(tmp_path / "first").found.forecast
    assert [run.length_steps for run in said.longer] == [400, 600, 800]
    second = budgetflow.open_study(tmp_path / "second")
    assert [receipt.length_steps for receipt in second.found.receipts] == [600]
    page = render_report(second)
    assert "What was forecast for this study" in page and "The ledger of forecasts" in page
    assert "Validation loss by the length of the run" in page


@pytest.mark.slow
def test_cooldowns_score_what_a_round_forecast_for_their_longest_run(tmp_path):
    lengths = {"kind": "cooldowns", "cooldowns.length_fractions": (0.5, 1.0)}
    run(write_chain(tmp_path, FIRST, {**SECOND, **lengths}), tmp_path)
    said = budgetflow.open_study(tmp_path / "first").found.forecast
    second = budgetflow.open_study(tmp_path / "second")
    (receipt,) = second.found.receipts
    assert receipt.length_steps == 400 and receipt.loss == said.at(400).loss
    longest = second.trial(receipt.scored_trial).record
    assert longest.max_train_steps == 400
    assert receipt.came == longest.rows[-1]["validation_loss"]
    assert "What was forecast for this study" in render_report(second)
