"""A trial's record on disk: ``trial.json`` and ``measurements.jsonl`` in the trial's folder."""

from __future__ import annotations

import contextlib
import dataclasses

from etils import epath

from budgetflow.errors import DamagedFileError
from budgetflow.files import read_json, read_rows, write_fields, write_rows
from budgetflow.playbook.measurement import TrialRecord
from budgetflow.schedules import Schedule


def trial_folder(study_folder: epath.PathLike, trial: int) -> epath.Path:
    """The folder of a trial."""
    return epath.Path(study_folder) / "trials" / f"{trial:04d}"


def write_trial(study_folder: epath.PathLike, record: TrialRecord) -> None:
    """Writes a trial's record, atomically; measurements first, so that no step lacks its own."""
    folder = trial_folder(study_folder, record.trial)
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    if rows := fields.pop("rows"):
        write_rows(folder / "measurements.jsonl", list(rows))
    write_fields(folder / "trial.json", {**fields, "schedule": vars(record.schedule)})


def read_trial(folder: epath.PathLike) -> TrialRecord:
    """Reads a trial's record.

    Raises:
        DamagedFileError: ``trial.json`` or ``measurements.jsonl`` is not what was written.
    """
    folder = epath.Path(folder)
    content = read_json(folder / "trial.json")
    rows = read_rows(folder / "measurements.jsonl")
    try:
        # A later version may have added keys.
        known = [field.name for field in dataclasses.fields(TrialRecord) if field.name != "rows"]
        fields = {name: content[name] for name in known if name in content}
        bracket = fields.pop("fitted_at_step_bracket")
        # JSON has lists for what is a tuple in a config, as the sizes of layers are.
        values = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields["hyperparameters"].items()
        }
        schedule = Schedule(**fields["schedule"])
        return TrialRecord(
            **{**fields, "hyperparameters": values, "schedule": schedule},
            fitted_at_step_bracket=tuple(bracket) if bracket else None,
            rows=tuple(row for row in rows if row["step"] <= fields["step"]),
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"{folder / 'trial.json'} is damaged: {error}") from error


def read_trials(study_folder: epath.PathLike) -> list[TrialRecord]:
    """The records of all trials of a study, by number."""
    folder = epath.Path(study_folder) / "trials"
    if not folder.exists():
        return []
    records = []
    for path in folder.iterdir():
        # A folder without trial.json is one that a kill left before anything was recorded.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            records.append(read_trial(path))
    return sorted(records, key=lambda record: record.trial)
