import io

from rich.console import Console

from budgetflow.results import terminal
from budgetflow.results.reading import open_study


def test_the_table_lists_the_best_trials_first(completed_workdir):
    output = io.StringIO()
    study = open_study(completed_workdir / "round1")
    terminal.print_outcome(Console(file=output, width=100), study)
    text = output.getvalue()
    assert f"and {16 - terminal.MAX_TRIALS_SHOWN} more, in the report" in text
    rows = [line.split() for line in text.splitlines() if line[:3].strip().isdigit()]
    assert int(rows[0][0]) == study.outcome["best_trial"]
    assert len(rows) == terminal.MAX_TRIALS_SHOWN


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
            progress(records, 0)
        text = output.getvalue()
        assert "a trial fitted at step" in text
        assert ("\x1b[" in text) == is_terminal
        assert is_terminal or len(text.splitlines()) == 1
