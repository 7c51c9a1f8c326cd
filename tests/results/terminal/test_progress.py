"""What is shown while a study runs: on a terminal, in a log, in a notebook, and where none can."""

import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from conftest import REPOSITORY, trial_record
from rich.console import Console

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Selection
from budgetflow.results.terminal import progress as module
from budgetflow.results.terminal.progress import StudyProgress

ERROR = Selection("validation_error_rate", examples=200)


def records(step):
    """Two trials of 100 steps at a step."""
    rows = [{"step": step, ERROR.key: 0.035, "train_loss": 0.2, "learning_rate": 0.1}]
    return [
        trial_record(n, Schedule(0.1, 0, 100), rows, status="running", best_step=step)
        for n in range(2)
    ]


def shown(console, steps=(10, 20), before=lambda: None):
    """Has a study of two trials shown."""
    with StudyProgress(console, "round1", ERROR, "2 x cpu") as progress:
        progress.phase("compiling")
        for step in steps:
            before()
            progress(records(step), [100])
        progress.phase("training trials 0 and 1 to step 100")
        return progress.line()


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is told to go on."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_now_and_then_and_nothing_of_a_terminal(clock):
    output = io.StringIO()

    def later():
        clock[0] += module.LINE_SECONDS

    shown(Console(file=output, width=60), steps=(10, 20, 30), before=later)
    lines = output.getvalue().splitlines()
    assert "\x1b" not in output.getvalue()
    assert lines[0] == "round1: compiling"
    assert len(lines) == 4
    assert lines[-1].startswith(
        "round1: 0 of 3 trials over, 2 begun; 60 of 300 steps; about 2 min 0 s left; "
        "trial 0 leads: validation error rate 0.035 (7 of 200) at step 30"
    )


def test_the_time_left_is_told_from_the_speed_since_the_first_measurement(clock):
    """Compiling before it says nothing of the speed, nor do steps of an earlier launch."""

    def later():
        clock[0] += 5

    # The line before was 5 s ago: 20 steps in 5 s before it, and 300 - 40 to go.
    line = shown(Console(file=io.StringIO()), steps=(10, 20, 30), before=later)
    assert "40 of 300 steps; about 1 min 0 s left" in line


def test_no_time_left_is_told_of_a_race(clock):
    def without_validation(step):
        rows = [{"step": step, "train_loss": 0.2}]
        return [trial_record(0, Schedule(0.1, 0, 100), rows, status="running")]

    with StudyProgress(Console(file=io.StringIO()), "s", ERROR, "1 x cpu") as progress:
        for step in (10, 20):
            clock[0] += 60
            progress(without_validation(step), [])
        assert "left" not in progress.line()


def test_the_thread_that_trains_is_hardly_held_up(clock, monkeypatch):
    """A display that takes long is shown less often."""
    draws = []

    def slow(*arguments):
        draws.append(clock[0])
        clock[0] += 1.0

    monkeypatch.setattr(Console, "print", slow)
    progress = StudyProgress(Console(file=io.StringIO()), "s", ERROR, "1 x cpu")
    for _ in range(200):
        progress(records(10), [])
        clock[0] += 1.0
    assert len(draws) <= 200 / module.REST + 1


class Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_closed_pipe_does_not_end_a_study(is_terminal):
    before = threading.active_count()
    shown(Console(file=Closed(), force_terminal=is_terminal, width=80))
    assert threading.active_count() == before


def test_a_metric_that_cannot_be_drawn_does_not_end_a_study(monkeypatch):
    def broken(*arguments):
        raise ValueError("odd")

    monkeypatch.setattr(module, "trial_table", broken)
    monkeypatch.setattr(module, "REDRAW_SECONDS", 0.01)
    monkeypatch.setattr(module, "REST", 0)
    output = io.StringIO()
    shown(Console(file=output, force_terminal=True, width=80))
    assert "cannot be drawn (odd)" in output.getvalue()


def test_a_quiet_console_is_shown_nothing():
    output = io.StringIO()
    shown(Console(file=output, quiet=True, force_terminal=True))
    assert output.getvalue() == ""


def test_a_notebook_has_one_display_that_is_updated(monkeypatch):
    """IPython is not needed for this test; the notebook in experiments/ runs in the real one."""
    displays = []

    class Handle:
        def update(self, renderable):
            displays.append(renderable)

    def display(renderable, display_id):
        displays.append(renderable)
        return Handle()

    fake = types.SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr(module, "NOTEBOOK_SECONDS", 0)
    monkeypatch.setattr(module, "REST", 0)
    shown(Console(file=io.StringIO(), force_jupyter=True))
    assert len(displays) == 5
    assert "text/html" in displays[1]._repr_mimebundle_((), ())


RUN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from rich.console import Console
from test_progress import shown
shown(Console(), before=lambda: time.sleep(1.2))
"""


def in_terminal(columns, program, interrupt_after=None):
    """What a program writes to a real terminal of so many columns."""
    main, side = pty.openpty()
    environment = {
        **os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30",
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}:{Path(__file__).parent}",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=side, stdout=side, stderr=side, env=environment
    )
    os.close(side)
    written = b""
    deadline = None
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        written += part
        if interrupt_after and deadline is None and interrupt_after in written:
            deadline = time.monotonic()
            process.send_signal(signal.SIGINT)
    os.close(main)
    process.wait(timeout=60)
    return written.decode()


@pytest.mark.parametrize("columns", [80, 200])
def test_a_real_terminal_has_a_live_display_that_goes_away(columns):
    text = in_terminal(columns, RUN)
    for fact in ("round1", "Trial 0 leads", "of 300 steps", "about", "on 2 x cpu"):
        assert fact in text
    # No line is too long for the terminal, and the cursor comes back.
    assert "╮" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    # It is overwritten in place, never by clearing the screen, which flickers.
    assert "\x1b[2J" not in text and "\x1b[H" not in text
    # At last every line of it is erased.
    assert "round1" not in text[text.rindex("\x1b[2K") :]


def test_an_interrupt_gives_the_cursor_back():
    text = in_terminal(80, RUN, interrupt_after=b"Now: ")
    assert "KeyboardInterrupt" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
