"""Reading studies back: outcomes, tables and parameters, in a script or in Colab."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from etils import epath

from budgetflow.errors import UserError, nearest
from budgetflow.files import read_json
from budgetflow.playbook.measurement import PARTIAL, Selection
from budgetflow.playbook.outcomes import Outcome, from_json
from budgetflow.studies.trial import TrialRecord, read_trials, trial_folder

if TYPE_CHECKING:  # pandas takes a second to import, which not every reader needs
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """A trial of a study.

    Attributes:
        folder: where it lies.
        record: its hyperparameters, schedule, status and measurements.
    """

    folder: epath.Path
    record: TrialRecord

    def restore_params(self, step: int | None = None) -> dict[str, Any]:
        """The model's parameters at the best step, as nested dicts of NumPy arrays.

        Those that were evaluated: their moving average, where ``config.ema_decay`` keeps one.

        Args:
            step: another step of which there is a checkpoint.

        Raises:
            UserError: there is no checkpoint of that step, or it is damaged.
        """
        from budgetflow.checkpoints import restore_as_numpy

        known = read_json(self.folder / "checksums.json")
        steps = ", ".join(known) or "none"
        step = self.record.best_step if step is None else step
        if step is None:
            raise UserError(f"{self.folder} was never validated; give one of its steps: {steps}")
        if str(step) not in known:
            raise UserError(f"{self.folder} has no checkpoint of step {step}; there is: {steps}")
        state = restore_as_numpy(self.folder, int(str(step)))
        return state.get("ema_params") or state["params"]


@dataclasses.dataclass(frozen=True)
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
        found = self.found
        metric = found.selection_metric if found else None
        metric = metric or self.config["evaluation"]["selection_metric"]
        return Selection(f"validation_{metric}", bool(found and found.higher_is_better))

    @property
    def timing(self) -> dict[str, Any] | None:
        """How fast the launch that completed it trained; None if it trained nothing."""
        path = self.folder / "timing.json"
        return read_json(path) if path.exists() else None

    @functools.cached_property
    def trials(self) -> list[TrialResult]:
        """All trials, by number."""
        return [
            TrialResult(trial_folder(self.folder, record.trial), record)
            for record in read_trials(self.folder)
        ]

    @property
    def best_trial(self) -> TrialResult:
        """The best trial of a round; of a sweep, the one whose fit is the answer.

        Raises:
            UserError: the study has no outcome yet, or every trial diverged.
        """
        if (found := self.found) is None:
            raise UserError(f"{self.folder} has no outcome yet; launch its config to complete it")
        for trial in self.trials:
            if trial.record.trial == found.best_trial:
                return trial
        raise UserError(f"{self.folder} has no best trial: every trial diverged")

    def to_pandas(self) -> pd.DataFrame:
        """One row per trial: hyperparameters, status, steps, and metrics at its best step.

        A trial without a best step, since a race did not validate it, has those of its last one;
        then ``partial_train_examples`` says of how many training examples.
        """
        import pandas as pd

        rows = []
        for trial in self.trials:
            record = trial.record
            partial = next((r for r in record.rows[-1:] if PARTIAL in r), {})
            best = next((r for r in record.rows if r["step"] == record.best_step), partial)
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

        rows = [{"trial": t.record.trial, **row} for t in self.trials for row in t.record.rows]
        return pd.DataFrame(rows)


def open_study(path: epath.PathLike) -> StudyResult:
    """Opens a study's folder, such as ``runs/round1``; complete or under way.

    Raises:
        UserError: there is no study in that folder.
    """
    folder = epath.Path(path)
    if not (folder / "config.json").exists():
        parent = folder.parent
        siblings = parent.iterdir() if parent.exists() else ()
        names = [path.name for path in siblings if (path / "config.json").exists()]
        raise UserError(f"there is no study in {folder}; {nearest(folder.name, names)}")
    outcome = folder / "outcome.json"
    return StudyResult(
        folder,
        read_json(folder / "config.json")["config"],
        read_json(outcome) if outcome.exists() else None,
    )
