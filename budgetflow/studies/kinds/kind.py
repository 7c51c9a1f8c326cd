"""What tells one kind of study from another, as one value: see :mod:`budgetflow.studies.kinds`.

Whoever runs, plans, checks or reads a study asks its kind, and compares no names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath
from jax.sharding import Mesh

from budgetflow.base.errors import ConfigError
from budgetflow.config.checks import Rule
from budgetflow.config.keys import replace_fields
from budgetflow.config.schema import StudyConfig
from budgetflow.engine.data.source import Dataset
from budgetflow.playbook.common.measurement import Decision, Selection, TrialRecord
from budgetflow.playbook.common.outcomes import Outcome
from budgetflow.studies.plan.trials import CheckSchedule, Lengths, TrialPlan, any_schedule

# The sections that a sweep switches off.
STRENGTHS = ("regularization", "augmentation")
# Of a study's work: evaluations that take more are worth a word on how to lower that.
MUCH_EVALUATION = 0.15

if TYPE_CHECKING:
    from budgetflow.studies.run.live_trials import LiveTrials
    from budgetflow.studies.study import Study


def evenly_spaced_stops(study: Study, plan: TrialPlan) -> list[int]:
    """``config.evaluation.evaluations`` steps, the last one included, and every pinned one."""
    length = plan.length_steps
    count = min(study.config.evaluation.evaluations, length)
    grid = np.linspace(length / count, length, count)
    return sorted({*(int(step) for step in np.round(grid)), *plan.pinned})


def steps_of_plans(study: Study) -> int:
    """The steps of all trials that are planned, but for those that they take over."""
    return sum(study.later_steps(()))


def evaluations_in_words(study: Study) -> str:
    """The share of evaluations in the work of the planned trials, by arithmetic, in words.

    An example costs a third of what it does in training: the forward pass without the backward one,
    which takes twice as long. Where it is much, what the training split's part of it is: that part
    selects nothing, and ``config.evaluation.train_examples`` lowers it.
    """
    train = min(study.config.evaluation.train_examples, study.dataset.train.num_examples)
    examples = study.dataset.validation.num_examples + train
    evaluated = trained = 0.0
    for plan, steps in zip(study.plans, study.later_steps(()), strict=True):
        later = [s for s in study.kind.stops(study, plan) if s > plan.length_steps - steps]
        evaluated += len(later) * examples / 3
        trained += steps * plan.config.data.batch_size
    share = evaluated / (evaluated + trained) if trained else 0.0
    words = f"about {share:.0%} of the work"
    if share > MUCH_EVALUATION:
        words += f", {share * train / examples:.0%} on training examples"
    return words


def plans_in_rows(study: Study) -> dict[str, Any]:
    """Trials and steps of the plans, evaluations, and the learning rate of extra steps."""
    plans = study.plans
    total, trained = sum(plan.length_steps for plan in plans), steps_of_plans(study)
    rows: dict[str, Any] = {
        "trials": len(plans),
        "steps a trial": ", ".join(map(str, sorted({plan.length_steps for plan in plans}))),
        "steps": f"{trained}, and {total - trained} taken over" if trained < total else total,
        "evaluations": evaluations_in_words(study),
    }
    longer = [plan.transfer for plan in plans if plan.transfer and plan.transfer.extra_steps]
    if carried := min(longer, key=lambda one: one.mean_relative_learning_rate, default=None):
        rows["extra steps' learning rate"] = (
            f"{carried.mean_relative_learning_rate:.0%} of the base "
            f"(stretched: {carried.stretched_mean_relative_learning_rate:.0%})"
        )
        if carried.is_pitfall(study.config.transfer.warn_below):
            rows["extra steps' learning rate"] += " TOO SMALL"
    return rows


NO_LENGTH = (
    "config.max_train_steps is missing; only a round that builds on another study can take it from "
    "there"
)


def check_length(config: StudyConfig) -> None:
    """Checks that there is a length, or a study to take it from.

    Raises:
        ConfigError: there is none.
    """
    if config.max_train_steps is None and config.builds_on is None:
        raise ConfigError(NO_LENGTH)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of study. What has a default is what most kinds do.

    Attributes:
        sections: the sections of a config that it reads, of those that not every kind does: see
            :data:`budgetflow.studies.kinds.SECTIONS`. The others must be left at their defaults.
        num_trials: config -> how many trials the study starts with.
        plans: (config, data, devices, selection, folder of the study that it builds on) -> the
            trials that are known before it runs, by number; at least one.
        decide: (study, records of its trials, by number) -> what to do next.
        grows: the fields that may be raised when a study has run, since what was trained for the
            smaller number is a part of the larger: dotted key to what it is a number of.
        check: checks what the fields of a config mean together in this kind of study; raises
            ConfigError.
        rules: when a field has an effect in it; see :class:`budgetflow.config.checks.Rule`.
        lengths: config -> the lengths at which each point of its search space is run, ascending,
            whose schedules can be checked before it runs; empty if ``config.schedule`` is not used.
        check_schedule: checks the schedule of a trial; raises ConfigError.
        plan: (study, number, hyperparameters) -> the plan of a trial that a decision adds; that of
            its number where all trials are known before the study runs.
        stops: (study, plan) -> the steps at which a trial is evaluated, its last one included.
        expected_steps: about as many steps as the study will train, of all trials.
        trials_held: config -> how many trials' states are on the devices at the same time.
        in_rows: how many trials, steps and evaluations, for the plan that a dry run prints.
        regularizes: whether its trials train with regularization and augmentation; switched off, if
            not, and the outcome says so.
        checks_fit: config -> whether its trials notice the step at which every training example is
            fitted.
        promotes: whether another study can continue its best trials; if not, those that are stopped
            leave no last checkpoint, but for the best one.
        derives: whether a round can be derived from it: its trials have one length, and are points
            of a search space.
        is_planned: whether it stands for the rounds of a plan, which are run in its place.
        gives_length: whether another study can take its ``max_train_steps`` from it.
        variants: config -> the configs that its trials are of, before hyperparameters: itself, or
            with changes that no search space may hold.
        finish: (study, outcome, records of its trials, the devices) -> the outcome, with what is
            measured once the trials are done.
    """

    sections: frozenset[str]
    num_trials: Callable[[StudyConfig], int]
    plans: Callable[
        [StudyConfig, Dataset, Mesh, Selection, epath.Path | None], tuple[TrialPlan, ...]
    ]
    decide: Callable[[Study, Sequence[TrialRecord]], Decision]
    grows: Mapping[str, str] = dataclasses.field(default_factory=dict)
    check: Callable[[StudyConfig], None] = check_length
    rules: tuple[Rule, ...] = ()
    lengths: Lengths = lambda config: ()
    check_schedule: CheckSchedule = any_schedule
    plan: Callable[[Study, int, dict[str, Any]], TrialPlan] = (
        lambda study, number, hyperparameters: study.plans[number]
    )
    stops: Callable[[Study, TrialPlan], list[int]] = evenly_spaced_stops
    expected_steps: Callable[[Study], int] = steps_of_plans
    trials_held: Callable[[StudyConfig], int] = lambda config: 1
    in_rows: Callable[[Study], dict[str, Any]] = plans_in_rows
    regularizes: bool = True
    checks_fit: Callable[[StudyConfig], bool] = lambda config: False
    promotes: bool = True
    derives: bool = False
    is_planned: bool = False
    gives_length: bool = True
    variants: Callable[[StudyConfig], tuple[StudyConfig, ...]] = lambda config: (config,)
    finish: Callable[[Study, Any, Sequence[TrialRecord], LiveTrials], Outcome] = (
        lambda study, outcome, records, live: outcome
    )


def switch_off(config: StudyConfig) -> tuple[StudyConfig, tuple[str, ...]]:
    """A config without regularization and augmentation, and what was on."""
    on = {
        f"{section}.{name}": value
        for section in STRENGTHS
        for name, value in getattr(config, section).items()
        if isinstance(value, int | float) and value
    }
    off = replace_fields(config, dict.fromkeys(on, 0.0))
    return off, tuple(f"{name} = {value:g}" for name, value in on.items())
