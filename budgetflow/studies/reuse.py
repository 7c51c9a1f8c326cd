"""No step is trained twice: what a trial may take over from another one, and why not.

Two runs are bit for bit the same up to the step at which their learning rates part, if nothing else
that their states depend on differs. All of that is a trial's reuse key.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterable
from typing import Any

from etils import epath
from jax.sharding import Mesh

from budgetflow.checkpoints import TrialCheckpoints
from budgetflow.config import StudyConfig, checks_fit, differing_fields, to_json
from budgetflow.playbook.measurement import Selection
from budgetflow.playbook.sharing import shared_steps
from budgetflow.studies.trial import TrialRecord, trial_folder
from budgetflow.training.mesh import device_kind

# One update at learning rate 0, with which every warmup begins, is not worth a copy.
MIN_REUSED_STEPS = 2
LIBRARIES = ("jax", "jaxlib", "flax", "optax")
# The sections of a config that a trial's states depend on.
_STATE_SECTIONS = (
    "seed", "model", "task", "optimizer", "regularization", "augmentation", "precision",
    "gradient_accumulation", "ema_decay",
)  # fmt: skip


def reuse_key(config: StudyConfig, varied: Iterable[str], mesh: Mesh) -> dict[str, Any]:
    """All that a trial's states depend on, but for its schedule, as JSON values.

    How a batch is divided among devices changes the order of sums, and so the last bits; so do
    libraries and the kind of device.

    Args:
        config: the trial's config, its hyperparameters filled in.
        varied: the fields that the study's search space varies.
        mesh: the devices of the study.
    """
    values = to_json(config)
    data = ("name", "train_split", "batch_size", "input_key", "target_key")
    layout = ("min_sharded_size", "overrides") if mesh.shape["fsdp"] > 1 else ()
    # These are in the program where they vary, even at strength 0.
    in_program = ("regularization.", "augmentation.")
    return {
        **{name: values[name] for name in _STATE_SECTIONS},
        "data": {name: values["data"][name] for name in data},
        "varied": sorted(name for name in varied if name.startswith(in_program)),
        "checks_fit": checks_fit(config),
        "devices": {
            "kind": device_kind(),
            "data": mesh.shape["data"],
            "fsdp": mesh.shape["fsdp"],
            **{name: values["mesh"][name] for name in layout},
        },
        "vmap_trials": config.mesh.vmap_trials,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def is_reusable(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether the states under one reuse key are those under another."""
    return ours["vmap_trials"] == 1 and theirs == ours


def why_not_reused(theirs: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """Why :func:`is_reusable` says no, for people; None if it says yes."""
    if ours["vmap_trials"] > 1:
        return "vectorized trials (config.mesh.vmap_trials) are not bit for bit reproducible"
    if not theirs:
        return "it does not say what its states depend on"
    names = differing_fields(theirs, ours)
    return f"they differ in {', '.join(names)}" if names else None


def with_reused_steps(
    record: TrialRecord,
    study_folder: epath.Path,
    sources: Iterable[tuple[epath.Path, TrialRecord]],
    steps_to_keep: Callable[[Iterable[dict[str, Any]], int], set[int]],
    selection: Selection,
) -> TrialRecord:
    """The record of a new trial that takes over another one's states, or as it is.

    Taken over are all states up to the last checkpoint before the schedules part, of the trial
    that shares the most steps.

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
    step, folder, source = max(found, key=lambda item: item[0])
    rows = tuple(row for row in source.rows if row["step"] <= step)
    theirs = trial_folder(folder, source.trial)
    keep = steps_to_keep(rows, step) & {*TrialCheckpoints(theirs).steps()}
    TrialCheckpoints(trial_folder(study_folder, record.trial)).adopt(theirs, sorted(keep))
    reused_from = {"study": folder.name, "trial": source.trial, "step": step}
    record = dataclasses.replace(record, rows=rows, status="running", reused_from=reused_from)
    return record.back_to(step, selection)


def reasons_to_train_again(records: Iterable[TrialRecord]) -> list[str]:
    """Why trials do not continue those that they were expected to, in sentences."""
    numbers: dict[str, list[str]] = {}
    for record in records:
        if record.not_reused_because:
            numbers.setdefault(record.not_reused_because, []).append(str(record.trial))
    return [
        f"Trial {', '.join(trials)} trained all steps and could not continue another trial: {why}."
        for why, trials in numbers.items()
    ]
