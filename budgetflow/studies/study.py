"""A study: its resolved config, the plans of its trials, and its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from budgetflow import processes
from budgetflow.config import (
    ScheduleConfig,
    StudyConfig,
    checks_fit,
    clear_errors,
    differing_fields,
    fingerprint,
    resolve_schedule,
    to_json,
)
from budgetflow.data.source import Dataset, load_dataset
from budgetflow.errors import ConfigError, UserError, nearest
from budgetflow.files import read_json, write_json
from budgetflow.playbook import lr_sweep, rounds
from budgetflow.playbook.measurement import Decision, TrialView
from budgetflow.playbook.race import SweepSettings, lockstep_grid
from budgetflow.playbook.transfer import NoTransferRuleError, Transfer, transfer
from budgetflow.schedules import Schedule
from budgetflow.studies.search_space import Dimension, points, replace_fields
from budgetflow.studies.trial import TrialRecord, read_trials
from budgetflow.training.memory import peak_bytes, state_bytes
from budgetflow.training.mesh import check_batch_size, make_mesh, trial_slices
from budgetflow.training.step import Program
from budgetflow.training.trial_run import trial_program

# The sections of a config that a search space may vary.
SEARCHABLE = ("schedule", "optimizer", "regularization", "augmentation", "model")
# A guess, for how long a sweep will take.
EPOCHS_TO_FIT = 20
LIBRARIES = ("jax", "jaxlib", "flax", "optax")


@dataclasses.dataclass(frozen=True)
class TrialPlan:
    """A trial before it runs.

    Attributes:
        config: the study's config with the trial's hyperparameters filled in.
        hyperparameters: config field to value.
        schedule: its learning rates.
        continues: the earlier round's trial that it takes over, or None.
        transfer: how that trial's schedule became this one's, or None.
    """

    config: StudyConfig
    hyperparameters: dict[str, Any]
    schedule: Schedule
    continues: TrialRecord | None = None
    transfer: Transfer | None = None

    @property
    def varied(self) -> frozenset[str]:
        """The fields that the search space varies."""
        return frozenset(self.hyperparameters) - {lr_sweep.SEED}

    def trajectory(self, mesh: Mesh) -> str:
        """A fingerprint of all that the trial's states depend on, but for its schedule.

        How a batch is divided among devices, or trials are vectorized, changes the order of sums
        and so the last bits.
        """
        config = to_json(self.config)
        data = config["data"]
        values = {
            **{name: config[name] for name in ("seed", "model", "task", "optimizer")},
            **{name: config[name] for name in ("regularization", "augmentation", "precision")},
            "gradient_accumulation": config["gradient_accumulation"],
            "devices": [mesh.shape["data"], mesh.shape["fsdp"], self.config.mesh.vmap_trials],
            "data": [data["name"], data["train_split"], data["batch_size"]],
            "keys": [data["input_key"], data["target_key"]],
            "varied": sorted(self.varied),
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
            "backend": jax.default_backend(),
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Study:
    """A study that is ready to run.

    Attributes:
        config: its config, ``max_train_steps`` resolved.
        folder: where it lies.
        dataset: its data.
        mesh: the devices it runs on.
        fingerprint: what its results are found on; see :func:`budgetflow.config.fingerprint`.
        round_plans: the trials of a round; empty for a sweep, which plans as it goes.
    """

    config: StudyConfig
    folder: epath.Path
    dataset: Dataset
    mesh: Mesh
    fingerprint: str
    round_plans: tuple[TrialPlan, ...] = ()

    @property
    def max_train_steps(self) -> int:
        """The length of every trial."""
        assert self.config.max_train_steps is not None
        return self.config.max_train_steps

    @property
    def steps_per_epoch(self) -> int:
        """The updates that the training set makes."""
        return math.ceil(self.dataset.train.num_examples / self.config.data.batch_size)

    @property
    def selection_key(self) -> str:
        """The measurement that selects checkpoints and trials."""
        return f"validation_{self.config.evaluation.selection_metric}"

    def plan(self, number: int, hyperparameters: dict[str, Any]) -> TrialPlan:
        """The plan of a trial."""
        if self.config.kind == "round":
            return self.round_plans[number]
        rate = hyperparameters[lr_sweep.LEARNING_RATE]
        schedule = Schedule(base_learning_rate=rate, constant_steps=self.max_train_steps)
        seed = hyperparameters.get(lr_sweep.SEED, self.config.seed)
        config = dataclasses.replace(switch_off(self.config)[0], seed=seed)
        return TrialPlan(config, hyperparameters, schedule)

    def first_plan(self) -> TrialPlan:
        """The plan of a trial like the others, to try things out with."""
        rates = self.config.sweep.learning_rates
        return self.plan(0, {lr_sweep.LEARNING_RATE: rates[len(rates) // 2]})

    def expected_steps(self) -> int:
        """About as many steps as the study will train, of all trials."""
        length = self.max_train_steps
        if self.config.kind == "lr_sweep":
            length = min(length, EPOCHS_TO_FIT * self.steps_per_epoch)
        return num_trials(self.config) * length

    def decide(self, trials: list[TrialView]) -> Decision:
        """What to do next, given what the trials have shown."""
        config = self.config
        if config.kind == "lr_sweep":
            return lr_sweep.decide(
                SweepSettings(
                    config.sweep.learning_rates, self.max_train_steps, config.sweep.max_extensions,
                    self.dataset.train.num_examples, self.steps_per_epoch,
                    config.sweep.fitted_train_loss, config.sweep.refine,
                    tuple(range(config.seed, config.seed + config.sweep.seeds)),
                ),
                trials,
            )  # fmt: skip
        hyperparameters = tuple(plan.hyperparameters for plan in self.round_plans)
        return rounds.decide(
            rounds.RoundSettings(hyperparameters, self.max_train_steps, self.selection_key), trials
        )

    def stops(self, schedule: Schedule) -> list[int]:
        """The steps at which a trial is evaluated, its last step and every pinned one included."""
        if self.config.kind == "lr_sweep":
            return list(lockstep_grid(self.max_train_steps))
        count = min(self.config.evaluation.evaluations, self.max_train_steps)
        grid = np.linspace(self.max_train_steps / count, self.max_train_steps, count)
        return sorted({*(int(step) for step in np.round(grid)), *self.pinned(schedule)})

    def pinned(self, schedule: Schedule) -> list[int]:
        """The steps whose checkpoints stay for longer runs: where the constant period ends."""
        start = schedule.decay_start_step
        return [start] if self.config.kind == "round" and 0 < start < schedule.total_steps else []


def read_outcome(folder: epath.PathLike) -> dict[str, Any] | None:
    """A study's outcome, or None while it has none."""
    path = epath.Path(folder) / "outcome.json"
    return read_json(path) if path.exists() else None


def resolve(config: StudyConfig, folder: epath.Path, earlier: epath.Path | None) -> Study:
    """Makes a config into a study, with every trial of a round planned and checked.

    Args:
        config: the parsed config.
        folder: the study's folder.
        earlier: the folder of the study it builds on, complete, or None.

    Raises:
        ConfigError: the config does not fit the data, the model or the earlier study.
        UserError: the earlier study has no answer to build on.
    """
    earlier_outcome = processes.on_main(read_outcome, earlier) if earlier is not None else None
    dataset = study_dataset(config)
    if config.max_train_steps is None:
        assert earlier is not None and earlier_outcome is not None
        config = replace_fields(
            config, {"max_train_steps": _length(config, earlier, earlier_outcome)}
        )
    builds_on = earlier_outcome["fingerprint"] if earlier_outcome else None
    mesh = make_mesh(config.mesh, num_trials(config))
    study = Study(config, folder, dataset, mesh, fingerprint(config, builds_on))
    if config.kind == "lr_sweep":
        return study
    if config.search.promote_trials:
        assert earlier is not None
        plans = _promoted(study, earlier)
    else:
        plans = _sampled(study)
    return dataclasses.replace(study, round_plans=tuple(plans))


def num_trials(config: StudyConfig) -> int:
    """How many trials a study starts with."""
    if config.kind == "lr_sweep":
        return len(config.sweep.learning_rates)
    search = config.search
    return search.promote_trials or len(
        points(search.space, search.method, search.trials, config.seed)
    )


def study_dataset(config: StudyConfig) -> Dataset:
    """Opens the study's data.

    Raises:
        ConfigError: it does not exist, or a batch would be larger than the training split.
    """
    data = dataclasses.asdict(config.data)
    batch_size = data.pop("batch_size")
    dataset = load_dataset(**data)
    if batch_size > dataset.train.num_examples:
        raise ConfigError(
            f"config.data.batch_size = {batch_size} is larger than the training split "
            f"({dataset.train.num_examples} examples)"
        )
    return dataset


def switch_off(config: StudyConfig) -> tuple[StudyConfig, tuple[str, ...]]:
    """A config without regularization and augmentation, and what was on."""
    on = {
        f"{section}.{name}": value
        for section in ("regularization", "augmentation")
        for name, value in getattr(config, section).items()
        if isinstance(value, int | float) and value
    }
    off = replace_fields(config, dict.fromkeys(on, 0.0))
    return off, tuple(f"{name} = {value:g}" for name, value in on.items())


def check_study(config: StudyConfig) -> None:
    """Checks all of a config that can be checked before the studies it builds on have run.

    Raises:
        ConfigError: a name, type, value or combination is wrong; see its message.
    """
    mesh = make_mesh(config.mesh, num_trials(config))
    check_batch_size(config, mesh)
    check_search_space(config)
    for filled, _ in _programs(config, mesh):
        if config.max_train_steps is not None:
            resolve_schedule(filled.schedule, config.max_train_steps)


def study_peak_bytes(config: StudyConfig, mesh: Mesh) -> int:
    """The most memory that a device needs for a study, by the model with the largest state.

    Compiles that model's train step.
    """
    filled, program = max(_programs(config, mesh), key=lambda pair: state_bytes(pair[1]))
    slices, vectorized = mesh.shape["trial"], config.mesh.vmap_trials
    at_a_time = vectorized
    if config.kind == "lr_sweep":
        at_a_time = max(vectorized, -(-len(config.sweep.learning_rates) // slices))
    return peak_bytes(filled, study_dataset(config), program, at_a_time)


def _programs(config: StudyConfig, mesh: Mesh) -> Iterator[tuple[StudyConfig, Program]]:
    """The points of the search space: the config with each filled in, and its program."""
    dataset = study_dataset(config)
    if config.kind == "lr_sweep":
        config = switch_off(config)[0]
    search = config.search
    for values in points(search.space, search.method, search.trials, config.seed):
        with clear_errors("config.search.space"):
            filled = replace_fields(config, values)
        program = trial_program(
            filled, dataset, frozenset(values), checks_fit(config), trial_slices(mesh)[0]
        )
        yield filled, program


def check_search_space(config: StudyConfig) -> None:
    """Checks that every dimension names a field of the config that may vary.

    Raises:
        ConfigError: it does not; for ``max_train_steps`` with the playbook's reason.
    """
    seen = set()
    for dimension in config.search.space:
        section, _, field = dimension.name.partition(".")
        if "max_train_steps" in dimension.name:
            raise ConfigError(
                "config.search.space varies max_train_steps: never tune the number of steps "
                "within a "
                "study. Pick one value for all its trials, plot the best steps that retrospective "
                "checkpoint selection finds, and use them to choose the next study's value"
            )
        if section not in SEARCHABLE:
            names = ", ".join(f"{name}.…" for name in SEARCHABLE)
            raise ConfigError(
                f"config.search.space cannot vary {dimension.name!r}; what can vary: {names}"
            )
        owner = getattr(config, section)
        fields = (
            owner
            if isinstance(owner, dict)
            else {f.name for f in dataclasses.fields(ScheduleConfig)}
        )
        # A free-form section may vary an argument that the config leaves at its default; whether
        # the model or optimizer takes it is checked with each trial.
        if field not in fields and not isinstance(owner, dict):
            raise ConfigError(
                f"config.search.space: {section} has no field {field!r}; {nearest(field, fields)}"
            )
        if dimension.name in seen:
            raise ConfigError(f"config.search.space holds {dimension.name} twice")
        seen.add(dimension.name)


def open_folder(study: Study) -> None:
    """Makes the study's folder, or checks that what lies there belongs to the same config.

    Raises:
        UserError: it holds another config's results.
    """
    path = study.folder / "config.json"
    config = to_json(study.config)
    if path.exists():
        known = read_json(path)
        if known["fingerprint"] != study.fingerprint:
            fields = [
                name
                for name in differing_fields(known["config"], config)
                if name not in ("name", "builds_on")
                and not name.startswith(("checkpoints.", "mesh."))
            ]
            raise UserError(
                f"{study.folder} holds results of another config (they differ in "
                f"{', '.join(fields) or 'the study it builds on'}); give another --workdir or "
                "config.name, or delete that folder"
            )
        return
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    write_json(path, {"fingerprint": study.fingerprint, "config": config, "libraries": versions})


def _length(config: StudyConfig, earlier: epath.Path, outcome: dict[str, Any]) -> int:
    if outcome["max_train_steps"] is None:
        raise UserError(
            f"{config.name} takes max_train_steps from {earlier.name}, which found none "
            f"({outcome['status']}); see {earlier / 'outcome.json'}, or set config.max_train_steps"
        )
    return math.ceil(config.max_train_steps_factor * outcome["max_train_steps"])


def _sampled(study: Study) -> list[TrialPlan]:
    config, search = study.config, study.config.search
    space: tuple[Dimension, ...] = search.space
    plans = []
    for values in points(space, search.method, search.trials, config.seed):
        filled = replace_fields(config, values)
        schedule = resolve_schedule(filled.schedule, study.max_train_steps)
        plans.append(TrialPlan(filled, values, schedule))
    return plans


def _promoted(study: Study, earlier: epath.Path) -> list[TrialPlan]:
    config = study.config
    records = {record.trial: record for record in processes.on_main(read_trials, earlier)}
    ranked = rounds.rank([record.view() for record in records.values()], study.selection_key)
    if len(ranked) < config.search.promote_trials:
        raise UserError(
            f"config.search.promote_trials = {config.search.promote_trials}, but only "
            f"{len(ranked)} "
            f"trials of {earlier.name} did not diverge"
        )
    plans = []
    for view in ranked[: config.search.promote_trials]:
        record = records[view.trial]
        try:
            carried = transfer(record.schedule, study.max_train_steps)
        except NoTransferRuleError as error:
            raise UserError(f"{earlier.name}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"config.max_train_steps: {error}") from error
        values = record.hyperparameters
        # The schedule is transferred as a whole, not made anew from its hyperparameters.
        filled = replace_fields(
            config, {k: v for k, v in values.items() if not k.startswith("schedule.")}
        )
        plans.append(TrialPlan(filled, values, carried.after, record, carried))
    return plans
