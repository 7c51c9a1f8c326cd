"""Rounds that are derived from an earlier one, and planned ones, end to end."""

import dataclasses
import json
import shutil

import pytest
from conftest import assert_as_from_scratch, run, small_config
from test_chain import rounds_config

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.config import choices
from budgetflow.results.reading import open_study
from budgetflow.studies.store.trial import read_trials


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The folder of two planned rounds with an idea, complete, and what was printed."""
    folder = tmp_path_factory.mktemp("planned")
    _, output = run(rounds_config(), folder)
    return folder, output


@pytest.fixture
def copy(planned, tmp_path):
    return shutil.copytree(planned[0], tmp_path / "runs")


def roles(folder):
    return [record.role for record in read_trials(folder)]


def test_the_second_round_has_the_best_setting_reruns_and_points(planned):
    folder, _ = planned
    first, last = folder / "planned_round1", folder / "planned"
    assert roles(first)[:6] == ["baseline"] * 3 + ["idea"] * 3
    assert set(roles(first)[6:]) == {"point"}
    outcome = open_study(last).outcome
    expected = ["best"] * 3 + ["rerun"] * 3
    promoted = [
        idea["name"] for idea in open_study(first).outcome["ideas"] if idea["status"] == "promoted"
    ]
    expected += ["idea"] * 3 * len(promoted)
    assert roles(last)[: len(expected)] == expected
    assert set(roles(last)[len(expected) :]) <= {"point"}
    # The settings that run again are those of the first round; its ideas are none of them.
    earlier = [r for r in read_trials(first) if r.role == "point"]
    for record in read_trials(last)[:6]:
        setting = {k: v for k, v in record.hyperparameters.items() if k != "seed"}
        assert setting in [other.hyperparameters for other in earlier]
    fields = [row["field"] for row in outcome["carried_over"]]
    assert fields == ["schedule.base_learning_rate", "regularization.weight_decay"]
    held = outcome["held"]
    assert held["settings"] == 2 and held["fewest_seeds"] == held["most_seeds"] == 3
    assert sum(each["trials"] * each["length_steps"] for each in outcome["plan"]) <= 1600
    json.dumps(outcome, allow_nan=False)


def test_what_runs_again_continues_the_earlier_trial_bit_for_bit(planned, digits):
    folder, _ = planned
    records = read_trials(folder / "planned")
    assert records[0].reused_from is not None
    config = dataclasses.replace(small_config(), model={**small_config().model})
    assert config.seed == records[0].seed
    shared = json.loads((folder / "planned" / "config.json").read_text())["config"]
    assert shared["search"]["derive"] is True
    plain = small_config(
        evaluation__evaluations=shared["evaluation"]["evaluations"],
        model__hidden_sizes=tuple(shared["model"]["hidden_sizes"]),
    )
    assert_as_from_scratch(folder / "planned", plain, digits)


def test_the_report_shows_plan_transfer_and_ideas(planned):
    folder, output = planned
    html = (folder / "planned" / "report.html").read_text()
    for text in (
        "The plan",
        "What was carried over from the round before",
        "arlier round&#39;s choice",
    ):
        assert text in html, text
    assert "<h2>Ideas</h2>" in (folder / "planned_round1" / "report.html").read_text()
    assert "trials diverged or had a loss spike" in output or "had a loss spike at an" in output


def test_launching_again_trains_nothing_and_a_changed_tag_is_noticed(copy):
    _, output = run(rounds_config(), copy)
    assert "nothing was trained" in output
    config = rounds_config()
    config.search.space = (
        config.search.space[0],
        choices("regularization.weight_decay", 0.0, 1e-3, tag="very_likely"),
    )
    # The first round is the same; what is derived from it is not.
    with pytest.raises(UserError, match=r"planned holds results .* derived from the earlier round"):
        run(config, copy)


def test_what_becomes_of_a_hyperparameter_can_be_said(copy):
    shutil.rmtree(copy / "planned")
    config = rounds_config()
    config.search.carry = (("regularization.weight_decay", "winner_only"),)
    outcome, _ = run(config, copy)
    row = next(r for r in outcome["carried_over"] if r["field"] == "regularization.weight_decay")
    assert (row["action"], row["overridden"]) == ("winner_only", True)
    tried = {
        r.hyperparameters["regularization.weight_decay"]
        for r in read_trials(copy / "planned")
        if r.role in ("best", "point")
    }
    assert tried == {row["value"]}


@pytest.mark.parametrize(
    ("idea", "message"),
    [
        ({"data": {"name": "mnist"}}, r"config\.ideas\.mine changes 'data\.name', which trials"),
        ({"model": {}}, r"config\.ideas\.mine changes nothing"),
        ({"optimizer": {"momentum": 2.0}}, r"optimizer\.momentum = 2\.0: should"),
        ({"schedule": {"decoy": "linear"}}, r"no field 'decoy'; .*'decay'"),
        ({"max_train_steps": 5}, "max_train_steps"),
    ],
)
def test_ideas_that_cannot_be(idea, message, tmp_path):
    config = rounds_config()
    config.ideas = {"mine": idea}
    with pytest.raises(ConfigError, match=message):
        run(config, tmp_path, dry_run=True)
    assert not list(tmp_path.iterdir())
