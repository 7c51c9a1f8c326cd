"""A trial's record on disk: ``trial.json`` and ``measurements.jsonl`` in the trial's folder.

Each says which content of the other belongs to it, by checksums; and ``checksums.json`` in the
folder of a study that is concluded says which records the outcome is of. So a file that was lost,
swapped or put back from an older copy is noticed, and named.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import (
    checksum_of,
    checksum_of_lines,
    checksum_of_rows,
    finite,
    read_checked,
    read_json,
    read_lines,
    read_rows,
    write_fields,
    write_json,
    write_rows,
)
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Row, TrialRecord
from budgetflow.studies.store.recorded_code import with_todays_digests

MEASUREMENTS, CHECKSUMS = "measurements.jsonl", "checksums.json"
# In trial.json.
ROWS_CHECKSUM = "measurements_checksum"


def trial_folder(study_folder: epath.PathLike, trial: int) -> epath.Path:
    """The folder of a trial."""
    return epath.Path(study_folder) / "trials" / f"{trial:04d}"


def write_trial(study_folder: epath.PathLike, record: TrialRecord, back: bool = False) -> None:
    """Writes a trial's record, atomically.

    The record says which measurements it is of, so those are written first; they may be more than
    the record knows of, since a kill can come between.

    Args:
        study_folder: the study's folder.
        record: the record.
        back: whether it is set back to an earlier step, of which the measurements are there.
    """
    folder = trial_folder(study_folder, record.trial)
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    rows = fields.pop("rows")
    if rows and not back:
        checksum = write_rows(folder / MEASUREMENTS, rows)
    else:
        checksum = checksum_of_rows(rows)
    fields |= {"schedule": vars(record.schedule), ROWS_CHECKSUM: checksum}
    write_fields(folder / "trial.json", fields)


def read_trial(folder: epath.PathLike) -> TrialRecord:
    """Reads a trial's record.

    Raises:
        DamagedFileError: ``trial.json`` or ``measurements.jsonl`` is not what was written.
    """
    return _read_trial(epath.Path(folder))[0]


def _read_trial(folder: epath.Path) -> tuple[TrialRecord, str | None]:
    """A trial's record, and the checksum of ``trial.json``."""
    path = folder / "trial.json"
    while True:
        content, checksum = read_checked(path)
        if content.get("trial", 0) != int(folder.name):
            raise DamagedFileError(f"{path} is that of trial {content['trial']}; {_again(folder)}")
        lines = read_lines(folder / MEASUREMENTS)
        rows = read_rows(folder / MEASUREMENTS, lines)
        try:
            record = _record(content, rows)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise DamagedFileError(f"{path} is damaged: {error}; {_again(folder)}") from error
        recorded = content.get(ROWS_CHECKSUM)
        if recorded in (None, checksum_of_lines(lines[: len(record.rows)])):
            return record, checksum
        if read_checked(path)[1] == checksum:  # it was not written in between
            damage = f"{folder / MEASUREMENTS} is missing"
            if lines:
                damage = f"in {folder}, trial.json and {MEASUREMENTS} do not belong together"
            raise DamagedFileError(f"{damage}; {_again(folder)}")


def _record(content: dict[str, Any], rows: Iterable[Row]) -> TrialRecord:
    """A record from what its files hold, without the measurements that it does not know of."""
    # A later version may have added keys.
    names = [field.name for field in dataclasses.fields(TrialRecord) if field.name != "rows"]
    fields = {name: content[name] for name in names if name in content}
    bracket, damaged = fields.pop("fitted_at_step_bracket"), fields.pop("damaged", ())
    # JSON has lists for what is a tuple in a config, as the sizes of layers are.
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields["hyperparameters"].items()
    }
    schedule = Schedule(**fields["schedule"])
    if key := fields.get("reuse_key"):
        fields["reuse_key"] = with_todays_digests(key)
    return TrialRecord(
        **{**fields, "hyperparameters": values, "schedule": schedule},
        fitted_at_step_bracket=tuple(bracket) if bracket else None,
        damaged=tuple(damaged),
        rows=tuple(row for row in rows if row["step"] <= fields["step"]),
    )


def read_trials(study_folder: epath.PathLike) -> list[TrialRecord]:
    """The records of all trials of a study, by number.

    Raises:
        DamagedFileError: a file of one is not what was written; or not what was there when the
            study was concluded.
    """
    folder = epath.Path(study_folder)
    paths = folder / "trials"
    records: dict[str, TrialRecord] = {}
    checksums: dict[str, str | None] = {}
    for path in paths.iterdir() if paths.exists() else ():
        # A folder without trial.json is one that a kill left before anything was recorded.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            records[path.name], checksums[path.name] = _read_trial(path)
    _check_concluded(folder, checksums)
    return sorted(records.values(), key=lambda record: record.trial)


def write_outcome(
    study_folder: epath.PathLike, outcome: dict[str, Any], records: Iterable[TrialRecord]
) -> None:
    """Writes a study's outcome; before it, the checksums of it and of the records it is of."""
    folder = epath.Path(study_folder)
    names = [trial_folder(folder, record.trial).name for record in records]
    checksums = {name: read_checked(folder / "trials" / name / "trial.json")[1] for name in names}
    outcome = finite(outcome)
    write_json(folder / CHECKSUMS, {"outcome": checksum_of(outcome), "trials": checksums})
    write_json(folder / "outcome.json", outcome)


def read_begun(study_folder: epath.PathLike) -> dict[str, Any] | None:
    """What a study was begun with, as its ``config.json`` holds it; None while there is none."""
    path = epath.Path(study_folder) / "config.json"
    return read_json(path) if path.exists() else None


def read_outcome(study_folder: epath.PathLike) -> dict[str, Any] | None:
    """A study's outcome, or None while it has none.

    Raises:
        DamagedFileError: the file is not what was written, or another one.
    """
    path = epath.Path(study_folder) / "outcome.json"
    outcome = read_json(path) if path.exists() else None
    if outcome is not None and "kind" not in outcome:
        raise DamagedFileError(
            f"{path} holds no outcome; delete it and launch again to conclude from what is there"
        )
    return outcome


def _check_concluded(folder: epath.Path, checksums: Mapping[str, str | None]) -> None:
    """Checks that the records of a study that has an outcome are those that it was made from.

    Args:
        folder: the study's.
        checksums: those of its records, by the name of the trial's folder.

    Raises:
        DamagedFileError: one of them is missing or another one.
    """
    path, outcome = folder / CHECKSUMS, folder / "outcome.json"
    checksum = read_checked(outcome)[1] if outcome.exists() else None
    if checksum is None:  # under way, or of an earlier version
        return
    concluded = read_json(path) if path.exists() else {}
    remedy = f"delete {outcome} and launch again to conclude from what is there"
    if concluded.get("outcome") != checksum:
        state = "is that of another outcome" if concluded else "is missing"
        raise DamagedFileError(f"{path} {state}; {remedy}")
    expected = concluded["trials"]
    for name in sorted({*expected, *checksums}):
        if checksums.get(name) != expected.get(name):
            state = "is not the one that the outcome is of" if name in checksums else "is missing"
            raise DamagedFileError(f"{folder / 'trials' / name / 'trial.json'} {state}; {remedy}")


def _again(folder: epath.Path) -> str:
    """What to do about a trial's record that is damaged."""
    outcome = folder.parent.parent / "outcome.json"
    also = f" and {outcome}" if outcome.exists() else ""
    return f"delete {folder}{also} and launch again to train that trial again"
