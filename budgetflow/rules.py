"""What in a config contradicts itself, or has no effect."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from budgetflow.decays import DECAYS
from budgetflow.errors import ConfigError, nearest_numbers, shown
from budgetflow.import_path import is_import_path

if TYPE_CHECKING:
    from budgetflow.config import StudyConfig


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
        (f"schedule.{parameter}",),
        lambda config: not possible(config, "schedule.decay").isdisjoint(names),
        f"is for config.schedule.decay = {' or '.join(map(repr, names))}",
    )


# fmt: off
RULES = (
    Rule(("sweep",), lambda c: c.kind == "lr_sweep",
         "is for config.kind = 'lr_sweep'"),
    Rule(("schedule", "search"), lambda c: c.kind != "lr_sweep",
         "is for rounds; a sweep trains at constant learning rates and varies nothing else"),
    Rule(("cooldowns",), lambda c: c.kind == "cooldowns",
         "is for config.kind = 'cooldowns'"),
    Rule(("transfer",), lambda c: c.kind != "lr_sweep" and c.builds_on is not None,
         "is for a round that builds on another; set config.builds_on"),
    Rule(("max_train_steps_factor",), lambda c: c.builds_on is not None,
         "multiplies the answer of an earlier study; set config.builds_on"),
    Rule(("max_train_steps_factor",), lambda c: c.max_train_steps is None,
         "multiplies the answer of an earlier study, but config.max_train_steps is set too; set "
         "this to 1.0, or that to None"),
    Rule(("search.promote_trials",), lambda c: c.builds_on is not None,
         "needs a round to build on; set config.builds_on"),
    Rule(("search.space",), lambda c: not c.search.promote_trials,
         "is not used by config.search.promote_trials, which takes hyperparameters from the "
         "earlier round; leave one at its default"),
    Rule(("schedule.base_learning_rate",), lambda c: not c.search.promote_trials,
         "is not used by config.search.promote_trials, which keeps each trial's own base learning "
         "rate; leave it at its default"),
    Rule(("search.method",), lambda c: bool(c.search.space),
         "is how points of config.search.space are drawn, which is empty"),
    Rule(("search.trials",), lambda c: c.search.method != "grid" if c.search.space else (
         c.search.trials == 1 and not c.search.promote_trials),
         "is how many points of config.search.space are drawn; an empty space has a single one, "
         "'grid' takes all, and promote_trials is a number of its own"),
    *(_of_decays(name) for name in dict.fromkeys(
         name for decay in DECAYS.values() for name in decay.parameters)),
    Rule(("schedule.warmup_start_learning_rate", "schedule.warmup_start_learning_rate_fraction"),
         lambda c: bool({*possible(c, "schedule.warmup_steps"),
                         *possible(c, "schedule.warmup_fraction")} - {None, 0}),
         "is where warmup begins; set config.schedule.warmup_steps or warmup_fraction"),
    Rule(("data.data_dir",), lambda c: not is_import_path(c.data.name),
         "is where TFDS keeps its data; config.data.name is a function"),
    Rule(("weight_decay_mask",), lambda c: c.kind == "lr_sweep" or possible(
         c, "regularization.weight_decay") != {0.0},
         "is for config.regularization.weight_decay, which is 0"),
    Rule(("evaluation.evaluations",), lambda c: c.kind == "lr_sweep" or (
         c.evaluation.evaluations <= (c.max_train_steps or c.evaluation.evaluations)),
         "is more than config.max_train_steps; at most one evaluation a step"),
    Rule(("sweep.refine",), lambda c: any(b > a * (c.sweep.refine or 1) for a, b in
         itertools.pairwise(sorted(c.sweep.learning_rates))),
         "is the spacing to end with, and config.sweep.learning_rates are as close already; "
         "should be less"),
)
# fmt: on


def check_effects(config: StudyConfig) -> None:
    """Checks that every key that is set has an effect.

    Raises:
        ConfigError: one has none.
    """
    default = type(config)(kind=config.kind)
    varied = {dimension.name for dimension in config.search.space}
    for rule in RULES:
        for key in rule.keys:
            for name, value in _leaves(key, value_of(config, key)):
                is_set = value != value_of(default, name) or name in varied
                if is_set and not rule.has_effect(config):
                    raise ConfigError(
                        f"config.{name} = {shown(value)} has no effect: config.{key} {rule.because}"
                    )


def value_of(config: Any, key: str) -> Any:
    """The value of a dotted key."""
    for name in key.split("."):
        config = config.get(name, 0.0) if isinstance(config, dict) else getattr(config, name)
    return config


def possible(config: StudyConfig, key: str) -> set[Any]:
    """The values that a field can have in the study's trials; of a range, its ends."""
    for dimension in config.search.space:
        if dimension.name == key:
            return {*dimension.values} or {dimension.low, dimension.high}
    return {value_of(config, key)}


def num_trials(config: StudyConfig) -> int:
    """How many trials a study starts with."""
    if config.kind == "lr_sweep":
        return len(config.sweep.learning_rates)
    lengths = len(config.cooldowns.length_fractions) if config.kind == "cooldowns" else 1
    return lengths * (config.search.promote_trials or len(config.search.points(config.seed)))


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
        raise ConfigError(f"config.gradient_accumulation = {parts} does not divide "
                          f"config.data.batch_size = {batch_size}; {hint}")  # fmt: skip
    if study.max_train_steps is None and (study.kind == "lr_sweep" or study.builds_on is None):
        raise ConfigError("config.max_train_steps is missing; only a round that builds on another "
                          "study can take it from there")  # fmt: skip
    check_effects(study)
    if study.kind == "lr_sweep":
        _check_lr_sweep(study)
    if study.kind == "cooldowns":
        _check_cooldowns(study)


def check_follows(study: StudyConfig, earlier: StudyConfig) -> None:
    """Checks what a study takes from the one that it builds on, before that one has run.

    Raises:
        ConfigError: that one cannot have it.
    """
    promoted = study.search.promote_trials
    if earlier.kind == "lr_sweep":
        if study.transfer != type(study.transfer)():
            raise ConfigError(f"config.transfer has no effect: {earlier.name}, which the study "
                              "builds on, is a sweep, not a round")  # fmt: skip
        if promoted:
            raise ConfigError(f"config.search.promote_trials = {promoted}: {earlier.name}, which "
                              "the study builds on, is a sweep; it should be a round")  # fmt: skip
    elif promoted > (most := num_trials(earlier)):
        raise ConfigError(f"config.search.promote_trials = {promoted}, but {earlier.name} has only "
                          f"{most} trials")  # fmt: skip


def _check_cooldowns(study: StudyConfig) -> None:
    fractions = study.cooldowns.length_fractions
    if fractions != tuple(sorted({*fractions})) or fractions[-1:] != (1.0,) or fractions[0] == 0:
        raise ConfigError(f"config.cooldowns.length_fractions = {fractions}: should ascend from "
                          "above 0 to 1")  # fmt: skip
    if study.schedule.warmup_fraction is not None:
        raise ConfigError("config.schedule.warmup_fraction would warm up differently at every "
                          "length, which then share no steps; set warmup_steps")  # fmt: skip


def _check_lr_sweep(study: StudyConfig) -> None:
    rates, seeds = study.sweep.learning_rates, study.sweep.seeds
    if len(set(rates)) != len(rates):
        raise ConfigError(f"config.sweep.learning_rates = {shown(rates)} holds a learning rate "
                          "twice")  # fmt: skip
    if not rates:
        raise ConfigError("config.sweep.learning_rates is empty; make some with log_grid(…)")
    if study.seed + seeds > 2**32:
        raise ConfigError(f"config.seed = {study.seed} and config.sweep.seeds = {seeds} are seeds "
                          f"up to {study.seed + seeds - 1}; at most {2**32 - 1}")  # fmt: skip
    hidden = re.compile("dropout|drop_rate|drop_path|stochastic_depth|label_smoothing|mixup|cutmix")
    for section in ("model", "task", "optimizer"):
        for name, value in getattr(study, section).items():
            if hidden.search(name) and value:
                raise ConfigError(
                    f"config.{section}.{name} looks like regularization, which the sweep must "
                    "switch off; move it to config.regularization"
                )


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a section, with their dotted names; of a field, itself."""
    if not dataclasses.is_dataclass(value):
        yield key, value
        return
    for field in dataclasses.fields(value):
        yield from _leaves(f"{key}.{field.name}", getattr(value, field.name))
