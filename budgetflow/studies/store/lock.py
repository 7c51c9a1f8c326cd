"""One launcher at a time: who runs a study says so in its folder, and goes on saying it.

On the same machine a launcher that ended is known by its process; between machines that share a
folder, whose clocks may differ, by its silence.
"""

from __future__ import annotations

import _thread
import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from etils import epath

from budgetflow.base import processes
from budgetflow.base.errors import DamagedFileError, UserError
from budgetflow.base.files import read_json, write_json

LOCK = "running.lock"
# How often a launcher says that it runs, and after what silence it counts as lost.
BEAT_SECONDS, SILENT_SECONDS = 5.0, 20.0


@dataclasses.dataclass(frozen=True)
class Launcher:
    """Who runs a study.

    Attributes:
        host: the machine's name.
        process: its process there.
        namespace: within which that number is meant; containers have their own.
        since: when it began, in seconds since 1970.
        beats: how often it has said that it runs.
    """

    host: str
    process: int
    namespace: int
    since: float
    beats: int = 0

    def __str__(self) -> str:
        """As in "process 12 on tpu-vm-0 (since 2026-03-01 12:00)"."""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"process {self.process} on {self.host} (since {since})"

    def is_same(self, other: Launcher | None) -> bool:
        """Whether two are the same, at different times perhaps."""
        return other is not None and dataclasses.replace(other, beats=self.beats) == self

    def has_ended(self) -> bool:
        """Whether this machine knows that it has ended."""
        here = this_launcher()
        if (self.host, self.namespace) != (here.host, here.namespace):
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


def this_launcher() -> Launcher:
    """This process."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not on Linux
        namespace = 0
    return Launcher(socket.gethostname(), os.getpid(), namespace, time.time())


@contextlib.contextmanager
def locked(folder: epath.Path, wait: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps other launchers from a study's folder; process 0 holds the lock for all processes.

    Args:
        folder: the study's.
        wait: whether to wait for another launcher to end.
        say: is told in a sentence what is waited for, or taken over.

    Raises:
        UserError: another launcher runs the study.
    """
    path, mine = folder / LOCK, this_launcher()
    processes.on_main(_wait_for, path, mine, wait, say)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, mine, ended), daemon=True)
    if processes.is_main():
        beating.start()
    try:
        yield
    finally:
        if processes.is_main():
            ended.set()
            beating.join()
            if mine.is_same(_read(path)):
                path.unlink(missing_ok=True)


def _wait_for(path: epath.Path, mine: Launcher, wait: bool, say: Callable[[str], None]) -> None:
    """Takes a lock as soon as nobody holds it; see :func:`locked`."""
    seen, seen_at = _read(path), time.monotonic()
    last_words = ""
    runs = False
    while not _take(path, mine):
        other = _read(path)
        if other != seen:  # it has spoken since, or there is another one
            runs = other is not None
            seen, seen_at = other, time.monotonic()
        is_silent = time.monotonic() - seen_at > SILENT_SECONDS
        if is_silent or (other is not None and other.has_ended()):
            if other == _read(path):
                path.unlink(missing_ok=True)
                say(f"taken over from {other or 'a launcher'}, which ended before the study did")
            continue
        if runs and not wait:
            raise UserError(
                f"{path.parent} is being run by {other}; wait for it with --wait, or give another "
                "--workdir or config.name"
            )
        what = f"waiting for {other}" if runs else f"looking whether {other} still runs"
        if what != last_words and other is not None:
            say(what)
            last_words = what
        time.sleep(0.5)


def holder(folder: epath.Path) -> Launcher | None:
    """Who runs a study; None if nobody does."""
    return _read(folder / LOCK)


def _take(path: epath.Path, mine: Launcher) -> bool:
    """Makes the lock file unless there is one; whether it did."""
    if "://" in os.fspath(path):  # a bucket makes no file exclusively
        if not path.exists():
            write_json(path, dataclasses.asdict(mine))
            time.sleep(1.0)
        return mine.is_same(_read(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    write_json(path, dataclasses.asdict(mine))
    return True


def _read(path: epath.Path) -> Launcher | None:
    """Who holds a lock; None if nobody does, or it is being taken or given up right now."""
    try:
        return Launcher(**read_json(path))
    except (FileNotFoundError, DamagedFileError, TypeError):
        return None


def _beat(path: epath.Path, mine: Launcher, ended: threading.Event) -> None:
    """Says now and then that this launcher runs; ends it where another one has taken over."""
    while not ended.wait(BEAT_SECONDS):
        other = _read(path)
        if other is not None and not mine.is_same(other):
            print(f"budgetflow: {path.parent} was taken over by {other}", file=sys.stderr)
            if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                processes.exit_at_once(2)  # rather than save what is another's by now
            _thread.interrupt_main()  # a notebook lives on
            return
        mine = dataclasses.replace(mine, beats=mine.beats + 1)
        with contextlib.suppress(OSError):  # a full disk; what is written elsewhere says so
            write_json(path, dataclasses.asdict(mine))
