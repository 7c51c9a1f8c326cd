"""Running a study while it is watched: shown on the terminal, and written to trackers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console

from budgetflow import processes
from budgetflow.results.progress import StudyProgress
from budgetflow.results.terminal import say
from budgetflow.results.tracking import Tracking
from budgetflow.studies.controller import run_study
from budgetflow.studies.study import Study
from budgetflow.studies.trial import TrialRecord


def run_watched(
    study: Study, console: Console, profile_steps: tuple[int, int] | None
) -> dict[str, Any]:
    """Runs a study like :func:`budgetflow.studies.controller.run_study`.

    Args:
        study: the study.
        console: where it is shown.
        profile_steps: the steps of its first trial between which to write a trace.
    """
    devices = f"{study.mesh.size} x {study.mesh.devices.flat[0].device_kind}"
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
            on_phase=progress.phase,
            on_decision=progress.decided,
        )
    for name, why in tracking.failed.items():
        say(
            console, f"{name} was switched off, and lacks some of this study: {why}", style="yellow"
        )
    return outcome
