"""A trial before it runs: its config, its schedule, and what it continues."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.config import StudyConfig
from budgetflow.config.keys import replace_fields
from budgetflow.config.schedule import ScheduleConfig, resolve_schedule
from budgetflow.config.search_space import BASE_LEARNING_RATE
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Role
from budgetflow.playbook.common.shared_steps import Branch, branch_steps, branches, shared_steps
from budgetflow.playbook.common.transfer import NoTransferRuleError, Transfer, compare, transfer
from budgetflow.studies.plan.reuse import MIN_REUSED_STEPS
from budgetflow.studies.store.keys import state_key
from budgetflow.studies.store.trial import TrialRecord


@dataclasses.dataclass(frozen=True)
class TrialPlan:
    """A trial before it runs.

    Attributes:
        config: the study's config with the trial's hyperparameters filled in.
        hyperparameters: config field to value.
        schedule: its learning rates, as many as its run has updates.
        promoted_from: the earlier round's trial that it takes its hyperparameters from, or None.
        transfer: how its schedule compares with the earlier round's, or None.
        branch: the trial of the same study that it continues, or None.
        steps_to_reuse: those that it is expected to take over from another trial.
        pinned: the steps whose checkpoints stay: for longer runs, and where others branch off.
        checks_fit: whether it notices the step at which every training example is fitted.
        whole_at: the steps at which it is evaluated in full; see
            :class:`budgetflow.engine.training.trial_run.TrialRun`.
        role, idea: see :class:`budgetflow.playbook.common.measurement.TrialRecord`.
    """

    config: StudyConfig
    hyperparameters: dict[str, Any]
    schedule: Schedule
    promoted_from: TrialRecord | None = None
    transfer: Transfer | None = None
    branch: Branch | None = None
    steps_to_reuse: int = 0
    pinned: tuple[int, ...] = ()
    checks_fit: bool = False
    whole_at: frozenset[int] | None = None
    role: Role = "point"
    idea: str | None = None

    @property
    def length_steps(self) -> int:
        """The updates of its run."""
        return self.schedule.total_steps

    @property
    def varied(self) -> frozenset[str]:
        """The fields that the search space varies, without the seed."""
        return frozenset(self.hyperparameters) - {"seed"}

    def state_key(self, dataset: Dataset, mesh: Mesh) -> dict[str, Any]:
        """See :func:`budgetflow.studies.store.keys.state_key`."""
        return state_key(self.config, dataset, self.varied, mesh, self.checks_fit)


Lengths = Callable[[StudyConfig], tuple[int, ...]]
CheckSchedule = Callable[[Schedule], None]


def any_schedule(schedule: Schedule) -> None:
    """Refuses none."""


def without_schedule(config: StudyConfig, values: Mapping[str, Any]) -> StudyConfig:
    """A config with hyperparameters filled in, for a trial whose schedule is carried over."""
    others = {k: v for k, v in values.items() if not k.startswith("schedule.")}
    return replace_fields(config, others)


def carried_over(config: StudyConfig, before: Schedule, length: int, earlier: str) -> Transfer:
    """An earlier schedule at another length, by its rule or in the shape of config.schedule.

    Args:
        config: the longer trial's.
        before: the earlier schedule.
        length: of the longer run, in steps.
        earlier: the name of the earlier study.

    Raises:
        ConfigError: the new length is shorter.
        UserError: there is no rule.
    """
    if length < before.total_steps:
        raise ConfigError(
            f"config.max_train_steps: a schedule of {before.total_steps} steps cannot be carried "
            f"over to fewer ({length})"
        )
    if config.schedule != ScheduleConfig():
        if config.schedule.function is None:
            kept = {BASE_LEARNING_RATE: before.base_learning_rate}
            if config.schedule.warmup_steps is None and config.schedule.warmup_fraction is None:
                kept["schedule.warmup_steps"] = before.warmup_steps
                kept["schedule.warmup_start_learning_rate"] = before.warmup_start_learning_rate
            config = replace_fields(config, kept)
        return compare(
            before, resolve_schedule(config.schedule, length), "as config.schedule gives it"
        )
    try:
        return transfer(before, length)
    except NoTransferRuleError as error:
        raise UserError(f"{earlier}: {error}") from error


def linked(
    plans: list[TrialPlan], earlier: Sequence[TrialRecord], keys: Sequence[dict[str, Any]]
) -> tuple[TrialPlan, ...]:
    """Plans with the trials that they continue, and the checkpoints that others need of them.

    Args:
        plans: the plans.
        earlier: the earlier round's trials.
        keys: of the plans' states.
    """
    all_else = [json.dumps(key, sort_keys=True) for key in keys]
    continued = branches([plan.schedule for plan in plans], all_else)
    left_at = branch_steps(continued)
    linked = []
    for number, (plan, key, branch) in enumerate(zip(plans, keys, continued, strict=True)):
        steps = {plan.schedule.decay_start_step, *left_at.get(number, ())}
        pinned = tuple(sorted(step for step in steps if 0 < step < plan.length_steps))
        reused = [branch.step if branch else 0]
        for source in earlier:
            if source.reuse_key == key:
                shared = shared_steps(source.schedule, plan.schedule)
                kept = (source.schedule.decay_start_step, source.schedule.total_steps)
                reused += [step for step in kept if MIN_REUSED_STEPS <= step <= shared]
        linked.append(
            dataclasses.replace(plan, branch=branch, steps_to_reuse=max(reused), pinned=pinned)
        )
    return tuple(linked)
