"""The kinds of study, a module each: what it checks, plans, decides and concludes.

- ``kind.py``: :class:`~budgetflow.studies.kinds.kind.Kind`, all that tells one kind from another.
- ``sweep.py``, ``comparison.py``: kinds whose trials race at constant learning rates.
- ``round.py``, ``cooldowns.py``, ``rounds.py``: kinds whose trials all run to their ends.
- ``conclusions.py``, ``forecasts.py``: what a round concludes beside its best trial.

To add a kind, make a :class:`Kind` in a module of its own, by ``dataclasses.replace`` of the
nearest one, and enter it into :data:`KINDS`; one of your own needs no entry, its import path is its
name. A kind with a section of its own has that in :mod:`budgetflow.config.schema`, and names it in
``sections``; one that finds something else than the others has an outcome in the playbook.
"""

from __future__ import annotations

from ml_collections import config_dict

from budgetflow.base.errors import ConfigError, nearest, shown
from budgetflow.base.import_path import import_object, is_import_path
from budgetflow.config.checks import Rule, check_combinations, check_effects
from budgetflow.config.loading import typed_config
from budgetflow.config.schema import StudyConfig
from budgetflow.studies.kinds.comparison import COMPARISON
from budgetflow.studies.kinds.cooldowns import COOLDOWNS
from budgetflow.studies.kinds.kind import Kind
from budgetflow.studies.kinds.round import ROUND
from budgetflow.studies.kinds.rounds import ROUNDS
from budgetflow.studies.kinds.sweep import LR_SWEEP

KINDS = {
    "lr_sweep": LR_SWEEP,
    "round": ROUND,
    "rounds": ROUNDS,
    "cooldowns": COOLDOWNS,
    "comparison": COMPARISON,
}
_FOR_ROUNDS = "is for rounds; a sweep trains at constant learning rates and varies nothing else"
# The sections of a config that not every kind of study reads, and what they are for.
SECTIONS = {
    **{
        name: f"is for config.kind = {kind!r}" for kind, of in KINDS.items() for name in of.sections
    },
    "schedule": _FOR_ROUNDS,
    "search": _FOR_ROUNDS,
    "transfer": "is for a round that builds on another; set config.builds_on",
    "ideas": "is for rounds",
}


def kind_of(config: StudyConfig) -> Kind:
    """The kind of a study.

    Raises:
        ConfigError: there is no such kind.
    """
    return kind_named(config.kind)


def kind_named(name: str) -> Kind:
    """The kind of a name in :data:`KINDS`, or at an import path.

    Raises:
        ConfigError: there is none.
    """
    if name in KINDS:
        return KINDS[name]
    where = f"config.kind = {shown(name)}"
    if not is_import_path(name):
        names = ", ".join(map(repr, KINDS))
        raise ConfigError(
            f"{where}: should be {names} or the import path of a "
            f"budgetflow.studies.kinds.kind.Kind; {nearest(name, KINDS)}"
        )
    return import_object(name, "config.kind", of_type=Kind)


def parse_study(config: config_dict.ConfigDict) -> StudyConfig:
    """The frozen form of a config, checked as one of its kind of study.

    Raises:
        ConfigError: as :func:`budgetflow.config.parse_config`; or there is no such kind, a field
            has no effect in it, or its own checks fail.
    """
    study = typed_config(config)
    kind = kind_of(study)
    others = sorted(SECTIONS.keys() - kind.sections)
    check_effects(study, [Rule((name,), lambda config: False, SECTIONS[name]) for name in others])
    check_combinations(study)
    races = Rule(
        ("evaluation.whole_in_races",),
        kind.checks_fit,
        "is for trials that race to a perfect fit; others are evaluated in full every time",
    )
    check_effects(study, (*kind.rules, races))
    kind.check(study)
    return study


def check_follows(study: StudyConfig, built_on: StudyConfig) -> None:
    """Checks what a study takes from the one that it builds on, before that one has run.

    Raises:
        ConfigError: that one cannot have it.
    """
    promoted, kind = study.search.promote_trials, kind_of(built_on)
    if study.search.derive and not kind.derives:
        raise ConfigError(
            f"config.search.derive: {built_on.name}, which the study builds on, is no round"
        )
    if not kind.gives_length:
        raise ConfigError(
            f"config.builds_on: {built_on.name} is a comparison, which finds a factor, no length; "
            "build on the study that the factor is for, and set config.max_train_steps_factor"
        )
    if not kind.promotes:
        if study.transfer != type(study.transfer)():
            raise ConfigError(
                f"config.transfer has no effect: {built_on.name}, which the study "
                "builds on, is a sweep, not a round"
            )
        if promoted:
            raise ConfigError(
                f"config.search.promote_trials = {promoted}: {built_on.name}, which "
                "the study builds on, is a sweep; it should be a round"
            )
    elif promoted > (most := kind.num_trials(built_on)):
        raise ConfigError(
            f"config.search.promote_trials = {promoted}, but {built_on.name} has only {most} trials"
        )
