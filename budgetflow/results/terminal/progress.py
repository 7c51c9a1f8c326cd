"""What is shown while a study runs: a live display on a terminal and in a notebook, lines in a log.

A display must never cost a study: it takes at most a fiftieth of the time of the thread that
trains, and where it cannot be shown (a closed pipe, a broken terminal) the study goes on without.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from budgetflow.playbook.common.measurement import Selection, TrialRecord
from budgetflow.results.study_status import (
    StudyStatus,
    counts_in_words,
    leader_in_words,
    status_in_words,
    steps_in_words,
    study_status,
)
from budgetflow.results.words import duration, format_cell, short_name

LINE_SECONDS, REDRAW_SECONDS, NOTEBOOK_SECONDS = 10.0, 0.5, 1.0
# A redraw waits for this many times as long as the last one took.
REST = 50
MOST_TRIALS = 6


class StudyProgress:
    """Shows how a study comes along; a context manager, which is told what happens.

    Args:
        console: where to show it.
        name: the study's name.
        selection: what selects its trials.
        devices: what it runs on, in words.
    """

    def __init__(self, console: Console, name: str, selection: Selection, devices: str) -> None:
        self._console, self._name = console, name
        self._selection, self._devices = selection, devices
        self._live: Live | None = None
        self._notebook: Any = None
        self._status: StudyStatus | None = None
        self._phase, self._decision = "", ""
        self._begun_at = time.monotonic()
        # When the status was seen; when the first one of this launch was, and the steps by then.
        self._seen_at = self._first_seen_at = 0.0
        self._steps_before = 0
        self._due_at = -math.inf

    def __enter__(self) -> StudyProgress:
        """Shows nothing yet: a study that is complete has no phase."""
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the display away."""
        with _harmless():
            if self._live:
                self._live.stop()
            if self._notebook:
                self._notebook.update(Text(""))

    def phase(self, text: str) -> None:
        """Shows what the study does from now on, such as "compiling"."""
        self._phase = text
        self._show()

    def decided(self, text: str) -> None:
        """Shows the latest decision."""
        self._decision = text

    def __call__(self, records: Iterable[TrialRecord], later_steps: Iterable[int]) -> None:
        """Shows how far the trials are, now and then."""
        now, is_first = time.monotonic(), self._status is None
        if self._console.quiet or (now < self._due_at and not is_first):
            return
        self._status = study_status(records, self._selection, later_steps)
        self._seen_at = now
        if is_first:
            self._first_seen_at, self._steps_before = now, self._status.steps_done
        self._show()

    def _show(self) -> None:
        """Shows all that is known, unless that was done just now."""
        start = time.monotonic()
        if start < self._due_at or self._console.quiet:
            return
        every = LINE_SECONDS
        with _harmless():
            if self._console.is_jupyter:
                every = NOTEBOOK_SECONDS
                self._show_in_notebook()
            elif self._console.is_terminal:
                every = REDRAW_SECONDS
                if self._live is None:
                    self._live = Live(
                        get_renderable=self._drawn,
                        console=self._console,
                        refresh_per_second=1 / REDRAW_SECONDS,
                        transient=True,
                    )
                    self._live.start()
            else:
                self._console.print(Text(f"{self._name}: {self.line()}"), soft_wrap=True)
        spent = time.monotonic() - start
        self._due_at = start + max(every, REST * spent)

    def _show_in_notebook(self) -> None:
        from IPython.display import display

        if self._notebook is None:
            self._notebook = display(self._drawn(), display_id=True)
        else:
            self._notebook.update(self._drawn())

    def line(self) -> str:
        """All that is known, in one line."""
        status = self._status
        facts: list[str | None] = [self._phase]
        if status:
            facts = [counts_in_words(status), steps_in_words(status), self._time_left(status)]
            facts += [leader_in_words(status, self._selection), self._phase, self._decision]
        return "; ".join(filter(None, facts))

    def _time_left(self, status: StudyStatus) -> str | None:
        """The time left at the speed since the first measurement; None where nobody knows."""
        steps = status.steps_done - self._steps_before
        if status.steps_total is None or steps <= 0:
            return None
        seconds_a_step = (self._seen_at - self._first_seen_at) / steps
        left = (status.steps_total - status.steps_done) * seconds_a_step
        return f"about {duration(left - (time.monotonic() - self._seen_at))} left"

    def _drawn(self) -> RenderableType:
        """All that is known, drawn; called by the thread that refreshes the display."""
        try:
            return self._panel(self._status)
        except Exception as error:  # an odd value of somebody's own metric
            return Text(f"{self._name}: cannot be drawn ({error})")

    def _panel(self, status: StudyStatus | None) -> Panel:
        lines: list[RenderableType] = []
        if status:
            if status.steps_total:
                bar = Table.grid(expand=True)  # a bar alone does not end its line
                bar.add_row(ProgressBar(total=status.steps_total, completed=status.steps_done))
                lines.append(bar)
            steps = [steps_in_words(status), self._time_left(status)]
            lines.append(Text("; ".join(filter(None, steps))))
            lines.append(Text(counts_in_words(status)))
            if leader := leader_in_words(status, self._selection):
                lines.append(Text(leader[:1].upper() + leader[1:], style="bold"))
        lines.append(Text.assemble(("Now: ", "dim"), self._phase))
        if status and self._decision:
            lines.append(Text.assemble(("Decided: ", "dim"), self._decision))
        if status and status.ranked:
            lines.append(trial_table(status, self._selection, MOST_TRIALS))
        elapsed = duration(time.monotonic() - self._begun_at)
        return Panel(
            Group(*lines),
            title=Text.assemble((self._name, "bold")),
            subtitle=Text(f"{elapsed} on {self._devices}", style="dim"),
            title_align="left",
            subtitle_align="right",
            box=box.ROUNDED,
            border_style="dim",
        )


def trial_table(status: StudyStatus, selection: Selection, most: int) -> Table:
    """The leading trials of a study, those under way among them."""
    begun = [pair for pair in status.ranked if pair[0].status == "running"][: most // 2]
    chosen = [*status.ranked[: most - len(begun)], *begun]
    columns = ["trial", "step", "learning rate", "train loss"]
    columns += ["status"] if status.races else [short_name(selection.key), "best step"]
    table = Table(*columns, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for trial, row in {trial.trial: (trial, row) for trial, row in chosen}.values():
        last = trial.rows[-1]
        step = str(trial.step) if status.races else f"{trial.step}/{trial.max_train_steps}"
        cells = [str(trial.trial), step]
        cells += [format_cell(last.get(key)) for key in ("learning_rate", "train_loss")]
        if status.races:
            cells.append(status_in_words(trial))
        else:
            cells += [format_cell(row.get(selection.key)), str(row["step"])]
        table.add_row(*cells)
    return table


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Lets no failure of a display end a study; rich exits the process where a pipe is closed."""
    with contextlib.suppress(Exception, SystemExit):
        yield
