"""Trials on experiment trackers: TensorBoard event files, Weights & Biases runs.

``config.trackers`` names them. They are written by a thread of their own, from the measurements
that a study takes anyway; one that fails is switched off, and the study goes on.

TensorBoard is written by tensorboardX: it needs NumPy and protobuf alone, and writes the summaries
of the HPARAMS tab; clu's writer needs TensorFlow.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from etils import epath

from budgetflow.base.errors import UserError
from budgetflow.base.files import read_json, write_text
from budgetflow.playbook.common.measurement import OVER, Row, TrialRecord
from budgetflow.studies.store.trial import read_trials

# The package that each tracker needs.
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
EVERY_SECONDS = 1.0
# A service that does not answer holds the end of a study up for no longer.
CLOSING_SECONDS = 60.0


class Run(Protocol):
    """A trial on a tracker."""

    def write(self, rows: Sequence[Row]) -> None:
        """Writes measurements."""

    def finish(self, record: TrialRecord) -> None:
        """Writes what is left to say of a trial that is over."""


def check_trackers(names: Iterable[str]) -> None:
    """Checks that what trackers need is installed.

    Raises:
        UserError: it is not.
    """
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(
                f"config.trackers: {name!r} needs the package {PACKAGES[name]}; install it, as by "
                f"pip install 'budgetflow[{name}]', or set config.trackers = ()"
            )


class TensorBoardRun:
    """A trial as event files in ``<study>/tensorboard/<trial>/``; earlier ones are replaced."""

    def __init__(self, study_folder: epath.Path, record: TrialRecord) -> None:
        import tensorboardX
        from tensorboardX.summary import hparams, scalar

        folder = study_folder / "tensorboard" / f"{record.trial:04d}"
        if folder.exists():
            folder.rmtree()
        self._writer, self._scalar = tensorboardX.FileWriter(os.fspath(folder)), scalar
        metrics = [tag for tag in _tagged(record.rows[0]) if "/" in tag]
        experiment, begin, self._end = hparams(_settings(record), dict.fromkeys(metrics))
        for summary in (experiment, begin):
            self._writer.add_summary(summary)

    def write(self, rows: Sequence[Row]) -> None:
        """Writes measurements."""
        for row in rows:
            for tag, value in _tagged(row).items():
                self._writer.add_summary(self._scalar(tag, value), row["step"])
        self._writer.flush()

    def finish(self, record: TrialRecord) -> None:
        """Writes the metrics at the best step, and that the trial is over."""
        for tag, value in _best(record).items():
            self._writer.add_summary(self._scalar(tag, value), record.best_step)
        if not record.diverged:
            self._writer.add_summary(self._end)
        self._writer.close()


class WandbRun:
    """A trial as a run, grouped by study; offline unless the variable WANDB_MODE says otherwise."""

    def __init__(self, study_folder: epath.Path, record: TrialRecord) -> None:
        import wandb

        is_local = "://" not in os.fspath(study_folder)
        fingerprint = read_json(study_folder / "config.json")["fingerprint"]
        identity = f"{study_folder} {fingerprint} {record.trial}"
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "budgetflow"),
            group=study_folder.name,
            name=f"{study_folder.name}/{record.trial:04d}",
            # A study that goes on after it was killed continues its runs.
            id=hashlib.sha256(identity.encode()).hexdigest()[:16],
            resume="allow",
            mode=cast(Any, os.environ.get("WANDB_MODE", "offline")),  # wandb names a wrong one
            dir=os.fspath(study_folder) if is_local else None,
            config=_settings(record),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, rows: Sequence[Row]) -> None:
        """Writes measurements."""
        for row in rows:
            self._run.log(_tagged(row), step=row["step"])

    def finish(self, record: TrialRecord) -> None:
        """Writes the metrics at the best step, and that the trial is over."""
        self._run.summary.update({**_best(record), "status": record.status})
        self._run.finish()


RUNS: dict[str, Any] = {"tensorboard": TensorBoardRun, "wandb": WandbRun}


class Tracking:
    """Writes a study's trials to trackers, on a thread of its own; a context manager.

    Args:
        names: of the trackers.
        folder: the study's.

    Attributes:
        failed: why a tracker was switched off, by its name.
    """

    def __init__(self, names: Sequence[str], folder: epath.Path) -> None:
        self._folder = folder
        self._names = list(names)
        self.failed: dict[str, str] = {}
        self._runs: dict[tuple[str, int], Run] = {}
        # The last step that is written.
        self._written: dict[tuple[str, int], int] = {}
        self._records: list[TrialRecord] = []
        self._news, self._is_closing = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._due_at = 0.0

    def __enter__(self) -> Tracking:
        """Writes nothing yet: a study that is complete is not tracked."""
        return self

    def __exit__(self, *error: object) -> None:
        """Writes what is left, if that takes no more than :data:`CLOSING_SECONDS`."""
        if self._thread is None:
            return
        self._records = read_trials(self._folder)
        self._is_closing = True
        self._news.set()
        self._thread.join(CLOSING_SECONDS)
        if self._thread.is_alive():
            self.failed |= dict.fromkeys(self._names, f"not done after {CLOSING_SECONDS:.0f} s")

    def __call__(self, records: Iterable[TrialRecord]) -> None:
        """Has the thread write what is new in a study's trials, now and then."""
        if not self._names or time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + EVERY_SECONDS
        self._records = list(records)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._news.set()

    def _work(self) -> None:
        is_last = False
        while not is_last:
            self._news.wait()
            self._news.clear()
            is_last, records = self._is_closing, self._records
            for name in list(self._names):
                try:
                    for record in records:
                        self._write(name, record, is_last)
                except Exception as error:  # no network, a full disk: the study goes on
                    self.failed[name] = f"{type(error).__name__}: {error}"
                    self._names.remove(name)

    def _write(self, name: str, record: TrialRecord, is_last: bool) -> None:
        """Writes what is new in a trial; that of an interrupted study is closed as it is."""
        key = name, record.trial
        done = self._folder / name / f"{record.trial:04d}.finished"
        if not record.rows or (key in self._written and key not in self._runs):
            return
        if key not in self._written:
            self._written[key] = -1
            if record.status in OVER and done.exists():  # by an earlier launch
                return
            self._runs[key] = RUNS[name](self._folder, record)
        if new := [row for row in record.rows if row["step"] > self._written[key]]:
            self._runs[key].write(new)
            self._written[key] = new[-1]["step"]
        if record.status in OVER or is_last:
            self._runs.pop(key).finish(record)
        if record.status in OVER:
            write_text(done, "")


def _settings(record: TrialRecord) -> dict[str, Any]:
    """What a trial was run with, flat: numbers and texts."""
    schedule = {f"schedule.{k}": v for k, v in vars(record.schedule).items() if v is not None}
    values = {**schedule, **record.hyperparameters, "seed": record.seed}
    return {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items()}


def _tagged(row: Row) -> dict[str, float]:
    """A measurement by tags such as "train/loss", which trackers group by what is before the /."""
    return {_tag(key): float(value) for key, value in row.items() if key != "step"}


def _tag(key: str) -> str:
    split, _, metric = key.partition("_")
    return f"{split}/{metric}" if split in ("train", "validation") else key


def _best(record: TrialRecord) -> dict[str, float]:
    """The validation metrics at the best step, by tags of their own."""
    row = record.best_row or {}
    return {f"best/{key}": float(row[key]) for key in row if key.startswith("validation_")}
