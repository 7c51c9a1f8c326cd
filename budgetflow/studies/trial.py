"""A trial's record on disk: ``trial.json`` and ``measurements.jsonl`` in the trial's folder."""

from __future__ import annotations

import dataclasses
from typing import Any

from etils import epath

from budgetflow.errors import DamagedFileError
from budgetflow.files import read_json, read_rows, write_json, write_rows
from budgetflow.playbook.measurement import Selection, Status, TrialView
from budgetflow.schedules import Schedule

# A decay that ends below this share of the base learning rate counts as a decay to zero.
NEARLY_ZERO = 0.01


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """What is known of a trial; the fields of ``trial.json``, and the measurements.

    Attributes:
        trial: its number in the study.
        hyperparameters: config field to value, as the search space named them.
        schedule: its learning rates.
        seed: of its data order, initialisation and random numbers.
        max_train_steps: its length if nothing stops it.
        reuse_key: all that its states depend on but the schedule; see
            :func:`budgetflow.studies.fingerprint.state_key`.
        measurement_key: what the measurements of these states depend on; see
            :func:`budgetflow.studies.fingerprint.measurement_key`.
        status: "pending", "running", "complete", "stopped" or "diverged".
        step: updates made so far.
        best_step: the step that retrospective selection finds so far.
        reused_from: {"study", "trial", "step"} of the trial that it continues, or None.
        not_reused_because: why it does not continue the trial that it was expected to.
        measured_anew_because: why it took over the last state of the trial that it continues, but
            none of the measurements.
        fitted_at_step_bracket: see :class:`TrialView`.
        rows: one measurement per evaluation, ascending in step; those up to ``reused_from``'s step
            are the earlier trial's, if it was measured in the same way.
    """

    trial: int
    hyperparameters: dict[str, Any]
    schedule: Schedule
    seed: int
    max_train_steps: int
    reuse_key: dict[str, Any] = dataclasses.field(default_factory=dict)
    measurement_key: dict[str, Any] = dataclasses.field(default_factory=dict)
    status: Status = "pending"
    step: int = 0
    best_step: int | None = None
    reused_from: dict[str, Any] | None = None
    not_reused_because: str | None = None
    measured_anew_because: str | None = None
    fitted_at_step_bracket: tuple[int, int] | None = None
    rows: tuple[dict[str, Any], ...] = ()

    def measured(self, row: dict[str, Any], selection: Selection) -> TrialRecord:
        """The record after one more measurement."""
        rows = (*self.rows, row)
        best = selection.best(rows)
        return dataclasses.replace(
            self, rows=rows, step=row["step"], best_step=best["step"] if best else None
        )

    def back_to(self, step: int, selection: Selection) -> TrialRecord:
        """The record as it was at ``step``, the last one that can be resumed from."""
        rows = tuple(row for row in self.rows if row["step"] <= step)
        best = selection.best(rows)
        bracket = self.fitted_at_step_bracket
        return dataclasses.replace(
            self,
            rows=rows,
            step=step,
            best_step=best["step"] if best else None,
            fitted_at_step_bracket=bracket if bracket and bracket[1] <= step else None,
        )

    def view(self) -> TrialView:
        """The trial as decisions see it."""
        schedule = self.schedule
        return TrialView(
            trial=self.trial,
            hyperparameters=self.hyperparameters,
            base_learning_rate=schedule.base_learning_rate,
            status=self.status,
            step=self.step,
            rows=self.rows,
            fitted_at_step_bracket=self.fitted_at_step_bracket,
            decays_to_zero=schedule.decay != "none"
            and schedule.end_learning_rate < NEARLY_ZERO * schedule.base_learning_rate,
            steps_reused=self.reused_from["step"] if self.reused_from else 0,
            schedule=schedule,
        )


def trial_folder(study_folder: epath.PathLike, trial: int) -> epath.Path:
    """The folder of a trial."""
    return epath.Path(study_folder) / "trials" / f"{trial:04d}"


def write_trial(study_folder: epath.PathLike, record: TrialRecord) -> None:
    """Writes a trial's record, atomically; measurements first, so that no step lacks its own."""
    folder = trial_folder(study_folder, record.trial)
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    write_rows(folder / "measurements.jsonl", list(fields.pop("rows")))
    write_json(folder / "trial.json", {**fields, "schedule": dataclasses.asdict(record.schedule)})


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
        return TrialRecord(
            **{**fields, "schedule": Schedule(**fields["schedule"])},
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
    # A folder without trial.json is one that a kill left before anything was recorded.
    paths = [path for path in folder.iterdir() if (path / "trial.json").exists()]
    return sorted((read_trial(path) for path in paths), key=lambda record: record.trial)
