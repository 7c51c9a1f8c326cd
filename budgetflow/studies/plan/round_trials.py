"""The trials of a round before it runs: from a search space, or from an earlier round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from etils import epath
from jax.sharding import Mesh

from budgetflow.base import processes
from budgetflow.base.errors import ConfigError, UserError
from budgetflow.config import StudyConfig
from budgetflow.config.keys import replace_fields
from budgetflow.config.schedule import resolve_schedule
from budgetflow.engine.data.source import Dataset
from budgetflow.playbook.common.measurement import Selection
from budgetflow.playbook.common.transfer import compare
from budgetflow.playbook.rounds.words import pitfall
from budgetflow.studies.plan.derived import derived, of_ideas
from budgetflow.studies.plan.trials import (
    CheckSchedule,
    Lengths,
    TrialPlan,
    any_schedule,
    carried_over,
    linked,
    without_schedule,
)
from budgetflow.studies.store.trial import TrialRecord, read_trials


def one_length(config: StudyConfig) -> tuple[int, ...]:
    """The config's length, for every trial of a round; none while it is not known."""
    return (config.max_train_steps,) if config.max_train_steps is not None else ()


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
        UserError: the earlier study lacks what is asked of it.
    """
    records = processes.on_main(read_trials, earlier) if earlier is not None else []
    ranked = [record for record, _ in selection.ranked(records)]
    if config.search.promote_trials:
        assert earlier is not None
        plans = list(_promoted(config, lengths(config), ranked, earlier.name))
    elif config.search.derive:
        assert earlier is not None
        plans = list(derived(config, lengths(config), earlier, selection))
    else:
        # Ideas come first, so that points can be added later without another number for these.
        plans = [*of_ideas(config, lengths(config)), *_sampled(config, lengths(config), ranked)]
    for plan in plans:
        check_schedule(plan.schedule)
        least = config.transfer.refuse_below
        if plan.transfer and plan.transfer.is_pitfall(least):
            raise ConfigError(f"{pitfall(plan.transfer, least)} (config.transfer.refuse_below)")
    return linked(plans, records, [plan.state_key(dataset, mesh) for plan in plans])


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
        filled = without_schedule(config, values)
        for length in lengths:
            carried = carried_over(filled, record.schedule, length, earlier)
            yield TrialPlan(filled, values, carried.after, record, carried)
