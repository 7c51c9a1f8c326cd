"""A study: its resolved config, the plans of its trials, and its folder."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath
from jax.sharding import Mesh

from budgetflow.base import processes
from budgetflow.base.errors import ConfigError, UserError
from budgetflow.base.user_code import user_code
from budgetflow.config.fields import MAX_STEPS, Changes
from budgetflow.config.keys import changed_fields, replace_fields
from budgetflow.config.schedule import ScheduleConfig, resolve_schedule
from budgetflow.config.schema import DEFAULT_TRIALS, DataConfig, StudyConfig
from budgetflow.config.searchable import check_ideas, check_search_space
from budgetflow.engine.data.contradictions import check_more_than_one_target, with_fit_targets
from budgetflow.engine.data.source import Dataset, load_dataset, with_checked_targets
from budgetflow.engine.training.mesh import check_batch_size, make_mesh, trial_slices
from budgetflow.engine.training.spec import make_task, task_num_outputs
from budgetflow.engine.training.step import Program
from budgetflow.engine.training.tracing import task_metrics
from budgetflow.engine.training.trial_run import trial_program
from budgetflow.playbook.common.measurement import Selection
from budgetflow.studies.kinds import kind_named, kind_of
from budgetflow.studies.kinds.kind import Kind, switch_off
from budgetflow.studies.plan.config_changes import changes_since_sweep
from budgetflow.studies.plan.derived import derivation_basis
from budgetflow.studies.plan.memory import (
    DeviceMemory,
    check_state_fits,
    device_memory,
    state_bytes,
    step_arguments,
)
from budgetflow.studies.plan.trials import TrialPlan
from budgetflow.studies.store.keys import as_begun, begun_with_equal_code, dependencies, fingerprint
from budgetflow.studies.store.trial import read_begun, read_outcome


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A study that is ready to run.

    Attributes:
        config: its config, ``max_train_steps`` and ``search.trials`` resolved.
        asked: its config as it was given.
        folder: where it lies.
        dataset: its data.
        mesh: the devices it runs on.
        found_on: what its results are found on, as JSON values; see
            :func:`budgetflow.studies.store.keys.dependencies`. The code there is what its folder
            was begun with, which is not today's where ``--same_results`` vouches for it.
        builds_on: the fingerprint of the study it builds on.
        higher_is_better: whether higher values of the selection metric are better.
        plans: the trials that are known before it runs, by number.
        earlier: the folder of the study it builds on, whose trials can be continued.
        departures: how its config departs from the one that its length was found on, in sentences.
        same_results: whether its owner vouches for changed code; see :func:`resolve`.
        lengths_to_come: of the trials of later studies of its chain, as far as they are known.
        forked_from: the name of a study beside it whose states it takes over where they are still
            the same, or None.
    """

    config: StudyConfig
    asked: StudyConfig
    folder: epath.Path
    dataset: Dataset
    mesh: Mesh
    found_on: dict[str, Any]
    builds_on: str | None = None
    higher_is_better: bool = False
    plans: tuple[TrialPlan, ...] = ()
    earlier: epath.Path | None = None
    departures: tuple[str, ...] = ()
    same_results: bool = False
    lengths_to_come: tuple[int, ...] = ()
    forked_from: str | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """What its results are found on, as a hash."""
        return fingerprint(self.found_on, self.builds_on)

    @property
    def kind(self) -> Kind:
        """What kind of study it is."""
        return kind_of(self.config)

    @property
    def max_train_steps(self) -> int:
        """The length of every trial; of cooldowns, of the longest."""
        assert self.config.max_train_steps is not None
        return self.config.max_train_steps

    @property
    def steps_per_epoch(self) -> int:
        """The updates that the training set makes."""
        return math.ceil(self.dataset.train.num_examples / self.config.data.batch_size)

    @property
    def selection(self) -> Selection:
        """What selects checkpoints and trials."""
        metric = self.config.evaluation.selection_metric
        counts = metric.endswith(("error_rate", "accuracy"))
        examples = self.dataset.validation.num_examples if counts else None
        return Selection(f"validation_{metric}", self.higher_is_better, examples)

    def later_steps(self, added: Collection[int]) -> Iterator[int]:
        """The steps to train of each trial that has not been added yet."""
        return (
            plan.length_steps - plan.steps_to_reuse
            for number, plan in enumerate(self.plans)
            if number not in added
        )


def resolve(
    config: StudyConfig, folder: epath.Path, earlier: epath.Path | None, same_results: bool = False
) -> Study:
    """Makes a config into a study, with every trial of a round planned and checked.

    Args:
        config: the parsed config.
        folder: the study's folder.
        earlier: the folder of the study it builds on, complete, or None.
        same_results: whether its owner vouches that code which has changed since the folder was
            begun changes no number.

    Raises:
        ConfigError: the config does not fit the data, the model or the earlier study.
        UserError: the earlier study has no answer to build on.
    """
    asked = config
    earlier_outcome = processes.on_main(read_outcome, earlier) if earlier else None
    earlier_begun = processes.on_main(read_begun, earlier) if earlier else None
    earlier_config = earlier_begun["config"] if earlier_begun else None
    config = _with_num_trials(config)
    dataset = study_dataset(config)
    departed: tuple[str, ...] = ()
    if config.max_train_steps is None:
        assert earlier is not None and earlier_outcome is not None and earlier_config is not None
        kind = kind_named(earlier_config["kind"])
        departed = changes_since_sweep(config, earlier_config, kind, dataset)
        length = _length(config, earlier, earlier_outcome)
        config = replace_fields(config, {"max_train_steps": length})
    builds_on = earlier_outcome["fingerprint"] if earlier_outcome else None
    mesh = make_mesh(config.mesh, kind_of(config).num_trials(config))
    found_on = dependencies(config, dataset, Changes.OUTCOME, kind_of(config).decide)
    recorded = processes.on_main(read_begun, folder)
    if recorded and (same_results or begun_with_equal_code(found_on, recorded)):
        found_on = as_begun(found_on, recorded, builds_on)
    metrics = task_metrics(first_program(config, mesh)[1].spec)
    study = Study(
        config=config,
        asked=asked,
        folder=folder,
        dataset=dataset,
        mesh=mesh,
        found_on=found_on,
        builds_on=builds_on,
        higher_is_better=metrics[config.evaluation.selection_metric].higher_is_better,
        earlier=earlier,
        same_results=same_results,
    )
    if earlier_config is not None and not kind_named(earlier_config["kind"]).promotes:
        earlier = None
    if config.search.derive:
        assert earlier is not None
        facts = (config, earlier, study.selection, study.max_train_steps)
        basis = processes.on_main(derivation_basis, *facts)
        study = dataclasses.replace(study, found_on={**found_on, "derived": basis})
    plans = study.kind.plans(config, dataset, mesh, study.selection, earlier)
    return dataclasses.replace(study, plans=plans, departures=departed)


def _with_num_trials(config: StudyConfig) -> StudyConfig:
    """A config that says how many trials are drawn, where any are."""
    search = config.search
    if search.space and search.method != "grid" and not search.derive and search.trials is None:
        return replace_fields(config, {"search.trials": DEFAULT_TRIALS})
    return config


def study_dataset(config: StudyConfig) -> Dataset:
    """Opens the study's data.

    Raises:
        ConfigError: it does not exist, or a batch would be larger than the training split.
    """
    try:
        task = tuple(sorted(config.task.items()))
        hash(task)
    except TypeError as error:
        raise ConfigError("config.task takes numbers, strings and tuples, not dicts") from error
    kind = kind_of(config)
    batch_size = config.data.batch_size
    # One data set for every batch size.
    data = dataclasses.replace(config.data, batch_size=1)
    dataset = _dataset(data, task, kind.regularizes, kind.checks_fit(config))
    if batch_size > dataset.train.num_examples:
        raise ConfigError(
            f"config.data.batch_size = {batch_size} is larger than the training split "
            f"({dataset.train.num_examples} examples)"
        )
    return dataset


# See load_dataset, whose arrays these are.
@functools.lru_cache(maxsize=4)
def _dataset(
    config: DataConfig, task_options: tuple[tuple[str, Any], ...], at_random: bool, checks_fit: bool
) -> Dataset:
    """The data of a config, looked at by its task."""
    options = dataclasses.asdict(config)
    for name in ("batch_size", "scale_uint8"):  # not of the data itself
        options.pop(name)
    dataset = load_dataset(**options, at_random=at_random)
    task_config = dict(task_options)
    task = make_task(task_config)
    num_outputs = task_num_outputs(task_config, task, dataset.num_classes)
    if hasattr(task, "bad_targets"):

        def bad_targets(targets: Any) -> tuple[np.ndarray, str]:
            with user_code("config.task.name", task_config["name"]):
                return task.bad_targets(targets, num_outputs)

        dataset = with_checked_targets(dataset, bad_targets)
    if checks_fit:
        check_more_than_one_target(dataset.train)
        dataset = dataclasses.replace(dataset, train=with_fit_targets(dataset.train))
    return dataset


def check_study(config: StudyConfig) -> None:
    """Checks all of a config that can be checked before the studies it builds on have run.

    Raises:
        ConfigError: a name, type, value or combination is wrong; see its message.
    """
    kind = kind_of(config)
    mesh = make_mesh(config.mesh, kind.num_trials(config))
    for variant in kind.variants(config):
        check_batch_size(variant, mesh)
    check_search_space(config)
    check_ideas(config)
    traced = set()
    for filled, program in _programs(config, mesh):
        if id(program) not in traced:
            traced.add(id(program))
            check_state_fits(program)
            program.train_steps.trace(*step_arguments(filled, study_dataset(config), program))
        if filled.schedule != ScheduleConfig() or not config.search.promote_trials:
            for length in kind.lengths(config):
                kind.check_schedule(resolve_schedule(filled.schedule, length))


def study_memory(config: StudyConfig, mesh: Mesh, plans: Sequence[TrialPlan] = ()) -> DeviceMemory:
    """What a study needs on each device, by the model with the largest state; compiles it.

    Args:
        config: the study's, resolved or not.
        mesh: the study's.
        plans: its trials, as far as they are known.
    """
    kind = kind_of(config)
    filled, program = max(
        _programs(config, mesh), key=lambda pair: (state_bytes(pair[1]), pair[0].data.batch_size)
    )
    live_trials = -(-kind.trials_held(config) // mesh.shape["trial"])
    # Of each trial, the best states, those of pinned steps, and the best ones before these; unless
    # they are saved at once. In a race, a trial has none before it fits, and is closed then.
    keep_best = config.checkpoints.keep_best
    pinned = max((len(plan.pinned) for plan in plans), default=int(kind.promotes))
    copies = keep_best + pinned * (1 + keep_best)
    if not program.spec.checks_fit or config.evaluation.whole_in_races:
        copies *= live_trials
    if config.checkpoints.every_seconds == 0:
        copies = 0
    return device_memory(filled, study_dataset(config), program, live_trials, copies)


def first_program(config: StudyConfig, mesh: Mesh) -> tuple[StudyConfig, Program]:
    """The first point of the search space filled in, and its program; not compiled yet."""
    return next(_programs(config, mesh))


def _programs(config: StudyConfig, mesh: Mesh) -> Iterator[tuple[StudyConfig, Program]]:
    """The points of the search space: the config with each filled in, and its program."""
    kind = kind_of(config)
    ideas = [changed_fields(patch) for patch in config.ideas.values()]
    for variant in kind.variants(config):
        dataset = study_dataset(variant)
        if not kind.regularizes:
            variant = switch_off(variant)[0]
        programs: dict[str, Program] = {}
        for values in [*variant.search.points(variant.seed), *ideas]:
            filled = replace_fields(variant, values)
            if (shaping := _shaping(values)) not in programs:
                varied, checks_fit = frozenset(values), kind.checks_fit(config)
                programs[shaping] = trial_program(
                    filled, dataset, varied, checks_fit, trial_slices(mesh)[0]
                )
            yield filled, programs[shaping]


def _shaping(values: dict[str, Any]) -> str:
    """What of a trial's hyperparameters can shape its program, as text.

    Of learning rates, and of strengths that vary, the names say all: their values are traced.
    """
    traced = ("schedule.", "regularization.", "augmentation.")
    is_traced = {name: name.startswith(traced) and not name.endswith(".name") for name in values}
    return repr([(name, None if is_traced[name] else values[name]) for name in sorted(values)])


def _length(config: StudyConfig, earlier: epath.Path, outcome: dict[str, Any]) -> int:
    if outcome["max_train_steps"] is None:
        raise UserError(
            f"{config.name} takes max_train_steps from {earlier.name}, which found none "
            f"({outcome['status']}); see {earlier / 'outcome.json'}, or set config.max_train_steps"
        )
    steps = math.ceil(config.max_train_steps_factor * outcome["max_train_steps"])
    if steps > MAX_STEPS:
        raise ConfigError(
            f"config.max_train_steps_factor = {config.max_train_steps_factor:g} times the "
            f"{outcome['max_train_steps']} steps of {earlier.name} are {steps}; at most {MAX_STEPS}"
        )
    return steps
