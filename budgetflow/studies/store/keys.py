"""What results depend on: config, code, data, devices. A fingerprint, and two keys for reuse.

All three come from the marks in the schema (:class:`budgetflow.config.fields.Changes`), so that a
field counts unless its definition says that it changes nothing; and from what a config only names:
the code behind its import paths (:mod:`budgetflow.base.source_code`), what the data set holds, and
budgetflow itself.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from typing import Any

from jax.sharding import Mesh

from budgetflow.base.import_path import is_import_path
from budgetflow.base.source_code import OWN, framework_source, policy_digests, source_digests
from budgetflow.config.fields import Changes
from budgetflow.config.keys import value_of
from budgetflow.config.schema import FREE_FORM, StudyConfig, part
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.training.exactness import settings
from budgetflow.engine.training.mesh import device_kind
from budgetflow.studies.store.recorded_code import with_todays_digests

LIBRARIES = ("jax", "jaxlib", "flax", "optax")
# The fields that may hold import paths.
_CODE = (
    *("data.name", "data.transform", "model.name", "task.name", "optimizer.name"),
    *("augmentation.name", "schedule.function"),
)
# What of a key is code: the user's, and budgetflow's own.
_ALL_CODE = ("code", OWN)
# Fields that were taken out of the schema, and the value with which nothing is missed.
REMOVED = {"mesh.vmap_trials": 1, "sweep.stop_hopeless": False}
_MISSING = object()


def dependencies(
    config: StudyConfig, dataset: Dataset, changes: Changes, policy: Any = None
) -> dict[str, Any]:
    """All that can change ``changes`` or more, but for devices and libraries, as JSON values.

    Args:
        config: the study's config, or a trial's.
        dataset: its data.
        changes: what it can change.
        policy: of an outcome, the function that decides.
    """
    most = {"train": Changes.STATES, "validation": Changes.MEASUREMENTS, "test": Changes.OUTCOME}
    splits = {name: getattr(dataset, name) for name in most if most[name] >= changes}
    return {
        **part(config, changes),
        "code": code(config, policy),
        "content": {name: split.content for name, split in splits.items() if split is not None},
        OWN: framework_source(),
    }


def code(config: StudyConfig, policy: Any = None) -> dict[str, dict[str, str]]:
    """The code that a config names: field to the digests of modules.

    Args:
        config: the config.
        policy: the function that decides, which changes outcomes and no states; None to leave it
            out.
    """
    digests = {}
    for field in _CODE:
        path = value_of(config, field)
        # "contrib.muon" is optax's.
        if path and is_import_path(path) and path.partition(".")[0] not in (*LIBRARIES, "contrib"):
            digests[field] = source_digests(path, f"config.{field}")
    if policy is not None:
        path = config.kind if is_import_path(config.kind) else None
        digests["kind"] = policy_digests(policy, path)
    return digests


def fingerprint(found_on: dict[str, Any], builds_on: str | None) -> str:
    """A hash of everything that can change a study's results.

    Args:
        found_on: the :func:`dependencies` of its outcome.
        builds_on: the fingerprint of the study it builds on.
    """
    values = {**found_on, "builds_on_fingerprint": builds_on}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def begun_with_equal_code(found_on: dict[str, Any], recorded: dict[str, Any]) -> bool:
    """Whether a study was begun with another version whose code does what today's does.

    Args:
        found_on: what the study is found on today.
        recorded: what its folder's ``config.json`` holds.
    """
    before = recorded.get("found_on", {})
    renewed = with_todays_digests(before)
    is_equal = all(renewed.get(name) == found_on[name] for name in _ALL_CODE)
    return is_equal and any(before[name] != found_on[name] for name in _ALL_CODE)


def as_begun(
    found_on: dict[str, Any], recorded: dict[str, Any], builds_on: str | None
) -> dict[str, Any]:
    """What a study is found on, were its code still what it was when its folder was begun.

    That is the code which the folder records, without the config fields that were added since, if
    they are at their defaults, and with those that were taken out, if they had no effect. All else
    stays as it is: if it is not as recorded, the fingerprint differs.

    Args:
        found_on: what the study is found on today.
        recorded: what the folder's ``config.json`` holds.
        builds_on: the fingerprint of the study it builds on.

    Returns:
        It; or ``found_on``, if the folder is damaged, builds on another study, or does not say.
    """
    before = recorded.get("found_on")
    if before is None or fingerprint(before, builds_on) != recorded["fingerprint"]:
        return found_on
    defaults = part(StudyConfig(kind=found_on["kind"]), Changes.OUTCOME)
    begun = _without_added(found_on, before, defaults)
    for field, value in REMOVED.items():
        section, _, name = field.partition(".")
        fields = begun.get(section, {})
        if name not in fields and before.get(section, {}).get(name, _MISSING) == value:
            begun[section] = {**fields, name: value}
    return begun | {name: before[name] for name in _ALL_CODE}


def _without_added(
    fields: dict[str, Any], before: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, Any]:
    """The fields without those that were not there before and are at their defaults."""
    kept = {}
    for name, value in fields.items():
        if name in before or name not in defaults or value != defaults[name]:
            # Arguments are the user's own: to leave one out is not to give budgetflow's default.
            is_section = isinstance(value, dict) and name in defaults and name not in FREE_FORM
            if is_section and isinstance(before.get(name), dict):
                value = _without_added(value, before[name], defaults[name])
            kept[name] = value
    return kept


def state_key(
    config: StudyConfig, dataset: Dataset, varied: Iterable[str], mesh: Mesh, checks_fit: bool
) -> dict[str, Any]:
    """All that a trial's states depend on, but for its schedule, as JSON values.

    How a batch is divided among devices changes the order of sums, and so the last bits; so do
    libraries, the kind of device, and settings of JAX and XLA.

    Args:
        config: the trial's config, its hyperparameters filled in.
        dataset: its data.
        varied: the fields that the study's search space varies.
        mesh: the devices of the study.
        checks_fit: whether the trial notices the step at which the training set is fitted.
    """
    devices = {"kind": device_kind(), "data": mesh.shape["data"], "fsdp": mesh.shape["fsdp"]}
    if mesh.shape["fsdp"] > 1:
        devices["min_sharded_size"] = config.mesh.min_sharded_size
    # These are in the program where they vary, even at strength 0.
    in_program = ("regularization.", "augmentation.")
    return {
        **dependencies(config, dataset, Changes.STATES),
        "varied": sorted(name for name in varied if name.startswith(in_program)),
        "checks_fit": checks_fit,
        "devices": devices,
        "libraries": libraries(),
        **({"settings": changed} if (changed := settings()) else {}),
    }


def measurement_key(config: StudyConfig, dataset: Dataset) -> dict[str, Any]:
    """What the measurements of equal states depend on: how, and on what, they are measured."""
    validation = {"validation": dataset.validation.content}
    return {**part(config, Changes.MEASUREMENTS), "content": validation}


def libraries() -> dict[str, str]:
    """The versions of the libraries that compute."""
    return {name: _version(name) for name in LIBRARIES}


# To look it up takes longer than all else that a trial's key does.
_version = functools.cache(importlib.metadata.version)


def differing_fields(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of the fields in which two configs or keys, as JSON values, differ."""
    names: list[str] = []
    for name in sorted(first.keys() | second.keys()):
        a, b = first.get(name, _MISSING), second.get(name, _MISSING)
        if isinstance(a, dict) and isinstance(b, dict):
            names += differing_fields(a, b, f"{prefix}{name}.")
        elif a != b:
            names.append(f"{prefix}{name}")
    return names


def of_code(names: Iterable[str]) -> list[str]:
    """Those of the names by :func:`differing_fields` that are of code, not of config or data."""
    return [name for name in names if name.partition(".")[0] in _ALL_CODE]


def fields_in_words(names: Sequence[str]) -> str:
    """The fields in which two keys differ, for people."""
    return ", ".join(dict.fromkeys(map(_in_words, names)))


def _in_words(name: str) -> str:
    head, _, rest = name.partition(".")
    if head == "code":
        field = next(name for name in (*_CODE, "kind") if f"{rest}.".startswith(f"{name}."))
        module = rest.removeprefix(field).strip(".")
        if module == OWN or (field == "kind" and not module):
            return "budgetflow's code"
        return f"the code behind config.{field}" + (f" ({module})" if module else "")
    words = {
        "settings": f"{rest or 'settings'} of JAX and XLA",
        "derived": "what is derived from the earlier round",
        "content": f"what config.data.{rest.partition('.')[0]}_split holds",
        OWN: "budgetflow's code",
    }
    return words.get(head, name)
