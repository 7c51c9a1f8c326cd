"""Stopping a run by a signal: the present call is finished, and every running trial saved.

Several processes stop at the same step: one that is asked goes on until all of them know.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import jax

from budgetflow.base.errors import StoppedError as StoppedError
from budgetflow.base.processes import exit_at_once, gather

# "Temporary failure" (sysexits.h): schedulers start it again.
STOPPED_STATUS = 75
# What schedulers and terminals send before they end a process; SLURM's --signal=USR1 as well.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

_asked = threading.Event()
# Set, with several processes, once all know that one of them was asked.
_agreed = threading.Event()


def is_asked() -> bool:
    """Whether the run was asked to stop; with several processes, whether all of them know."""
    return (_asked if jax.process_count() == 1 else _agreed).is_set()


def ask() -> None:
    """Asks this process to stop, as a signal would."""
    _asked.set()


def agree() -> bool:
    """Tells all processes whether one was asked to stop; all must call it at the same point."""
    if any(gather(_asked.is_set())):
        _agreed.set()
    return _agreed.is_set()


def listen(grace_seconds: float) -> None:
    """Makes :data:`SIGNALS` ask this process to stop, instead of ending it.

    At a second signal, or after the grace period, the process ends at once. Files on disk are whole
    at any time; what was trained since the last save is trained again.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if _asked.is_set():
            _end(f"{name} again; what was trained since the last save is trained again")
        _asked.set()
        if number == signal.SIGINT:  # somebody is looking
            _say("saving every trial; interrupt again to end at once")
        late = f"{name}, and not saved within --grace_seconds={grace_seconds:g}"
        timer = threading.Timer(grace_seconds, _end, [late])
        timer.daemon = True
        timer.start()

    for number in SIGNALS:
        signal.signal(number, ask)


def _end(why: str) -> None:
    _say(f"stopped by {why}; launch again to go on")
    exit_at_once(STOPPED_STATUS)


def _say(sentence: str) -> None:
    # Not by print, which a signal may have come in the middle of.
    os.write(2, f"budgetflow: {sentence}\n".encode())
