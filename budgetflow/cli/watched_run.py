"""Running a study while it is watched: shown on the terminal, written to trackers, kept alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath
from rich.console import Console

from budgetflow.base import processes
from budgetflow.results.terminal.printing import say
from budgetflow.results.terminal.progress import StudyProgress
from budgetflow.results.tracking import Tracking
from budgetflow.studies.run.controller import Hire, run_study
from budgetflow.studies.store.lock import locked
from budgetflow.studies.store.trial import TrialRecord
from budgetflow.studies.study import Study


@contextlib.contextmanager
def held(folder: epath.Path, wait: bool, console: Console) -> Iterator[None]:
    """Keeps other launchers from a study's folder; for all processes of a run, by the first.

    Args:
        folder: the study's.
        wait: whether to wait where another launcher runs the study.
        console: where it is said what is waited for.
    """
    lock = locked(folder, wait, lambda sentence: say(console, sentence, folder.name, style="dim"))
    processes.on_main(lock.__enter__)
    try:
        yield
    finally:
        if processes.is_main():
            lock.__exit__(None, None, None)


def run_watched(
    study: Study,
    console: Console,
    profile_steps: tuple[int, int] | None = None,
    hire: Hire | None = None,
) -> dict[str, Any]:
    """Runs a study like :func:`budgetflow.studies.run.controller.run_study`.

    Args:
        study: the study.
        console: where it is shown.
        profile_steps: the steps of its first trial between which to write a trace.
        hire: who trains its trials, in place of this run's devices.
    """
    devices = f"{study.mesh.size} x {study.mesh.devices.flat[0].device_kind}"
    devices = "the nodes of a cluster" if hire else devices
    trackers = study.config.trackers if processes.is_main() else ()
    progress = StudyProgress(console, study.folder.name, study.selection, devices)
    tracking = Tracking(trackers, study.folder)

    def on_progress(records: Iterable[TrialRecord], later_steps: Iterable[int]) -> None:
        progress(records, later_steps)
        tracking(records)

    with tracking, progress:
        outcome = run_study(
            study,
            on_progress,
            profile_steps,
            hire=hire,
            on_phase=progress.phase,
            on_decision=progress.decided,
        )
    for name, why in tracking.failed.items():
        say(
            console, f"{name} was switched off, and lacks some of this study: {why}", style="yellow"
        )
    return outcome
