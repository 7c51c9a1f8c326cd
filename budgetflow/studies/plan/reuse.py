"""Reuse of training: the steps that a trial takes over from another one, or why it does not.

Two runs are bit for bit the same up to the step at which their learning rates part, if nothing else
that their states depend on differs: their keys say so, see :mod:`budgetflow.studies.store.keys`.
Where states are the same but were measured otherwise, they are taken over without measurements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from budgetflow.base.errors import DamagedFileError
from budgetflow.engine.checkpoints import TrialCheckpoints, steps_to_keep
from budgetflow.playbook.common.shared_steps import shared_steps
from budgetflow.studies.store.keys import differing_fields, fields_in_words, measurement_key
from budgetflow.studies.store.trial import TrialRecord, trial_folder

if TYPE_CHECKING:
    from budgetflow.studies.plan.trials import TrialPlan
    from budgetflow.studies.study import Study

# One update at learning rate 0, with which every warmup begins, is not worth a copy.
MIN_REUSED_STEPS = 2


def why_not_reused(theirs: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """The difference between the states under two reuse keys, in words; None if they are equal."""
    if not theirs:
        return "it does not say what its states depend on"
    names = differing_fields(theirs, ours)
    return f"they differ in {fields_in_words(names)}" if names else None


def kept_steps(study: Study, plan: TrialPlan, record: TrialRecord) -> set[int]:
    """The steps of a trial whose checkpoints stay beside the latest: the best and pinned ones."""
    keep_best = study.config.checkpoints.keep_best
    return steps_to_keep(record.rows, study.selection.cost, keep_best, plan.pinned, record.step)


def announced(number: int, plan: TrialPlan) -> TrialRecord:
    """The record of a trial that is yet to join its study, on devices not known yet."""
    return TrialRecord(
        trial=number,
        hyperparameters=plan.hyperparameters,
        schedule=plan.schedule,
        seed=plan.config.seed,
        max_train_steps=plan.length_steps,
        role=plan.role,
        idea=plan.idea,
    )


def joining(
    study: Study,
    number: int,
    plan: TrialPlan,
    sources: Sequence[tuple[epath.Path, TrialRecord]],
    branch: TrialRecord | None,
) -> TrialRecord:
    """The record of a trial that joins a study, with the steps that it takes over.

    Args:
        study: the study.
        number: the trial's.
        plan: its plan.
        sources: the trials of the earlier study, and that one's folder.
        branch: the trial of the same study that it is planned to continue.
    """
    folder = trial_folder(study.folder, number)
    if folder.exists():  # left by a kill before anything was recorded
        folder.rmtree()
    record = dataclasses.replace(
        announced(number, plan),
        reuse_key=plan.state_key(study.dataset, study.mesh),
        measurement_key=measurement_key(plan.config, study.dataset),
    )
    if branch is not None:
        sources = [*sources, (study.folder, branch)]
    record = _with_reused_steps(study, plan, record, sources)
    if record.reused_from is not None:
        return record
    expected = [source for source in (plan.promoted_from, branch) if source is not None]
    whys = [why_not_reused(source.reuse_key, record.reuse_key) for source in expected]
    return dataclasses.replace(record, not_reused_because=next(filter(None, whys), None))


def resumed(study: Study, record: TrialRecord, plan: TrialPlan) -> TrialRecord:
    """The record of a trial that goes on, with the parts of its key that have changed since.

    States that were begun under other conditions equal no other trial's.
    """
    before = dict(record.reuse_key)
    others = before.pop("resumed_with_another", [])
    now = plan.state_key(study.dataset, study.mesh)
    names = sorted({*others, *differing_fields(before, now)})
    if names and record.step > 0:  # else none of its states was begun
        now["resumed_with_another"] = names
    return dataclasses.replace(record, reuse_key=now)


def _with_reused_steps(
    study: Study,
    plan: TrialPlan,
    record: TrialRecord,
    sources: Iterable[tuple[epath.Path, TrialRecord]],
) -> TrialRecord:
    """The record of a new trial with another one's states taken over, or unchanged.

    All states up to the last checkpoint before the schedules part are taken over, of the trial that
    shares the most steps, with their measurements. Where those were made otherwise, only that last
    state is, to be measured anew: which was the best before is then not known.

    Args:
        study, plan: the new trial's.
        record: the new trial's.
        sources: other trials, and their studies' folders.

    Returns:
        The record. If checkpoints are damaged, earlier ones are taken over; it says so.
    """
    candidates: list[tuple[int, epath.Path, TrialRecord]] = []
    for folder, source in sources:
        is_equal = source.reuse_key == record.reuse_key
        shared = shared_steps(source.schedule, record.schedule) if is_equal else 0
        if shared >= MIN_REUSED_STEPS:
            saved = TrialCheckpoints(trial_folder(folder, source.trial)).steps()
            usable = (step for step in saved if MIN_REUSED_STEPS <= step <= shared)
            candidates += [(step, folder, source) for step in usable]
    candidates.sort(
        key=lambda item: (item[0], item[2].measurement_key == record.measurement_key), reverse=True
    )
    damaged: list[str] = []
    for step, folder, source in candidates:
        otherwise = differing_fields(source.measurement_key, record.measurement_key)
        rows = () if otherwise else tuple(row for row in source.rows if row["step"] <= step)
        why = f"they differ in {fields_in_words(otherwise)}" if otherwise else None
        continued = dataclasses.replace(
            record,
            status="complete" if rows and step == record.max_train_steps else "running",
            rows=rows,
            damaged=tuple(damaged),
            reused_from={"study": folder.name, "trial": source.trial, "step": step},
            measured_anew_because=why,
        ).back_to(step, study.selection)
        theirs = trial_folder(folder, source.trial)
        kept = {step, *kept_steps(study, plan, continued)} & {*TrialCheckpoints(theirs).steps()}
        try:
            TrialCheckpoints(trial_folder(study.folder, record.trial)).adopt(theirs, sorted(kept))
        except DamagedFileError:
            damaged.append(f"step {step} of trial {source.trial} of {folder.name}")
        else:
            return continued
    return dataclasses.replace(record, damaged=tuple(damaged))
