import json
import re
from pathlib import Path

import pytest
from conftest import PlannedTrial, assert_as_from_scratch, edited_config, run, trial_record

from budgetflow.base.errors import ConfigError
from budgetflow.config import default_config, load_config_file, parse_config
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.rounds.policy import RoundSettings, cooldowns_outcome
from budgetflow.results import figures
from budgetflow.results.reading import open_study
from budgetflow.results.report.page import render_report
from budgetflow.studies.store.trial import read_trials

METRIC = "validation_loss"
SELECTION = Selection(METRIC)


def view(number, step, value, status="complete", reused=0):
    rows = [{"step": step // 2, METRIC: 9.0}, {"step": step, METRIC: value}]
    return trial_record(number, Schedule(0.1, 0, step), rows, reused, status=status)


def outcome(settings, trials):
    return cooldowns_outcome(settings, trials).to_json()


def test_each_length_has_its_best_trial_and_what_it_gains():
    planned = [PlannedTrial({}, length) for length in (100, 200, 400) * 2]
    settings = RoundSettings(tuple(planned), 400, SELECTION)
    trials = [
        view(0, 100, 2.0), view(1, 200, 1.0, reused=80), view(2, 400, 0.9, reused=160),
        view(3, 100, 1.6), view(4, 200, 1.2, reused=80), view(5, 60, 0.1, "diverged"),
    ]  # fmt: skip
    found = outcome(settings, trials)
    assert found["kind"] == "cooldowns"
    best = [(row["length_steps"], row["best_trial"], row["best_step"]) for row in found["lengths"]]
    assert best == [(100, 3, 100), (200, 1, 200), (400, 2, 400)]
    assert found["lengths"][1]["best_validation"] == {"loss": 1.0}
    assert (found["best_trial"], found["best_validation"]) == (2, {"loss": 0.9})
    assert found["diverged"] == 1
    assert found["steps_trained"] + found["steps_reused"] == 100 + 200 + 400 + 100 + 200 + 60
    assert "A run of 100 steps gives validation loss 1.6." in found["reasons"]
    assert "A run of 200 steps gives 1 (37.5% better) for 2 times the steps." in found["reasons"]
    json.dumps(found, allow_nan=False)


def test_of_a_metric_that_should_be_high_the_highest_is_best_and_a_rise_is_better():
    planned = tuple(PlannedTrial({}, length) for length in (100, 200, 200))
    accuracy = Selection("validation_accuracy", higher_is_better=True)
    trials = [
        trial_record(n, Schedule(0.1, 0, step), [{"step": step, "validation_accuracy": value}])
        for n, (step, value) in enumerate([(100, 0.8), (200, 0.7), (200, 0.84)])
    ]
    found = outcome(RoundSettings(planned, 200, accuracy), trials)
    assert [row["best_trial"] for row in found["lengths"]] == [0, 2]
    assert found["best_validation"] == {"accuracy": 0.84}
    assert "A run of 200 steps gives 0.84 (5.0% better) for 2 times the steps." in found["reasons"]
    lower = outcome(RoundSettings(planned, 200, Selection("validation_accuracy")), trials)
    assert [row["best_trial"] for row in lower["lengths"]] == [0, 1]
    assert "A run of 200 steps gives 0.7 (12.5% better) for 2 times the steps." in lower["reasons"]


def test_where_all_diverge_no_length_gives_anything():
    settings = RoundSettings((PlannedTrial({}, 100), PlannedTrial({}, 200)), 200, SELECTION)
    found = outcome(settings, [view(n, 50, 1.0, "diverged") for n in range(2)])
    assert found["best_trial"] is None
    assert [row["best_validation"] for row in found["lengths"]] == [None, None]


def config_of_lengths(*fractions, **fields):
    config = default_config("cooldowns")
    config.name = "lengths"
    config.max_train_steps = 800
    config.model.hidden_sizes = (16,)
    config.augmentation.shift_pixels = 1.0
    config.schedule.warmup_steps = 5
    config.schedule.decay = "1-sqrt"
    config.schedule.decay_fraction = 0.1
    config.cooldowns.length_fractions = fractions
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


@pytest.fixture(scope="module")
def doubling(tmp_path_factory):
    """Lengths 1, 2, 4 and 8 with decays of 10 % of each."""
    folder = tmp_path_factory.mktemp("doubling")
    config = config_of_lengths(0.125, 0.25, 0.5, 1.0)
    _, output = run(config, folder)
    return folder / "lengths", parse_config(config), output


def test_doubling_trains_at_least_40_percent_fewer_steps(doubling):
    folder, _, output = doubling
    found = json.loads((folder / "outcome.json").read_text())
    from_scratch = 100 + 200 + 400 + 800
    assert found["steps_trained"] + found["steps_reused"] == from_scratch
    # The trunk of the longest and the decays.
    assert found["steps_trained"] == 720 + 80 + 40 + 20 + 10
    assert found["steps_reused"] >= 0.4 * from_scratch
    assert [row["length_steps"] for row in found["lengths"]] == [100, 200, 400, 800]
    assert "Best validation error rate by length: 100 steps: " in output


def test_every_length_is_the_run_from_scratch(doubling, digits):
    folder, config, _ = doubling
    assert [r.max_train_steps for r in read_trials(folder)] == [100, 200, 400, 800]
    assert all(len(record.rows) >= 40 for record in read_trials(folder))
    assert_as_from_scratch(folder, config, digits)


def test_the_report_shows_what_each_length_gives(doubling):
    study = open_study(doubling[0])
    html = render_report(study)
    assert "What does each length give?" in html
    chart = figures.lengths(study).spec
    assert sorted(row["length"] for row in chart["datasets"]["trials"]) == [100, 200, 400, 800]
    (line,) = (part for part in chart["concat"][0]["layer"] if part["mark"]["type"] == "line")
    assert line["transform"] == [{"filter": {"field": "trial", "oneOf": [0, 1, 2, 3]}}]
    frame = study.to_pandas()
    assert list(frame["steps_reused"]) == [0, 90, 180, 360]


def test_a_round_can_promote_the_best_of_them(doubling, tmp_path):
    first = tmp_path / "lengths.py"
    first.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from test_cooldowns import config_of_lengths\n"
        "def get_config():\n"
        "    return config_of_lengths(0.125, 0.25, 0.5, 1.0)\n"
    )
    config = default_config("round")
    for name in ("model", "augmentation"):
        config[name] = load_config_file(first)[name]
    config.name = "final"
    config.builds_on = str(first)
    config.max_train_steps_factor = 1.25
    config.search.promote_trials = 1
    found, _ = run(config, doubling[0].parent)
    assert found["max_train_steps"] == 1000
    assert found["steps_reused"] == 720


@pytest.mark.parametrize(
    ("fractions", "fields", "message"),
    [
        ((0.5, 0.25, 1.0), {}, "should ascend"),
        ((0.25, 0.5), {}, "should ascend"),
        ((), {}, "should ascend"),
        ((0.0, 1.0), {}, "should ascend"),
        ((0.5, 1.0), {"schedule__warmup_steps": None, "schedule__warmup_fraction": 0.1},
         "set warmup_steps"),
        ((0.5, 1.0), {"schedule__decay": "none", "schedule__decay_fraction": None},
         "decays after a constant period"),
        ((0.5, 1.0), {"schedule__decay_fraction": 1.0, "schedule__warmup_steps": 0},
         "decays after a constant period"),
        ((0.005, 1.0), {}, "are longer than the run"),
    ],
)  # fmt: skip
def test_lengths_that_share_no_trunk_are_refused(tmp_path, fractions, fields, message):
    with pytest.raises(ConfigError, match=message):
        run(config_of_lengths(*fractions, **fields), tmp_path)
    assert not list(tmp_path.iterdir())


def test_rounds_that_double_by_the_rule_train_at_least_40_percent_fewer_steps(tmp_path):
    """The same lengths as a chain of rounds, each of which continues the one before."""
    steps = {"trained": 0, "reused": 0}
    before = None
    for factor in (1, 2, 4, 8):
        path = tmp_path / f"times_{factor}.py"
        start = "default_config('round')" if before is None else f"building_on({before!r}, 'round')"
        own = (
            "    config.schedule.decay = 'linear'\n    config.schedule.decay_fraction = 0.1\n"
            "    config.model.hidden_sizes = (16,)\n"
            if before is None
            else "    config.search.promote_trials = 1\n"
        )
        path.write_text(
            "from budgetflow.config import building_on, default_config\n"
            "def get_config():\n"
            f"    config = {start}\n    config.max_train_steps = {100 * factor}\n{own}"
            "    return config\n"
        )
        before = str(path)
    run(load_config_file(before), tmp_path)
    for factor in (1, 2, 4, 8):
        found = json.loads((tmp_path / f"times_{factor}" / "outcome.json").read_text())
        steps["trained"] += found["steps_trained"]
        steps["reused"] += found["steps_reused"]
    assert steps["trained"] + steps["reused"] == 1500
    assert steps["reused"] >= 0.4 * 1500


def test_the_config_that_ships_begins_at_the_length_of_round1(completed_workdir):
    found, output = run(edited_config("cooldowns"), completed_workdir, dry_run=True)
    length = open_study(completed_workdir / "round1").outcome["max_train_steps"]
    assert found is None and f"{length}, {2 * length}, {4 * length}" in output
    trained, reused = map(int, re.search(r"(\d+), and (\d+) taken", output).groups())
    assert trained + reused == 7 * length and reused >= 0.4 * 7 * length
