import dataclasses
import io

import pytest
from rich.console import Console

from budgetflow.results import figures, terminal
from budgetflow.results.reading import open_study
from budgetflow.schedules import Schedule
from budgetflow.studies.trial import TrialRecord

KEY = "validation_error_rate"


def test_the_table_lists_the_best_trials_first(completed_workdir):
    output = io.StringIO()
    study = open_study(completed_workdir / "round1")
    terminal.print_outcome(Console(file=output, width=100), study)
    text = output.getvalue()
    assert f"and {16 - terminal.MAX_TRIALS_SHOWN} more, in the report" in text
    rows = [line.split() for line in text.splitlines() if line[:3].strip().isdigit()]
    assert int(rows[0][0]) == study.outcome["best_trial"]
    assert len(rows) == terminal.MAX_TRIALS_SHOWN


def numbers_shown(study):
    """The trials in the table, from the top."""
    output = io.StringIO()
    terminal.print_outcome(Console(file=output, width=100), study)
    lines = output.getvalue().splitlines()
    return [int(line.split()[0]) for line in lines if line[:3].strip().isdigit()]


def test_negated_values_of_which_higher_is_better_give_the_same_table(completed_workdir):
    study = open_study(completed_workdir / "round1")
    expected = numbers_shown(study)
    negated = [
        dataclasses.replace(trial, record=dataclasses.replace(trial.record, rows=rows))
        for trial in study.trials
        for rows in [[{**r, KEY: -r[KEY]} for r in trial.record.rows]]
    ]
    other = dataclasses.replace(study, outcome={**study.outcome, "higher_is_better": True})
    other.__dict__["trials"] = negated
    assert numbers_shown(other) == expected
    # Negative values are drawn, too.
    lowest = min(row[KEY] for trial in negated for row in trial.record.rows)
    drawn = {axes.get_title("left"): axes for axes in figures.curves(other).axes}
    assert drawn[KEY.replace("_", " ")].get_ylim()[0] <= lowest


def test_outcomes_of_older_versions_are_read_by_the_config(completed_workdir):
    study = open_study(completed_workdir / "round1")
    older = {
        k: v for k, v in study.outcome.items() if k not in ("selection_metric", "higher_is_better")
    }
    assert dataclasses.replace(study, outcome=older).selection == study.selection


def test_lines_are_not_wrapped_where_there_is_no_terminal():
    output = io.StringIO()
    terminal.say(Console(file=output, width=40), "word " * 50)
    assert len(output.getvalue().splitlines()) == 1


def test_progress_is_a_bar_on_a_terminal_and_plain_lines_elsewhere(completed_workdir, monkeypatch):
    monkeypatch.setattr(terminal, "PLAIN_LINE_SECONDS", 0)
    records = [trial.record for trial in open_study(completed_workdir / "lr_sweep").trials]
    for is_terminal in (False, True):
        output = io.StringIO()
        console = Console(file=output, width=100, force_terminal=is_terminal)
        with terminal.StudyProgress(console, "lr_sweep") as progress:
            progress(records, ())
        text = output.getvalue()
        assert "a trial fitted at step" in text
        assert ("\x1b[" in text) == is_terminal
        assert is_terminal or len(text.splitlines()) == 1


def test_progress_counts_what_is_trained_and_what_is_yet_to_come(doubling_records):
    output = io.StringIO()
    with terminal.StudyProgress(Console(file=output, width=100), "lengths") as progress:
        progress(doubling_records, (40, 50))
    # Two of four trials are there; the steps taken over are not to be trained.
    assert "2 of 4 trials finished, step 120 of at most 210" in output.getvalue()


@pytest.fixture
def doubling_records(monkeypatch):
    """A trial of 50 steps and one of 100 that took over 30 of them."""
    monkeypatch.setattr(terminal, "PLAIN_LINE_SECONDS", 0)
    return [
        TrialRecord(
            trial=number, hyperparameters={}, schedule=Schedule(0.1, 0, length), seed=0,
            max_train_steps=length, status="complete", step=length,
            reused_from={"study": "s", "trial": 0, "step": 30} if number else None,
        )
        for number, length in enumerate((50, 100))
    ]  # fmt: skip
