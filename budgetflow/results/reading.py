"""Reading studies back: outcomes, tables, parameters and models, in a script or in Colab."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, Literal

from etils import epath

from budgetflow.base.errors import DamagedFileError, UserError, nearest
from budgetflow.base.files import read_json
from budgetflow.base.workdir import absolute
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import PARTIAL, Selection
from budgetflow.playbook.common.outcomes import Outcome, TrialsOutcome, from_json
from budgetflow.playbook.forecasts.study_forecast import LongerRun, carried_trial, outlook
from budgetflow.studies.store.trial import TrialRecord, read_outcome, read_trials, trial_folder

if TYPE_CHECKING:  # these take a second to import, which not every reader needs
    import pandas as pd
    from flax import nnx

# The step of a checkpoint, or that of the best one by the validation metric.
Step = int | Literal["best"]


@dataclasses.dataclass(frozen=True, repr=False)
class TrialResult:
    """A trial of a study.

    Attributes:
        folder: where it lies.
        record: its hyperparameters, schedule, status and measurements.
        study_config: the config of its study, as JSON values.
    """

    folder: epath.Path
    record: TrialRecord
    study_config: dict[str, Any]

    def __repr__(self) -> str:
        """Which trial it is, and how far it is."""
        record, study = self.record, self.folder.parent.parent.name
        return f"<trial {record.trial} of {study}: {record.status} at step {record.step}>"

    def restore_params(self, step: Step = "best") -> dict[str, Any]:
        """The model's parameters, as nested dicts of NumPy arrays.

        Those that were evaluated: their moving average, where ``config.ema_decay`` keeps one. A
        model with batch normalisation is more than its parameters: see :meth:`restore_model`.

        Args:
            step: of a checkpoint; by default the best one.

        Raises:
            UserError: there is no checkpoint of that step, or it is damaged.
        """
        from budgetflow.engine.checkpoints import restore_as_numpy

        state = restore_as_numpy(self.folder, self._checkpoint(step))
        return state.get("ema_params") or state["params"]

    def restore_model(self, step: Step = "best") -> nnx.Module:
        """The model itself in evaluation mode, with its parameters and batch statistics.

        It is built from the import path in the config, and takes inputs as the model takes them;
        :meth:`predict` takes them as the data set holds them. The data set has to be there.

        Args:
            step: of a checkpoint; by default the best one.

        Raises:
            UserError: there is no such checkpoint, model or data set.
        """
        return self._restored(step).model()

    def predict(self, inputs: Any, step: Step = "best") -> Any:
        """What the model makes of inputs, float32 [examples, outputs]: for classes, their logits.

        Args:
            inputs: as the data set holds them, after ``config.data.transform``: an array
                [examples, ...], or a dict of these. Pixels in uint8 are scaled as in training.
            step: of a checkpoint; by default the best one.

        Raises:
            UserError: they are of another shape or type; or as from :meth:`restore_model`.
        """
        return self._restored(step).predict(inputs)

    def _restored(self, step: Step) -> Any:
        from budgetflow.results.restoring import restore

        step, data = self._checkpoint(step), self.study_config["data"]
        return restore(self.folder, step, self.record.reuse_key, data)

    def _checkpoint(self, step: Step) -> int:
        """The number of a step of which there is a checkpoint."""
        path = self.folder / "checksums.json"
        checksums = _read(path)  # without them, no checkpoint counts
        steps = ", ".join(checksums) or "none"
        number = self.record.best_step if step == "best" else step
        if number is None:
            raise UserError(f"{self.folder} was never validated; give one of its steps: {steps}")
        if str(number) not in checksums:
            raise UserError(f"there is no checkpoint of step {number} in {path}, but: {steps}")
        return int(str(number))


@dataclasses.dataclass(frozen=True, repr=False)
class StudyResult:
    """A study's folder, read.

    Attributes:
        folder: the study's folder.
        config: its resolved config, as JSON values.
        outcome: what ``outcome.json`` holds, or None while the study is under way.
    """

    folder: epath.Path
    config: dict[str, Any]
    outcome: dict[str, Any] | None

    def __repr__(self) -> str:
        """Which study it is, and whether it is complete."""
        state = "under way" if self.outcome is None else "complete"
        return f"<study {self.name} ({self.config['kind']}, {state}) in {self.folder}>"

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    @property
    def found(self) -> Outcome | None:
        """The outcome, typed; None while the study is under way."""
        return from_json(self.outcome) if self.outcome is not None else None

    @property
    def selection(self) -> Selection:
        """What selects checkpoints and trials; in older outcomes, lower was always better."""
        outcome = self.found
        metric = outcome.selection_metric if outcome else None
        metric = metric or self.config["evaluation"]["selection_metric"]
        return Selection(f"validation_{metric}", bool(outcome and outcome.higher_is_better))

    @property
    def timing(self) -> dict[str, Any] | None:
        """How fast the launch that completed it trained; None if it trained nothing."""
        return _read(self.folder / "timing.json") or None

    @functools.cached_property
    def begun(self) -> dict[str, Any]:
        """When and by which command it was begun, of which code; empty in older folders."""
        return _read(self.folder / "begun.json")

    @functools.cached_property
    def libraries(self) -> dict[str, str]:
        """The versions of the libraries that its results are found with."""
        return read_json(self.folder / "config.json").get("libraries") or {}

    @functools.cached_property
    def trials(self) -> list[TrialResult]:
        """All trials, by number."""
        return [
            TrialResult(trial_folder(self.folder, record.trial), record, self.config)
            for record in read_trials(self.folder)
        ]

    def trial(self, number: int) -> TrialResult:
        """The trial of a number.

        Raises:
            UserError: there is none.
        """
        for trial in self.trials:
            if trial.record.trial == number:
                return trial
        last = f"the last one is {self.trials[-1].record.trial}" if self.trials else "it has none"
        raise UserError(f"{self.folder} has no trial {number}; {last}")

    @property
    def best_trial(self) -> TrialResult:
        """The best trial of a round; of a sweep, the one whose fit is the answer.

        Raises:
            UserError: the study has no outcome yet, or every trial diverged.
        """
        if (outcome := self.found) is None:
            raise UserError(f"{self.folder} has no outcome yet; launch its config to complete it")
        if outcome.best_trial is None:
            raise UserError(f"{self.folder} has no best trial: every trial diverged")
        return self.trial(outcome.best_trial)

    def forecast(self, schedule: Schedule | int) -> LongerRun:
        """Forecasts a longer run of the best setting from the study's measured curves.

        It holds the validation loss at the run's end with a 90 % interval, and the selection metric
        that goes with this loss; or the reason why there is no forecast. The setting, and how much
        wider intervals are after earlier forecasts missed, are those of the outcome.

        Args:
            schedule: of the run; or its steps, for the trial's own schedule carried over.

        Raises:
            UserError: the study has no outcome yet, it is a race to a fit, every trial diverged, or
                the run is shorter than the study's.
        """
        outcome, best = self.found, self.best_trial.record
        if not isinstance(outcome, TrialsOutcome):
            raise UserError(f"{self.folder} is a race to a fit; ask a round for a forecast")
        trials = [trial.record for trial in self.trials]
        longest = [t for t in trials if t.schedule.total_steps == self.config["max_train_steps"]]
        carried = carried_trial(longest, self.selection) or best
        wider = outcome.forecast.wider if outcome.forecast else 1.0
        later = outlook(trials, carried, self.selection, wider)
        if isinstance(schedule, Schedule):
            return later.run(schedule)
        if schedule < carried.schedule.total_steps:
            raise UserError(
                f"a run of {schedule} steps is shorter than trial {carried.trial}, of "
                f"{carried.schedule.total_steps}: give as many or more, or a Schedule"
            )
        return later.carried(int(schedule))

    def to_pandas(self) -> pd.DataFrame:
        """One row per trial: hyperparameters, status, steps, and metrics at its best step.

        ``last_train_loss`` is from the last evaluation: a sweep does not select by validation, so
        the best step of a trial can lie long before its fit.

        A race does not validate every trial. One without a best step has the metrics of its last
        evaluation, and ``partial_train_examples`` says on how many training examples.
        """
        import pandas as pd

        rows = []
        for trial in self.trials:
            record = trial.record
            partial = next((r for r in record.rows[-1:] if PARTIAL in r), {})
            best = record.best_row or partial
            rows.append(
                {
                    "trial": record.trial,
                    "role": f"idea {record.idea}" if record.idea else record.role,
                    **record.hyperparameters,
                    "seed": record.seed,
                    "max_train_steps": record.max_train_steps,
                    "status": record.status,
                    "step": record.step,
                    "best_step": record.best_step,
                    "fitted_at_step": record.fitted_at_step,
                    "steps_reused": record.steps_reused,
                    **{k: v for k, v in best.items() if k not in ("step", "learning_rate")},
                    "last_train_loss": record.rows[-1].get("train_loss") if record.rows else None,
                }
            )
        frame = pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame()
        for column in ("best_step", "fitted_at_step"):
            if column in frame:
                frame[column] = frame[column].astype("Int64")
        return frame

    def measurements(self) -> pd.DataFrame:
        """One row per evaluation of every trial: trial, step, learning rate and metrics."""
        import pandas as pd

        rows = [(t.record.trial, row) for t in self.trials for row in t.record.rows]
        keys = dict.fromkeys(key for _, row in rows for key in row)
        # By columns, which is much faster than by rows.
        columns = {key: [row.get(key, math.nan) for _, row in rows] for key in keys}
        return pd.DataFrame({"trial": [number for number, _ in rows], **columns})


def open_study(path: epath.PathLike) -> StudyResult:
    """Opens a study's folder, such as ``runs/round1`` or ``gs://…``; complete or under way.

    Raises:
        UserError: there is no study in that folder.
    """
    folder = absolute(path)
    if not (folder / "config.json").exists():
        if is_study(folder):
            raise DamagedFileError(f"{folder / 'config.json'} is missing; put a copy back")
        if inside := _names(folder):
            raise UserError(
                f"{folder} is no study, but holds some: open {' or '.join(inside)} in it, or all "
                "by budgetflow.open_studies"
            )
        raise UserError(
            f"there is no study in {folder}; {nearest(folder.name, _names(folder.parent))}"
        )
    return StudyResult(folder, read_json(folder / "config.json")["config"], read_outcome(folder))


def _read(path: epath.Path) -> dict[str, Any]:
    """A JSON file of a folder; empty where there is none."""
    return read_json(path) if path.exists() else {}


def is_study(path: epath.PathLike) -> bool:
    """Whether a folder is that of a study, damaged or not."""
    folder = absolute(path)
    return (folder / "config.json").exists() or (folder / "trials").is_dir()


def open_studies(workdir: epath.PathLike) -> dict[str, StudyResult]:
    """Opens all studies in a folder such as ``runs``, by name.

    Raises:
        UserError: there is none.
    """
    return {folder.name: open_study(folder) for folder in study_folders(workdir)}


def study_folders(workdir: epath.PathLike) -> list[epath.Path]:
    """The folders of the studies in a folder, in order; also damaged ones.

    Raises:
        UserError: there is none.
    """
    folder = absolute(workdir)
    if not (names := _names(folder)):
        raise UserError(f"there are no studies in {folder}; give the --workdir of a launch")
    return [folder / name for name in names]


def _names(folder: epath.Path) -> list[str]:
    """The names of the studies in a folder, in order."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if is_study(path))
