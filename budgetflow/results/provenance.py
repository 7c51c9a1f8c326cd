"""How a study was begun, which study it builds on, and what to do after it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import NamedTuple

from budgetflow.playbook.common.outcomes import RoundOutcome, SweepOutcome, TrialsOutcome
from budgetflow.results.reading import StudyResult


class NextStep(NamedTuple):
    """What to do after a study, in a sentence, and the command for it."""

    sentence: str
    command: str


def facts(study: StudyResult) -> dict[str, str]:
    """How a study was begun: name to value, as far as its folder says."""
    begun = study.begun
    versions = {**study.libraries, **begun.get("versions", {})}
    values = {
        "description": study.config.get("description"),
        "begun": begun.get("time"),
        "command": begun.get("command"),
        "code revision": begun.get("revision"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: value for name, value in values.items() if value}


def builds_on(study: StudyResult, names: Iterable[str]) -> str | None:
    """The name of the study that a study builds on, if it is one of those named.

    Folders of older versions do not record it. There it is the study that the trials continue, or
    the one with the name of the config that ``config.builds_on`` holds.
    """
    candidates = [study.begun.get("builds_on")]
    if not study.begun:
        path = study.config.get("builds_on")
        reused = (t.record.reused_from["study"] for t in study.trials if t.record.reused_from)
        candidates = [*reused, PurePath(path).stem if path else None]
    others = set(names) - {study.name}
    return next((name for name in candidates if name in others), None)


def order_of(studies: Mapping[str, StudyResult]) -> list[tuple[StudyResult, int]]:
    """All studies, each after the one that it builds on, and how many there are before it."""
    parents = {name: builds_on(study, studies) for name, study in studies.items()}
    ordered: list[tuple[StudyResult, int]] = []

    def visit(name: str, depth: int) -> None:
        ordered.append((studies[name], depth))
        for child in studies:
            if parents[child] == name and child not in {study.name for study, _ in ordered}:
                visit(child, depth + 1)

    for name in studies:
        if parents[name] is None:
            visit(name, 0)
    return ordered


def next_step(study: StudyResult, followed_by: str | None = None) -> NextStep:
    """What to do after a study.

    Args:
        study: complete or under way.
        followed_by: the name of a study that builds on it, if there is one.
    """
    outcome, launched = study.found, _command_of(study)

    def read(what: str) -> str:
        code = f"import budgetflow; print(budgetflow.open_study({json.dumps(str(study.folder))})"
        return f"python -c {shlex.quote(f'{code}.{what})')}"

    if outcome is None:
        command = launched or study.begun.get("command") or read("to_pandas()")
        return NextStep("If nothing runs it now, launch it again: it goes on from here.", command)
    length, why = None, ""
    if isinstance(outcome, SweepOutcome) and not outcome.has_answer:
        length, why = outcome.suggested_max_train_steps, "Nothing fitted; try"
    elif isinstance(outcome, RoundOutcome):
        diagnosis = outcome.best_step_diagnosis
        if diagnosis.verdict in ("too_long", "too_short"):
            length = diagnosis.suggested_max_train_steps
        why = f"The length was {diagnosis.verdict.replace('_', ' ')}; try"
    if length:
        flags = f"--config.max_train_steps={length} --config.name={study.name}_{length}_steps"
        if launched:
            return NextStep(f"{why} {length} steps.", f"{launched} {flags}")
        return NextStep(f"{why} {length} steps. Launch its config with", flags)
    if followed_by:
        command = f"python -m budgetflow.report --workdir={study.folder.parent}"
        return NextStep(
            f"Go on to {followed_by}, which builds on it.", f"{command} --study={followed_by}"
        )
    if isinstance(outcome, TrialsOutcome) and outcome.best_trial is not None:
        sentence = "Use the best trial: its parameters are restored by"
        return NextStep(sentence, read("best_trial.restore_params().keys()"))
    return NextStep("See its trials in Python:", read("to_pandas()"))


def _command_of(study: StudyResult) -> str | None:
    """The command that launches this study itself, not one that builds on it; None if unknown."""
    command = study.begun.get("command") or ""
    try:
        arguments = shlex.split(command)
    except ValueError:
        return None
    for argument in arguments:
        name, _, value = argument.lstrip("-").partition("=")
        is_its_config = name == "config" and PurePath(value).stem == study.name
        if is_its_config or (name, value) == ("config.name", study.name):
            return command
    return None
