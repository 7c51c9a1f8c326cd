"""A study's folder: whose results it holds, and whether the study can go on there."""

from __future__ import annotations

import datetime
import platform
import shlex
import subprocess
import sys
from typing import Any

import budgetflow
from budgetflow.base.errors import UserError
from budgetflow.base.files import write_json
from budgetflow.config.keys import value_of
from budgetflow.config.schema import to_json
from budgetflow.studies.store.keys import (
    as_begun,
    differing_fields,
    fields_in_words,
    fingerprint,
    libraries,
    of_code,
)
from budgetflow.studies.store.receipts import begin_with_receipts
from budgetflow.studies.store.trial import read_begun, read_outcome
from budgetflow.studies.study import Study


def is_complete(study: Study) -> bool:
    """Whether a study's folder holds its outcome, and not that of fewer trials or seeds."""
    outcome = read_outcome(study.folder)
    return outcome is not None and outcome.get("fingerprint") == study.fingerprint


def check_folder(study: Study) -> None:
    """Checks that a study's folder is empty, or holds results that the study can go on with.

    Raises:
        UserError: it holds another config's results.
    """
    if recorded := read_begun(study.folder):
        _grown_from(study, recorded)


def open_folder(study: Study) -> None:
    """Makes the study's folder, or checks that what lies there belongs to the same config.

    A study of fewer trials or seeds grows into this one; its outcome is kept under another name.

    Raises:
        UserError: the folder holds another config's results.
    """
    path = study.folder / "config.json"
    if recorded := read_begun(study.folder):
        before = _grown_from(study, recorded)
        if before is None:
            # What changes nothing here may say something to a later study, as tags do.
            if recorded["config"] != to_json(study.config):
                write_json(path, {**recorded, "config": to_json(study.config)})
            return
        if (outcome := study.folder / "outcome.json").exists():
            outcome.replace(study.folder / f"outcome_of_{before}.json")
    begin_with_receipts(study.folder)  # before there is a study to go on with
    write_json(
        path,
        {
            "fingerprint": study.fingerprint,
            "config": to_json(study.config),
            "libraries": libraries(),
            "found_on": study.found_on,
        },
    )
    write_json(study.folder / "begun.json", _begun(study))


def _begun(study: Study) -> dict[str, Any]:
    """When, how and with which code a study is begun: for its readers; no result rests on it."""
    begun = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "revision": _revision(),
        "versions": {"budgetflow": budgetflow.__version__, "python": platform.python_version()},
        "builds_on": study.earlier.name if study.earlier is not None else None,
        "forked_from": study.forked_from,
    }
    return {name: value for name, value in begun.items() if value is not None}


def _revision() -> str | None:
    """The git commit of the folder that it is launched in; with "+" where files have changed."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return None
    return described.stdout.strip()


def _grown_from(study: Study, recorded: dict[str, Any]) -> str | None:
    """What a folder holds if the study can grow from it, as "16_trials"; None if the study itself.

    Raises:
        UserError: it holds another config's results.
    """
    if recorded["fingerprint"] == study.fingerprint:
        return None
    if "found_on" not in recorded:
        raise UserError(
            f"{study.folder} holds results of an earlier version of budgetflow, which can "
            "be read but not gone on with; give another --workdir or config.name"
        )
    found_on = recorded["found_on"]
    begun = as_begun(study.found_on, recorded, study.builds_on)
    code = of_code(differing_fields(found_on, study.found_on))
    names = sorted({*code, *differing_fields(found_on, begun)})
    for field, what in study.kind.grows.items():
        before, now = value_of(found_on, field), value_of(study.config, field)
        if names == [field] and before and now and _is(study, field, before, recorded):
            if before < now:
                return f"{before}_{what}"
            raise UserError(
                f"config.{field} = {now}: {study.folder} holds {before} {what} already, and none "
                f"is thrown away; set {before} or more, or give another --workdir or config.name"
            )
    remedy = "undo the change, " if any(n.startswith("code.") for n in names) else ""
    if fingerprint(begun, study.builds_on) == recorded["fingerprint"]:
        remedy = "undo the change, vouch with --same_results that it changes no number, "
    is_all_new = bool(code) or any(name.partition(".")[0] == "content" for name in names)
    if study.kind.promotes and not is_all_new:
        remedy += "go on beside it with what is still the same by --fork=NAME, "
    words = [fields_in_words(names)] if names else []
    if fingerprint(found_on, study.builds_on) != recorded["fingerprint"]:
        words.append("the study it builds on")
    raise UserError(
        f"{study.folder} holds results of another config, code or data (they differ in "
        f"{', '.join(words)}); {remedy}give another --workdir or config.name, or delete that folder"
    )


def _is(study: Study, field: str, before: int, recorded: dict[str, Any]) -> bool:
    """Whether a study with another number in a field is the recorded one."""
    section, _, name = field.partition(".")
    found_on = {**study.found_on, section: {**study.found_on[section], name: before}}
    return fingerprint(found_on, study.builds_on) == recorded["fingerprint"]
