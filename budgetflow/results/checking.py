"""Checks of all that a study recorded: which files are damaged, and what is lost with each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import read_json
from budgetflow.base.workdir import absolute
from budgetflow.engine.checkpoints import TrialCheckpoints, verify
from budgetflow.results.reading import is_study, study_folders
from budgetflow.studies.store.forecast_ledger import LEDGER, read_ledger
from budgetflow.studies.store.trial import TrialRecord, read_trial, read_trials

# What is lost with each of a study's own files.
COSTS = {
    "config.json": "nothing here can be read or gone on with: put a copy back, or delete the "
    "study's folder and train it again",
    "outcome.json": "no training: delete it and launch again to find the same outcome",
    "checksums.json": "no training: delete outcome.json and launch again, which writes both anew",
    "receipts.json": "no training: delete it, and forecasts are as wide as their law says, if the "
    "study is not complete",
    "plan.json": "no training: delete it, and the plan is made again; a budget in hours is timed "
    "anew, though, and may plan other rounds",
}


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing to check.

    Attributes:
        about: a file or folder.
        run: raises DamagedFileError if it is damaged.
        costs: what it costs if it is.
    """

    about: epath.Path
    run: Callable[[], Any]
    costs: str

    def damage(self) -> str | None:
        """What is wrong; None if all is as it was written."""
        try:
            self.run()
        except DamagedFileError as error:
            return str(error)
        return None


def studies_in(workdir: epath.PathLike) -> list[epath.Path]:
    """The folder itself, if it is a study's, or those of the studies in it; also damaged ones.

    Raises:
        UserError: there is none.
    """
    folder = absolute(workdir)
    return [folder] if is_study(folder) else study_folders(folder)


def checks(folder: epath.Path) -> Iterator[Check]:
    """All that there is to check in a study's folder, one after the other."""
    for path in sorted({folder / "config.json", *folder.glob("*.json")}):
        costs = COSTS.get(path.name, "nothing: delete it")
        yield Check(path, functools.partial(_read, path), costs)
    trials = folder / "trials"
    for path in sorted(trials.iterdir()) if trials.exists() else ():
        if (path / "trial.json").exists():
            yield from _of_trial(path)
    costs = "no training, but for that of trials whose record is missing"
    yield Check(folder, functools.partial(read_trials, folder), costs)


def ledger_checks(workdir: epath.PathLike) -> Iterator[Check]:
    """The check of a workdir's ledger of forecasts, where it has one."""
    folder = absolute(workdir)
    if (folder / LEDGER).exists():
        costs = "the receipt of a forecast, which no later interval is widened by"
        yield Check(folder / LEDGER, functools.partial(_read_ledger, folder), costs)


def _read_ledger(workdir: epath.Path) -> None:
    if damaged := read_ledger(workdir).damaged:
        raise DamagedFileError("; ".join(damaged))


def _read(path: epath.Path) -> None:
    if not path.exists():
        raise DamagedFileError(f"{path} is missing")
    read_json(path)


def _of_trial(folder: epath.Path) -> Iterator[Check]:
    """A trial's record, then its checkpoints, those without checksums included."""
    costs = "the training of all its steps, again"
    yield Check(folder, functools.partial(read_trial, folder), costs)
    try:
        record = read_trial(folder)
    except DamagedFileError:
        return
    checkpoints = folder / "checkpoints"
    there = (path.name for path in checkpoints.iterdir()) if checkpoints.exists() else ()
    steps = {*TrialCheckpoints(folder).steps(), *map(int, filter(str.isdecimal, there))}
    for step in sorted(steps):
        costs = _costs_of_checkpoint(record, step)
        yield Check(folder, functools.partial(verify, folder, step), costs)


def _costs_of_checkpoint(record: TrialRecord, step: int) -> str:
    if record.status == "running":
        return f"up to {record.step} steps, which the next launch trains again by itself"
    if step == record.best_step:
        return f"the parameters of the trial's best step, until its {step} steps are trained again"
    return f"{step} steps to whoever continues the trial, trained again without being asked for"
