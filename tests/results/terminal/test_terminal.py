import dataclasses
import io

from rich.console import Console

from budgetflow.results.reading import open_study
from budgetflow.results.report.page_data import page_data
from budgetflow.results.report.panels import panels
from budgetflow.results.terminal import printing as terminal

KEY = "validation_error_rate"


def test_the_table_lists_the_best_trials_first(completed_workdir):
    output = io.StringIO()
    study = open_study(completed_workdir / "round1")
    terminal.print_outcome(Console(file=output, width=100), study)
    text = output.getvalue()
    assert f"and {16 - terminal.MAX_TRIALS_SHOWN} more, in the report" in text
    table = text.partition("\n trial ")[2]
    rows = [line.split() for line in table.splitlines() if line[:3].strip().isdigit()]
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
    (panel,) = (p for p in panels(page_data(other)) if p.title == KEY.replace("_", " "))
    line = panel.spec["layer"][0]["layer"][0]
    assert line["encoding"]["y"]["scale"]["domain"][0] <= lowest


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
