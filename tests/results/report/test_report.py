import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from conftest import conclude_again, trial_record
from etils import epath

from budgetflow.base.errors import UserError
from budgetflow.base.files import read_json, write_json
from budgetflow.cli.report import report
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.comparison.outcome import Change, ComparisonOutcome, SeedSteps, Side
from budgetflow.results.provenance import next_step, order_of
from budgetflow.results.reading import open_studies, open_study
from budgetflow.results.report.page import render_report, write_report
from budgetflow.results.report.page_data import page_data, setting, trial_rows
from budgetflow.results.report.panels import panels
from budgetflow.studies.store.trial import read_trials, write_outcome, write_trial

VOID = {"meta", "link", "br", "img", "hr", "input", "path", "circle"}
TRIALS = 500


class Checker(HTMLParser):
    """Checks that elements are nested, and gathers the text and what is referred to."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.references = [], [], []

    def handle_starttag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def island_of(html):
    return json.loads(re.search(r'id="island">(.*?)</script>', html)[1])


def write_many(folder, config):
    """A round under way of many trials, of which some diverged."""
    (folder / "config.json").parent.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": config}))
    names = [dimension["name"] for dimension in config["search"]["space"]]
    for n in range(TRIALS):
        keys = [f"{s}_{m}" for s in ("train", "validation") for m in ("error_rate", "loss")]
        rows = [
            {"step": 25 * k, "learning_rate": 0.1}
            | {key: (n + 1.2345678) / (k * TRIALS) for key in keys}
            for k in range(1, 41)
        ]
        record = trial_record(
            n,
            Schedule(0.1, constant_steps=1000),
            rows,
            hyperparameters={name: 0.01 + (n * 7 % TRIALS) / TRIALS for name in names},
            best_step=1000,
            status="diverged" if n % 9 == 8 else "complete",
        )
        write_trial(folder, record)


@pytest.mark.parametrize("name", ["lr_sweep", "round1", "round2"])
def test_the_report_is_one_file_with_everything_in_it(completed_workdir, name):
    result = open_study(completed_workdir / name)
    html = (completed_workdir / name / "report.html").read_text()
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    # Self-contained: it refers to the reports of other studies and to nothing else.
    others = {f"../{other}/report.html" for other in ("lr_sweep", "round1", "round2")}
    assert set(checker.references) <= {"data:,", *others}
    for reason in result.outcome["reasons"]:
        assert reason in checker.texts
    assert result.outcome["fingerprint"] in checker.texts
    (study,) = island_of(html)["studies"]
    assert [t["trial"] for t in study["trials"]] != [] and study["panels"]
    earlier = {"round1": "../lr_sweep/report.html", "round2": "../round1/report.html"}
    assert name not in earlier or earlier[name] in checker.references


def test_panels_and_table_hold_what_was_measured(completed_workdir):
    study = open_study(completed_workdir / "round1")
    by_number = {each["trial"]: each for each in trial_rows(page_data(study))}
    frame, key = study.to_pandas(), study.selection.key
    for number, row in frame.iterrows():
        assert by_number[number]["metric"] == pytest.approx(row[key], rel=1e-3)
        assert by_number[number]["best_step"] == row["best_step"]
    groups = {n: each["group"] for n, each in by_number.items()}
    diagnosis = study.found.best_step_diagnosis
    assert groups[study.found.best_trial] == "best"
    competing = {n for n, group in groups.items() if group in ("best", "competes")}
    assert competing == set(diagnosis.competing_trials)
    html = render_report(study)
    numbers = [int(n) for n in re.findall(r'data-trial="(\d+)"', html)]
    # The best first, and all of them.
    assert numbers[0] == frame[key].idxmin() and sorted(numbers) == list(frame.index)


def test_what_a_trial_does_not_say_is_as_the_config_has_it(completed_workdir, monkeypatch):
    study = open_study(completed_workdir / "round1")
    first, second, *_ = study.trials

    def with_values(trial, **values):
        record = dataclasses.replace(trial.record, **values)
        return dataclasses.replace(trial, record=record)

    again = {"seed": 1, "optimizer.momentum": 0.5}
    same = {k: v for k, v in first.record.hyperparameters.items() if k not in again}
    two = (
        with_values(first, hyperparameters=same),
        with_values(second, hyperparameters=same | again, seed=1),
    )
    monkeypatch.setitem(study.__dict__, "trials", two)
    of = page_data(study)
    assert set(of.varied) == {"seed", "optimizer.momentum"}
    by_number = {record.trial: record for record in of.records}
    assert setting(study, by_number[first.record.trial], "seed") == 0
    momentum = study.config["optimizer"]["momentum"]
    assert setting(study, by_number[first.record.trial], "optimizer.momentum") == momentum
    (axis,) = (panel for panel in panels(of) if panel.title == "seed")
    assert "nominal" in json.dumps(axis.spec)  # a name, not a quantity


@pytest.fixture
def comparison_folder(workdir):
    """A sweep's folder, made one of a comparison: every other trial is one with the change."""
    folder = workdir / "lr_sweep"
    records = read_trials(folder)
    for record in records:
        values = {**record.hyperparameters, "changed": record.trial % 2 == 1}
        write_trial(folder, dataclasses.replace(record, hyperparameters=values))
    sides = [
        Side(
            seeds=(
                SeedSteps(
                    seed=0, status="found", steps=100.0, learning_rate=0.1, trial=record.trial
                ),
            ),
            median_steps=100.0,
        )
        for record in records[:2]
    ]
    outcome = ComparisonOutcome(
        max_train_steps=3000,
        steps_trained=1,
        status="cannot_be_told",
        changes=(Change(field="model.name", before="a", after="b"),),
        train_loss=None,
        unchanged=sides[0],
        changed=sides[1],
    )
    (folder / "outcome.json").unlink()
    write_outcome(folder, outcome.to_json(), read_trials(folder))
    return folder


def island_of_kind(folder, kind):
    """What the report of a folder draws, with its kind of study at an import path."""
    config = read_json(folder / "config.json")
    config["config"]["kind"] = kind
    write_json(folder / "config.json", config)
    (study,) = island_of(render_report(open_study(folder)))["studies"]
    return study


@pytest.mark.parametrize("fitted_train_loss", [None, 0.01])
def test_a_sweep_at_an_import_path_is_drawn_as_a_sweep(workdir, fitted_train_loss):
    folder = workdir / "lr_sweep"
    if fitted_train_loss is not None:  # its trials look for no fit, and are evaluated in full
        config = read_json(folder / "config.json")
        config["config"]["sweep"]["fitted_train_loss"] = fitted_train_loss
        write_json(folder / "config.json", config)
        for record in read_trials(folder):
            key = {**record.reuse_key, "checks_fit": False}
            write_trial(folder, dataclasses.replace(record, reuse_key=key))
        conclude_again(folder)
    for _ in ("complete", "under way"):
        named = island_of_kind(folder, "lr_sweep")
        own = island_of_kind(folder, "somebodys_module.MY_SWEEP")
        assert own == named
        assert "race" in own["groups"]["other"]
        titles = [panel.title for panel in panels(page_data(open_study(folder)))]
        assert "Step of the first fit" in titles and "Best steps" not in titles
        (folder / "outcome.json").unlink(missing_ok=True)


def test_a_comparison_at_an_import_path_is_drawn_as_a_comparison(comparison_folder):
    for _ in ("complete", "under way"):
        named = island_of_kind(comparison_folder, "comparison")
        assert island_of_kind(comparison_folder, "my_module.COMPARED") == named
        assert "race" in named["groups"]["other"]
        titles = [panel.title for panel in panels(page_data(open_study(comparison_folder)))]
        assert not {"Step of the first fit", "Best steps"} & {*titles}
        (comparison_folder / "outcome.json").unlink(missing_ok=True)


def test_an_optimum_at_an_edge_is_flagged(completed_workdir):
    study = open_study(completed_workdir / "round1")
    study.outcome["at_edge"] = {"optimizer.momentum": "high"}
    flags = {panel.title: panel.flag for panel in panels(page_data(study))}
    assert flags["momentum"] == "optimum at the high edge" and flags["dropout rate"] == ""


def test_an_explosion_is_marked_and_does_not_stretch_an_axis(completed_workdir):
    study = open_study(completed_workdir / "round1")
    first, *rest = study.trials
    rows = tuple({**row, "train_loss": 1e34} for row in first.record.rows)
    record = dataclasses.replace(first.record, rows=rows)
    study.__dict__["trials"] = [dataclasses.replace(first, record=record), *rest]
    (panel,) = [panel for panel in panels(page_data(study)) if panel.title == "train loss"]
    assert panel.note == "✕: 1 leave this axis here."
    line = panel.spec["layer"][0]["layer"][0]
    assert line["encoding"]["y"]["scale"]["domain"][1] < 100
    (mark,) = panel.spec["layer"][1]["data"]["values"]
    assert mark["trial"] == first.record.trial and mark["value"] < 100


def test_it_is_small_at_five_hundred_trials(completed_workdir, tmp_path):
    config = open_study(completed_workdir / "round1").config
    write_many(tmp_path / "many", config)
    html = render_report(open_study(tmp_path / "many"))
    assert len(html.encode()) < 3e6
    assert "Under way: 500 of the 500 trials begun are over" in html
    (study,) = island_of(html)["studies"]
    assert len(study["trials"]) == len(study["curves"]) == TRIALS


def test_a_study_under_way_is_reported(workdir):
    for name in ("lr_sweep", "round1"):
        (workdir / name / "outcome.json").unlink()
        study = open_study(workdir / name)
        html = render_report(study)
        assert f"Under way: {len(study.trials)} of the {len(study.trials)} trials begun" in html
        assert "launch it again: it goes on from here" in html
        shutil.rmtree(workdir / name / "trials")
        assert "0 of the 0 trials" in render_report(open_study(workdir / name))


def test_a_folder_says_how_it_was_begun_and_on_what_it_builds(completed_workdir):
    studies = open_studies(completed_workdir)
    begun = studies["round2"].begun
    assert begun["builds_on"] == "round1" and "builds_on" not in studies["lr_sweep"].begun
    # A worker of the tests may have begun it.
    assert "python" in begun["command"]
    assert re.match(r"\d{4}-\d\d-\d\dT.*\+00:00$", begun["time"])
    order = [(study.name, depth) for study, depth in order_of(studies)]
    assert order == [("lr_sweep", 0), ("round1", 1), ("round2", 2)]
    # Folders of older versions say nothing of it.
    for study in studies.values():
        study.__dict__["begun"] = {}
    assert order == [(study.name, depth) for study, depth in order_of(studies)]


def test_the_next_step_is_a_command(completed_workdir):
    study = open_study(completed_workdir / "round1")
    study.outcome["best_step_diagnosis"] |= {
        "verdict": "too_short",
        "suggested_max_train_steps": 2000,
    }
    flags = "--config.max_train_steps=2000 --config.name=round1_2000_steps"
    assert next_step(study).command == flags
    launched = "python -m budgetflow.launch --config=configs/round1.py"
    study.__dict__["begun"] = {"command": launched}
    assert next_step(study).command == f"{launched} {flags}"
    study.__dict__["begun"] = {"command": launched.replace("round1", "round2")}
    assert next_step(study).command == flags
    study.outcome["best_step_diagnosis"]["verdict"] = "about_right"
    assert next_step(study, "round2").command.endswith("--study=round2")
    command = next_step(open_study(completed_workdir / "round2")).command
    program, *arguments = shlex.split(command)
    assert program == "python"
    command = [sys.executable, *arguments]
    shown_by = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "dict_keys" in shown_by.stdout


def test_the_command_reports_one_study_several_or_all(workdir):
    assert report(str(workdir)) == workdir / "index.html"
    index = (workdir / "index.html").read_text()
    checker = Checker()
    checker.feed(index)
    assert checker.open == []
    pages = [f"{name}/report.html" for name in ("lr_sweep", "round1", "round2")]
    assert checker.references == ["data:,", *pages]
    assert all((workdir / page).exists() for page in pages)
    assert report(str(workdir / "round1")) == workdir / "round1" / "report.html"
    both = report(str(workdir), ["round1", "round2"])
    assert both.name == "round1_and_round2.html"
    text = both.read_text()
    assert len(island_of(text)["studies"]) == 2 and "What differs in the configs" in text
    with pytest.raises(UserError, match=r"--study=round3: .* has none; .*round2"):
        report(str(workdir), ["round3"])
    command = [sys.executable, "-m", "budgetflow.report", f"--workdir={workdir / 'no'}"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


def test_studies_side_by_side_name_what_differs_in_words(completed_workdir, tmp_path):
    page = epath.Path(report(completed_workdir, ("round1", "round2"), str(tmp_path / "two.html")))
    text = page.read_text()
    assert "schedule.base_learning_rate: log uniform, " in text
    assert "{&#39;" not in text and "{'name'" not in text


def test_what_is_wrong_with_another_study_is_no_reason_to_have_no_report(workdir):
    (workdir / "lr_sweep" / "config.json").unlink()
    (workdir / "round2" / "outcome.json").write_text("{")
    (workdir / "round1" / "report.html").unlink()
    assert write_report(open_study(workdir / "round1")).exists()
