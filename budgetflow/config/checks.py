"""Checks of a config as a whole: keys that contradict each other or have no effect.

A kind of study adds rules of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from budgetflow.base.errors import ConfigError, nearest_numbers, shown
from budgetflow.base.import_path import is_import_path
from budgetflow.config.keys import leaves, value_of
from budgetflow.config.schema import RoundsConfig, StudyConfig
from budgetflow.config.search_space import BASE_LEARNING_RATE
from budgetflow.engine.decays import DECAYS


@dataclasses.dataclass(frozen=True)
class Rule:
    """When keys of a config have an effect; elsewhere they are refused.

    Attributes:
        keys: a field or a section each.
        has_effect: whether they have one in a config.
        because: what they are for, as the rest of a sentence that begins with the key.
    """

    keys: tuple[str, ...]
    has_effect: Callable[[StudyConfig], bool]
    because: str


def _of_decays(parameter: str) -> Rule:
    """A parameter has an effect where a trial can have a decay that it belongs to."""
    names = [name for name, decay in DECAYS.items() if parameter in decay.parameters]
    return Rule(
        keys=(f"schedule.{parameter}",),
        has_effect=lambda c: not possible(c, "schedule.decay").isdisjoint(names),
        because=f"is for config.schedule.decay = {' or '.join(map(repr, names))}",
    )


def _warms_up(config: StudyConfig) -> bool:
    lengths = ("schedule.warmup_steps", "schedule.warmup_fraction")
    return any(possible(config, length) - {None, 0} for length in lengths)


def _draws_points(config: StudyConfig) -> bool:
    if config.search.derive:
        return True
    if config.search.space:
        return config.search.method != "grid"
    return config.search.trials == 1 and not config.search.promote_trials


def _derives(config: StudyConfig) -> bool:
    """Whether a round is derived, or rounds are planned of which the later ones are."""
    return config.search.derive or config.rounds != RoundsConfig()


RULES = (
    Rule(
        keys=("transfer",),
        has_effect=lambda c: c.builds_on is not None,
        because="is for a round that builds on another; set config.builds_on",
    ),
    Rule(
        keys=("max_train_steps_factor",),
        has_effect=lambda c: c.builds_on is not None,
        because="multiplies the answer of an earlier study; set config.builds_on",
    ),
    Rule(
        keys=("max_train_steps_factor",),
        has_effect=lambda c: c.max_train_steps is None,
        because="multiplies the answer of an earlier study, but config.max_train_steps is set too; "
        "set this to 1.0, or that to None",
    ),
    Rule(
        keys=("search.promote_trials",),
        has_effect=lambda c: c.builds_on is not None,
        because="needs a round to build on; set config.builds_on",
    ),
    Rule(
        keys=("search.derive",),
        has_effect=lambda c: c.builds_on is not None and not c.search.promote_trials,
        because="takes the search space from the round that the study builds on; set "
        "config.builds_on, and leave promote_trials at 0",
    ),
    Rule(
        keys=("search.carry", "search.reruns"),
        has_effect=_derives,
        because="is for config.search.derive = True, or config.kind = 'rounds'",
    ),
    Rule(
        keys=("search.seeds",),
        has_effect=lambda c: _derives(c) or bool(c.ideas),
        because="is for what is compared with each other: set config.search.derive or config.ideas",
    ),
    Rule(
        keys=("schedule",),
        has_effect=lambda c: not c.search.derive or any("schedule" in i for i in c.ideas.values()),
        because="is not used by config.search.derive, which carries the earlier round's best "
        "schedule over; leave it at its default",
    ),
    Rule(
        keys=("search.space",),
        has_effect=lambda c: not c.search.promote_trials,
        because="is not used by config.search.promote_trials, which takes hyperparameters from the "
        "earlier round; leave one at its default",
    ),
    Rule(
        keys=(BASE_LEARNING_RATE,),
        has_effect=lambda c: not c.search.promote_trials,
        because="is not used by config.search.promote_trials, which keeps each trial's own base "
        "learning rate; leave it at its default",
    ),
    Rule(
        keys=("search.method",),
        has_effect=lambda c: bool(c.search.space),
        because="is how points of config.search.space are drawn, which is empty",
    ),
    Rule(
        keys=("search.trials",),
        has_effect=_draws_points,
        because="is how many points of config.search.space are drawn; an empty space has a single "
        "one, 'grid' takes all, and promote_trials is a number of its own",
    ),
    *map(_of_decays, dict.fromkeys(name for d in DECAYS.values() for name in d.parameters)),
    Rule(
        keys=(
            "schedule.warmup_start_learning_rate",
            "schedule.warmup_start_learning_rate_fraction",
        ),
        has_effect=_warms_up,
        because="is where warmup begins; set config.schedule.warmup_steps or warmup_fraction",
    ),
    Rule(
        keys=("data.data_dir",),
        has_effect=lambda c: not is_import_path(c.data.name),
        because="is where TFDS keeps its data; config.data.name is a function",
    ),
)


def check_effects(config: StudyConfig, rules: Iterable[Rule]) -> None:
    """Checks that every key that is set has an effect, by some rules.

    Raises:
        ConfigError: one has none.
    """
    default = StudyConfig(kind=config.kind)
    varied = {dimension.name for dimension in config.search.space}
    for rule in rules:
        for key in rule.keys:
            for name, value in leaves(key, value_of(config, key)):
                is_set = value != value_of(default, name) or name in varied
                if is_set and not rule.has_effect(config):
                    raise ConfigError(
                        f"config.{name} = {shown(value)} has no effect: config.{key} {rule.because}"
                    )


def possible(config: StudyConfig, key: str) -> set[Any]:
    """The values that a field can have in the study's trials; of a range, its ends."""
    for dimension in config.search.space:
        if dimension.name == key:
            return {*dimension.values} or {dimension.low, dimension.high}
    return {value_of(config, key)}


def check_combinations(study: StudyConfig) -> None:
    """Checks what the fields of a config mean together.

    Raises:
        ConfigError: they contradict each other, or one has no effect.
    """
    for section in ("model", "task", "optimizer", "augmentation"):
        if not getattr(study, section).get("name"):
            raise ConfigError(f"config.{section}.name is missing; it says which {section} to use")
    parts, batch_size = study.gradient_accumulation, study.data.batch_size
    if batch_size % parts:
        hint = nearest_numbers(parts, lambda n: batch_size % n == 0)
        raise ConfigError(
            f"config.gradient_accumulation = {parts} does not divide "
            f"config.data.batch_size = {batch_size}; {hint}"
        )
    check_effects(study, RULES)
