"""Runs a study with its progress on the terminal and in trackers, as its only launcher."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console

from budgetflow.base import processes
from budgetflow.results.terminal.printing import say
from budgetflow.results.terminal.progress import StudyProgress
from budgetflow.results.tracking import Tracking
from budgetflow.studies.run.controller import ExecutorFactory, run_study
from budgetflow.studies.store.lock import locked
from budgetflow.studies.store.trial import TrialRecord
from budgetflow.studies.study import Study


@contextlib.contextmanager
def only_launcher(study: Study, wait: bool, console: Console) -> Iterator[None]:
    """Keeps other launchers from a study's folder; process 0 holds the lock for all processes.

    Args:
        study: the study.
        wait: whether to wait for another launcher of the study to end.
        console: where to print what is waited for.

    Raises:
        UserError: another launcher runs the study.
    """
    name = study.folder.name
    lock = locked(study.folder, wait, lambda text: say(console, text, name, style="dim"))
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
    new_executor: ExecutorFactory | None = None,
) -> dict[str, Any]:
    """Runs a study like :func:`budgetflow.studies.run.controller.run_study`.

    Args:
        study: the study.
        console: where it is shown.
        profile_steps: the steps of its first trial between which to write a trace.
        new_executor: who trains its trials, in place of this run's devices.
    """
    devices = f"{study.mesh.size} x {study.mesh.devices.flat[0].device_kind}"
    devices = "the nodes of a cluster" if new_executor else devices
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
            new_executor=new_executor,
            on_phase=progress.phase,
            on_decision=progress.decided,
        )
    for name, why in tracking.failed.items():
        say(
            console, f"{name} was switched off, and lacks some of this study: {why}", style="yellow"
        )
    return outcome
