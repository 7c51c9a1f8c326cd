"""The trials of a round before it runs: their configs, schedules, and what each continues."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath
from jax.sharding import Mesh

from budgetflow import processes
from budgetflow.config import StudyConfig
from budgetflow.config.keys import replace_fields
from budgetflow.data.source import Dataset
from budgetflow.errors import ConfigError, UserError
from budgetflow.playbook.measurement import Selection
from budgetflow.playbook.round_wording import pitfall
from budgetflow.playbook.sharing import Branch, branch_steps, branches, shared_steps
from budgetflow.playbook.transfer import NoTransferRuleError, Transfer, compare, transfer
from budgetflow.schedule_config import ScheduleConfig, resolve_schedule
from budgetflow.schedules import Schedule
from budgetflow.studies.fingerprint import state_key
from budgetflow.studies.reuse import MIN_REUSED_STEPS
from budgetflow.studies.trial import TrialRecord, read_trials


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
        steps_to_reuse: those that it takes over from another trial, as far as is known.
        pinned: the steps whose checkpoints stay: for longer runs, and where others branch off.
        checks_fit: whether it notices the step at which every training example is fitted.
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

    @property
    def length_steps(self) -> int:
        """The updates of its run."""
        return self.schedule.total_steps

    @property
    def varied(self) -> frozenset[str]:
        """The fields that the search space varies, but for the seed."""
        return frozenset(self.hyperparameters) - {"seed"}

    def state_key(self, dataset: Dataset, mesh: Mesh) -> dict[str, Any]:
        """See :func:`budgetflow.studies.fingerprint.state_key`."""
        return state_key(self.config, dataset, self.varied, mesh, self.checks_fit)


Lengths = Callable[[StudyConfig], tuple[int, ...]]
CheckSchedule = Callable[[Schedule], None]


def one_length(config: StudyConfig) -> tuple[int, ...]:
    """That of the config, for every trial of a round."""
    assert config.max_train_steps is not None
    return (config.max_train_steps,)


def any_schedule(schedule: Schedule) -> None:
    """Refuses none."""


def round_plans(
    config: StudyConfig,
    dataset: Dataset,
    mesh: Mesh,
    selection: Selection,
    earlier: epath.Path | None,
    lengths: Lengths = one_length,
    check_schedule: CheckSchedule = any_schedule,
) -> tuple[TrialPlan, ...]:
    """The trials of a round, or of another kind of study that runs points at lengths.

    Args:
        config: its config, ``max_train_steps`` resolved.
        dataset: its data.
        mesh: the devices it runs on.
        selection: what selects trials.
        earlier: the folder of the round that it builds on, complete, or None.
        lengths: at which each point is run.
        check_schedule: checks the schedule of each trial.

    Raises:
        ConfigError: a schedule does not fit, or would spend the extra steps at too small a
            learning rate.
        UserError: the earlier study has not what is asked of it.
    """
    known: dict[int, TrialRecord] = {}
    if earlier is not None:
        known = {record.trial: record for record in processes.on_main(read_trials, earlier)}
    ranked = [record for record, _ in selection.ranked(known.values())]
    if config.search.promote_trials:
        assert earlier is not None
        plans = list(_promoted(config, lengths(config), ranked, earlier.name))
    else:
        plans = list(_sampled(config, lengths(config), ranked))
    for plan in plans:
        check_schedule(plan.schedule)
        least = config.transfer.refuse_below
        if plan.transfer and plan.transfer.is_pitfall(least):
            raise ConfigError(f"{pitfall(plan.transfer, least)} (config.transfer.refuse_below)")
    return _linked(plans, tuple(known.values()), [plan.state_key(dataset, mesh) for plan in plans])


def _sampled(
    config: StudyConfig, lengths: Sequence[int], ranked: list[TrialRecord]
) -> Iterator[TrialPlan]:
    """The points of the search space, each at every length."""
    for values in config.search.points(config.seed):
        filled = replace_fields(config, values)
        for length in lengths:
            schedule = resolve_schedule(filled.schedule, length)
            carried = None
            if ranked and length > ranked[0].schedule.total_steps:
                carried = compare(ranked[0].schedule, schedule, "as config.schedule gives it")
            yield TrialPlan(filled, values, schedule, transfer=carried)


def _promoted(
    config: StudyConfig, lengths: Sequence[int], ranked: list[TrialRecord], earlier: str
) -> Iterator[TrialPlan]:
    """The best trials of the earlier round, each at every length."""
    count = config.search.promote_trials
    if len(ranked) < count:
        raise UserError(
            f"config.search.promote_trials = {count}, but only {len(ranked)} trials of {earlier} "
            "did not diverge"
        )
    for record in ranked[:count]:
        values = record.hyperparameters
        # The schedule is carried over as a whole, not made anew from its hyperparameters.
        filled = replace_fields(
            config, {k: v for k, v in values.items() if not k.startswith("schedule.")}
        )
        for length in lengths:
            carried = _carried_over(filled, record.schedule, length, earlier)
            yield TrialPlan(filled, values, carried.after, record, carried)


def _carried_over(config: StudyConfig, before: Schedule, length: int, earlier: str) -> Transfer:
    """An earlier schedule at another length: by its rule, or in the shape of config.schedule."""
    if length < before.total_steps:
        raise ConfigError(
            f"config.max_train_steps: a schedule of {before.total_steps} steps cannot be carried "
            f"over to fewer ({length})"
        )
    if config.schedule != ScheduleConfig():
        if config.schedule.function is None:
            kept = {"schedule.base_learning_rate": before.base_learning_rate}
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


def _linked(
    plans: list[TrialPlan], known: Sequence[TrialRecord], keys: Sequence[dict[str, Any]]
) -> tuple[TrialPlan, ...]:
    """The plans, with what each continues and the checkpoints that others need of it.

    Args:
        plans: the plans.
        known: the earlier round's trials.
        keys: of the plans' states.
    """
    found = branches(
        [plan.schedule for plan in plans], [json.dumps(key, sort_keys=True) for key in keys]
    )
    left_at = branch_steps(found)
    linked = []
    for number, (plan, key, branch) in enumerate(zip(plans, keys, found, strict=True)):
        steps = {plan.schedule.decay_start_step, *left_at.get(number, ())}
        pinned = tuple(sorted(step for step in steps if 0 < step < plan.length_steps))
        reused = [branch.step if branch else 0]
        for source in known:
            if source.reuse_key == key:
                shared = shared_steps(source.schedule, plan.schedule)
                kept = (source.schedule.decay_start_step, source.schedule.total_steps)
                reused += [step for step in kept if MIN_REUSED_STEPS <= step <= shared]
        linked.append(
            dataclasses.replace(plan, branch=branch, steps_to_reuse=max(reused), pinned=pinned)
        )
    return tuple(linked)
