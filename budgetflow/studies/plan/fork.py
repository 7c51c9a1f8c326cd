"""A study under another name, which takes over from the one it was what is still the same.

What that is, keys of states decide, as between rounds: see :mod:`budgetflow.studies.plan.reuse`.
"""

from __future__ import annotations

from etils import epath

from budgetflow.base.errors import UserError
from budgetflow.base.files import read_json
from budgetflow.config.schema import StudyConfig
from budgetflow.studies.kinds import kind_of


def check_fork(study: StudyConfig, forked_from: str, folder_of_all: epath.Path) -> None:
    """Checks that a study can take over states of another one.

    Args:
        study: the fork.
        forked_from: the name of the other one.
        folder_of_all: the folder that both lie in.

    Raises:
        UserError: there is none of that name, it is the same, or its trials cannot be continued.
    """
    where = f"--fork={study.name}"
    if forked_from == study.name:
        raise UserError(f"{where}: give the fork another name than that of the study itself")
    if not (folder_of_all / forked_from / "config.json").exists():
        raise UserError(f"{where}: there is no study {forked_from!r} in {folder_of_all} to fork")
    kind = kind_of(study)
    if not kind.promotes or kind.is_planned:
        raise UserError(
            f"{where}: nothing is taken over of a study of kind {study.kind}; set config.name"
        )


def origin(study_folder: epath.Path) -> epath.Path | None:
    """The folder of the study that one was forked from, if it is still there."""
    begun = study_folder / "begun.json"
    name = read_json(begun).get("forked_from") if begun.exists() else None
    return study_folder.parent / name if name and (study_folder.parent / name).exists() else None
