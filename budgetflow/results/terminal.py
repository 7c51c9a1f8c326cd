"""What the launcher shows: a progress bar and tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from budgetflow.playbook.outcomes import TrialsOutcome
from budgetflow.results.reading import StudyResult
from budgetflow.results.views import ShownTable, headline, view_of
from budgetflow.results.wording import format_cell, timing_line
from budgetflow.studies.trial import TrialRecord, trial_folder

PLAIN_LINE_SECONDS, REDRAW_SECONDS = 10.0, 0.25
MAX_TRIALS_SHOWN = 12


class StudyProgress:
    """Shows how far a study is; use as a context manager, and call it with the study's trials."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._bar: Progress | None = None
        self._shown_at = time.monotonic()
        if console.is_terminal:
            self._shown_at = -math.inf
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task(name, total=None)

    def __enter__(self) -> StudyProgress:
        """Starts the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Takes the bar away."""
        if self._bar:
            self._bar.stop()

    def __call__(self, records: Iterable[TrialRecord], later_steps: Iterable[int]) -> None:
        """Shows the trials' progress towards their lengths, now and then.

        A sweep may end long before.
        """
        every = REDRAW_SECONDS if self._bar else PLAIN_LINE_SECONDS
        if time.monotonic() - self._shown_at < every:
            return
        self._shown_at = time.monotonic()
        records, later = list(records), list(later_steps)
        reused = sum(record.steps_reused for record in records)
        done = sum(record.step for record in records) - reused
        lengths = (r.step if r.status == "diverged" else r.max_train_steps for r in records)
        total = sum(lengths) - reused + sum(later)
        finished = sum(record.status in ("complete", "diverged") for record in records)
        trials = len(records) + len(later)
        text = f"{self._name}: {finished} of {trials} trials finished"
        if fitted := [r.fitted_at_step for r in records if r.fitted_at_step is not None]:
            text = f"{self._name}: a trial fitted at step {min(fitted)}; checking the others"
        if self._bar:
            self._bar.update(self._task, description=text, completed=done, total=total)
        else:
            say(self._console, f"{text}, step {done} of at most {total}")


def print_outcome(console: Console, study: StudyResult) -> None:
    """Prints a study's outcome: the headline, the reasons, and the trials, best first."""
    outcome = study.found
    assert outcome is not None
    say(console, headline(outcome), study.name, "green" if outcome.has_answer else "red")
    for reason in outcome.reasons:
        say(console, f"  • {reason}")
    for shown in view_of(outcome).tables(outcome):
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
    best = last.found
    if isinstance(best, TrialsOutcome) and best.best_trial is not None:
        trial = trial_folder(last.folder, best.best_trial)
        say(console, f"Best checkpoint: {trial / 'checkpoints' / str(best.best_step)}")
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
    names = ("trial", *(_short(name) for name in frame.columns))
    table = Table(*names, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for number, *cells in frame.itertuples(name=None):
        table.add_row(str(number), *map(format_cell, cells))
    if (hidden := len(study.trials) - len(frame)) > 0:
        table.caption = f"and {hidden} more, in the report"
    return table


def _short(name: str) -> str:
    return name.rpartition(".")[2].replace("validation_", "val. ").replace("_", " ")
