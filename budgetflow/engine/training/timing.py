"""Where the time of a study goes: a stopwatch for its activities, a trace of some steps."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

# Times and traces: left out of the keys of results, see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

_THREAD = threading.local()
# What JAX reports of a compilation, without tracing, whose reports overlap.
_COMPILING = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


class Stopwatch:
    """Adds up the seconds of each activity; compiling counts as an activity of its own.

    Attributes:
        seconds: by activity.
    """

    def __init__(self) -> None:
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)

    def add(self, other: Stopwatch, weight: float = 1.0) -> None:
        """Adds another stopwatch's seconds, or a part of them."""
        for activity, seconds in other.seconds.items():
            self.seconds[activity] += weight * seconds

    @contextlib.contextmanager
    def __call__(self, activity: str) -> Iterator[None]:
        """Adds the time spent inside to ``activity``; not to be nested."""
        start, compiling_before = time.perf_counter(), _compiling_seconds()
        try:
            yield
        finally:
            compiling = _compiling_seconds() - compiling_before
            self.seconds["compiling"] += compiling
            self.seconds[activity] += time.perf_counter() - start - compiling

    @contextlib.contextmanager
    def part_of(self, whole: str, activity: str) -> Iterator[None]:
        """Adds the time spent inside to ``activity`` instead of the ``whole`` around it."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.seconds[activity] += seconds
            self.seconds[whole] -= seconds


def _compiling_seconds() -> float:
    """How long this thread has traced and compiled so far."""
    return getattr(_THREAD, "seconds", 0.0)


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    if event in _COMPILING:
        _THREAD.seconds = _compiling_seconds() + duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


class Profiler:
    """Writes a trace of some of a trial's steps, for Perfetto, XProf or TensorBoard.

    Args:
        folder: where to.
        steps: the step to start after and the one to stop at; None for no trace.
    """

    def __init__(self, folder: str = "", steps: tuple[int, int] | None = None) -> None:
        self._folder = folder
        self._steps = steps
        self._is_tracing = False

    def stops(self, step: int, to_step: int) -> list[int]:
        """The steps at which :meth:`reached` must be called, on the way from one to another."""
        return [s for s in self._steps or () if step < s <= to_step or s == step == 0]

    def reached(self, step: int) -> None:
        """Starts or stops the trace, if this is the step to do so."""
        if self._steps and step == self._steps[0] and not self._is_tracing:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._is_tracing = True
        elif self._steps and step == self._steps[1]:
            self.stop()

    def stop(self) -> None:
        """Ends a trace under way."""
        if self._is_tracing:
            jax.profiler.stop_trace()
            self._is_tracing = False
