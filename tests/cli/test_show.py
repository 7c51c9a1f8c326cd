"""How studies stand, as another terminal prints it: complete ones, and ones under way."""

import dataclasses
import io
import json
import subprocess
import sys

from rich.console import Console

from budgetflow.cli.show import show
from budgetflow.playbook.common.measurement import Selection
from budgetflow.results.kind_views import headline
from budgetflow.results.reading import open_study
from budgetflow.studies.store.trial import read_trial, write_trial


def shown(workdir, width=400):
    output = io.StringIO()
    show(str(workdir), Console(file=output, width=width))
    return output.getvalue()


def begin(folder, running, rows):
    """Makes a complete study one under way, with one of its trials at an earlier evaluation."""
    (folder / "outcome.json").unlink()
    record = read_trial(folder / "trials" / f"{running:04d}")
    step = record.rows[rows - 1]["step"]
    record = record.back_to(step, Selection("validation_error_rate"))
    write_trial(folder, dataclasses.replace(record, status="running", best_step=step))
    return step


def test_a_folder_has_a_line_for_each_study(completed_workdir):
    lines = shown(completed_workdir).splitlines()
    names = ("lr_sweep", "round1", "round2")
    for name, line in zip(names, lines, strict=False):
        assert line == f"{name}: {headline(open_study(completed_workdir / name).found)}"
    assert len(lines) == 4


def test_a_complete_study_is_shown_as_when_it_ended(completed_workdir):
    output = (completed_workdir / "output.txt").read_text()
    first = shown(completed_workdir / "round1", width=120).splitlines()
    assert "\n".join(first) in output
    assert len(first) > 20


def test_of_a_round_under_way_the_best_leads(workdir):
    step = begin(workdir / "round1", running=3, rows=10)
    text = shown(workdir / "round1")
    assert text.startswith("round1: under way: 15 of 16 trials over, 1 begun; ")
    assert " of 16,448 steps; last written" in text
    assert "leads: validation error rate" in text
    row = next(line for line in text.splitlines() if f"{step}/1028" in line)
    assert row.split()[0] == "3"
    # Among the others, whole.
    assert "round1: under way" in shown(workdir) and "round2: Best of 2" in shown(workdir)


def test_a_race_under_way_has_no_known_end(workdir):
    begin(workdir / "lr_sweep", running=0, rows=3)
    text = shown(workdir / "lr_sweep")
    assert "the race ends when the fastest is known" in text
    assert "fitted the training set at step" in text


def test_a_study_without_a_trial_is_under_way(tmp_path):
    config = {"kind": "round", "evaluation": {"selection_metric": "loss"}}
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text(json.dumps({"config": config}))
    assert shown(tmp_path / "new").startswith("new: under way: 0 of 0 trials over; 0 of 0 steps")


def test_where_there_is_none_it_is_said_in_a_line(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "budgetflow.show", f"--workdir={tmp_path}"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("budgetflow: there are no studies in")
    assert len(result.stderr.splitlines()) == 1
