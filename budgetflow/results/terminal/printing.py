"""What is printed of studies: sentences and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from budgetflow.playbook.common.outcomes import TrialsOutcome
from budgetflow.results.kind_views import ShownTable, headline, view_of
from budgetflow.results.reading import StudyResult
from budgetflow.results.words import format_cell, short_name, timing_line
from budgetflow.studies.store.trial import trial_folder

MAX_TRIALS_SHOWN = 12


def print_outcome(console: Console, study: StudyResult) -> None:
    """Prints a study's outcome: the headline, the reasons, and the trials, best first."""
    outcome = study.found
    assert outcome is not None
    say(console, headline(outcome), study.name, "green" if outcome.has_answer else "red")
    for reason in outcome.reasons:
        say(console, f"  • {reason.text}")
    for shown in view_of(outcome).tables(study):
        print_table(console, shown)
    console.print(_trial_table(study))
    if study.timing:
        say(console, timing_line(study.timing), style="dim")


def print_summary(console: Console, studies: Sequence[StudyResult], trained: bool) -> None:
    """Prints one line per study of a chain, and where to find the last one's results."""
    last = studies[-1]
    console.rule("[bold]Summary", align="left")
    for study in studies:
        assert study.found is not None
        say(console, headline(study.found), study.name)
    if not trained:
        say(console, "Every study was complete; nothing was trained.", style="bold")
    say(console, f"Report: {last.folder / 'report.html'}")
    outcome = last.found
    if isinstance(outcome, TrialsOutcome) and outcome.best_trial is not None:
        trial = trial_folder(last.folder, outcome.best_trial)
        say(console, f"Best checkpoint: {trial / 'checkpoints' / str(outcome.best_step)}")
    say(console, f'In Python: budgetflow.open_study("{last.folder}").best_trial.restore_params()')


def say(console: Console, text: str, name: str | None = None, style: str = "") -> None:
    """Prints a line, after a name in bold if there is one; not wrapped where no terminal is."""
    line = Text.assemble((f"{name}: ", "bold") if name else "", (text, style))
    console.print(line, soft_wrap=not console.is_terminal)


def print_plan(console: Console, rows: list[dict[str, Any]], notes: Iterable[str] = ()) -> None:
    """Prints what a launch would do, a column per study, and what to know of it."""
    properties = list(dict.fromkeys(name for row in rows for name in row if name != "study"))
    table = Table("", *(row["study"] for row in rows), box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in properties:
        table.add_row(name, *(str(row.get(name, "")) for row in rows))
    say(console, "The plan", style="bold")
    console.print(table)
    for note in notes:
        say(console, f"  • {note}")


def print_table(console: Console, shown: ShownTable) -> None:
    """Prints a table in words."""
    say(console, shown.title, style="bold")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in shown.columns:
        # What has a name is kept whole; reasons take the room that is left.
        table.add_column(column, no_wrap=column == shown.columns[0])
    for name, *cells in shown.rows:
        table.add_row(name, *cells)
    console.print(table)


def _trial_table(study: StudyResult) -> Table:
    assert study.found is not None
    frame = view_of(study.found).table(study, MAX_TRIALS_SHOWN)
    names = ("trial", *(short_name(name) for name in frame.columns))
    table = Table(*names, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for number, *cells in frame.itertuples(name=None):
        table.add_row(str(number), *map(format_cell, cells))
    if (hidden := len(study.trials) - len(frame)) > 0:
        table.caption = f"and {hidden} more, in the report"
    return table
