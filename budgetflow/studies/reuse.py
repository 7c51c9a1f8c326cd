"""No step is trained twice: what a trial may take over from another one, and why not.

Two runs are bit for bit the same up to the step at which their learning rates part, if nothing else
that their states depend on differs: their keys say so, see :mod:`budgetflow.studies.fingerprint`.
Where states are the same but were measured otherwise, they are taken over without measurements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from etils import epath

from budgetflow.checkpoints import TrialCheckpoints
from budgetflow.playbook.measurement import Selection
from budgetflow.playbook.sharing import shared_steps
from budgetflow.studies.fingerprint import differing_fields, in_words
from budgetflow.studies.trial import TrialRecord, trial_folder

# One update at learning rate 0, with which every warmup begins, is not worth a copy.
MIN_REUSED_STEPS = 2


def is_reusable(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether the states under one reuse key are those under another."""
    return ours["mesh"]["vmap_trials"] == 1 and theirs == ours


def why_not_reused(theirs: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """Why :func:`is_reusable` says no, for people; None if it says yes."""
    if ours["mesh"]["vmap_trials"] > 1:
        return "vectorized trials (config.mesh.vmap_trials) are not bit for bit reproducible"
    if not theirs:
        return "it does not say what its states depend on"
    names = differing_fields(theirs, ours)
    return f"they differ in {in_words(names)}" if names else None


def with_reused_steps(
    record: TrialRecord,
    study_folder: epath.Path,
    sources: Iterable[tuple[epath.Path, TrialRecord]],
    steps_to_keep: Callable[[Iterable[dict[str, Any]], int], set[int]],
    selection: Selection,
) -> TrialRecord:
    """The record of a new trial that takes over another one's states, or as it is.

    Taken over are all states up to the last checkpoint before the schedules part, of the trial
    that shares the most steps, with their measurements. Where those were made otherwise, only that
    last state is, to be measured anew: what was best before is not known then.

    Args:
        record: the new trial's.
        study_folder: its study's folder, where the checkpoints are copied to.
        sources: other trials, and their studies' folders.
        steps_to_keep: (measurements, latest step) -> the steps whose checkpoints it keeps.
        selection: what selects checkpoints.

    Raises:
        DamagedFileError: a checkpoint to take over is damaged.
    """
    found: list[tuple[int, epath.Path, TrialRecord]] = []
    for folder, source in sources:
        if is_reusable(source.reuse_key, record.reuse_key):
            shared = shared_steps(source.schedule, record.schedule)
            if shared >= MIN_REUSED_STEPS:
                saved = TrialCheckpoints(trial_folder(folder, source.trial)).steps()
                usable = (step for step in saved if MIN_REUSED_STEPS <= step <= shared)
                found += [(step, folder, source) for step in usable]
    if not found:
        return record
    step, folder, source = max(
        found, key=lambda item: (item[0], item[2].measurement_key == record.measurement_key)
    )
    otherwise = differing_fields(source.measurement_key, record.measurement_key)
    rows = () if otherwise else tuple(row for row in source.rows if row["step"] <= step)
    theirs = trial_folder(folder, source.trial)
    keep = steps_to_keep(rows, step) & {*TrialCheckpoints(theirs).steps()}
    TrialCheckpoints(trial_folder(study_folder, record.trial)).adopt(theirs, sorted(keep))
    record = dataclasses.replace(
        record,
        rows=rows,
        status="running",
        reused_from={"study": folder.name, "trial": source.trial, "step": step},
        measured_anew_because=f"they differ in {in_words(otherwise)}" if otherwise else None,
    )
    return record.back_to(step, selection)


def reasons_to_train_again(records: Iterable[TrialRecord]) -> list[str]:
    """Why trials do not continue those that they were expected to, or not all of it: sentences."""
    trained: dict[str, list[str]] = {}
    measured: dict[tuple[int, str], list[str]] = {}
    for record in records:
        if record.not_reused_because:
            trained.setdefault(record.not_reused_because, []).append(str(record.trial))
        if record.reused_from and record.measured_anew_because:
            begins = record.reused_from["step"], record.measured_anew_because
            measured.setdefault(begins, []).append(str(record.trial))
    return [
        f"Trial {', '.join(trials)} trained all steps and could not continue another trial: {why}."
        for why, trials in trained.items()
    ] + [
        f"Trial {', '.join(trials)} took over the state of step {step} but no measurements, since "
        f"those were made otherwise ({why}): best steps are selected from step {step} on."
        for (step, why), trials in measured.items()
    ]
