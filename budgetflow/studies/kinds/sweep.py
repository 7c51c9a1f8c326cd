"""The learning-rate sweep: a race of constant learning rates to a perfect fit."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from budgetflow.base.errors import ConfigError, shown
from budgetflow.base.life_cache import cached_for_its_life
from budgetflow.config.checks import Rule
from budgetflow.config.schema import StudyConfig, SweepConfig
from budgetflow.engine.data.contradictions import contradictions
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.tasks import Classification
from budgetflow.engine.training.spec import make_task
from budgetflow.playbook.common.measurement import (
    LEARNING_RATE,
    SEED,
    Conclude,
    Decision,
    TrialRecord,
)
from budgetflow.playbook.common.outcomes import SweepOutcome
from budgetflow.playbook.sweep import policy as lr_sweep
from budgetflow.playbook.sweep.race import SweepSettings, lockstep_grid
from budgetflow.playbook.sweep.regime import steps_read
from budgetflow.playbook.sweep.words import workflow
from budgetflow.studies.kinds.kind import NO_LENGTH, Kind, switch_off
from budgetflow.studies.plan.trials import TrialPlan

if TYPE_CHECKING:
    from budgetflow.studies.study import Study

# A guess, for how long a sweep will take.
EPOCHS_TO_FIT = 20
# Arguments of models, tasks and optimizers that are regularization by another name.
_REGULARIZATION = re.compile(
    "dropout|drop_rate|drop_path|stochastic_depth|label_smoothing|mixup|cutmix"
)


def check(config: StudyConfig) -> None:
    """Checks the grid and the seeds, and that no regularization hides where it stays on.

    Raises:
        ConfigError: one of them is wrong.
    """
    if config.max_train_steps is None:
        raise ConfigError(NO_LENGTH)
    check_grid(config, "sweep")
    for section in ("model", "task", "optimizer"):
        for name, value in getattr(config, section).items():
            if _REGULARIZATION.search(name) and value:
                raise ConfigError(
                    f"config.{section}.{name} looks like regularization, which the sweep must "
                    "switch off; move it to config.regularization"
                )


def check_grid(config: StudyConfig, section: str) -> None:
    """Checks the learning rates and the seeds of a section of a config.

    Raises:
        ConfigError: one of them is wrong.
    """
    where = f"config.{section}"
    rates, seeds = getattr(config, section).learning_rates, getattr(config, section).seeds
    if len(set(rates)) != len(rates):
        raise ConfigError(f"{where}.learning_rates = {shown(rates)} holds a learning rate twice")
    if not rates:
        raise ConfigError(f"{where}.learning_rates is empty; make some with log_grid(…)")
    if config.seed + seeds > 2**32:
        raise ConfigError(
            f"config.seed = {config.seed} and {where}.seeds = {seeds} are seeds up to "
            f"{config.seed + seeds - 1}; at most {2**32 - 1}"
        )


def num_trials(config: StudyConfig) -> int:
    """The learning rates of the first grid."""
    return len(config.sweep.learning_rates)


def _plan(config: StudyConfig, hyperparameters: dict[str, Any]) -> TrialPlan:
    return race_plan(switch_off(config)[0], hyperparameters)


def race_plan(filled: StudyConfig, hyperparameters: dict[str, Any]) -> TrialPlan:
    """The plan of a trial at a constant learning rate, with a seed of its own if it has one.

    Before it fits, the outcome reads few of its steps.
    """
    length = filled.max_train_steps
    assert length is not None
    filled = dataclasses.replace(filled, seed=hyperparameters.get(SEED, filled.seed))
    schedule = Schedule(hyperparameters[LEARNING_RATE], constant_steps=length)
    checks_fit = _checks_fit(filled)
    in_part = checks_fit and not filled.evaluation.whole_in_races
    whole_at = steps_read(length) if in_part else None
    return TrialPlan(filled, hyperparameters, schedule, checks_fit=checks_fit, whole_at=whole_at)


def expected_steps(study: Study) -> int:
    """The steps to a fit after a guessed number of epochs, of the first grid."""
    length = min(study.max_train_steps, EPOCHS_TO_FIT * study.steps_per_epoch)
    return len(study.plans) * length


def decide(study: Study, trials: Sequence[TrialRecord]) -> Decision:
    """See :func:`budgetflow.playbook.sweep.policy.decide`; and which workflow follows."""
    decision = lr_sweep.decide(settings(study), trials)
    if isinstance(decision, Conclude) and isinstance(concluded := decision.outcome, SweepOutcome):
        stated = study.config.regime
        outcome = concluded.with_reasons([workflow(concluded.regime, stated)])
        return Conclude(dataclasses.replace(outcome, regime=stated or concluded.regime))
    return decision


@cached_for_its_life  # asked for with every decision
def settings(study: Study) -> SweepSettings:
    """What the policy of a sweep has to know."""
    config, train = study.config, study.dataset.train
    asked = race_settings(study, config.sweep)
    if (contradicting := contradictions(train)) is None:
        return asked
    assert train.arrays is not None
    evaluated = train.arrays["targets"][: config.evaluation.train_examples]
    # The loss of another task may be lower, or anything.
    is_cross_entropy = isinstance(make_task(config.task), Classification)
    return dataclasses.replace(
        asked,
        contradicting_examples=contradicting.examples,
        lowest_train_errors=contradicting.lowest_errors,
        lowest_train_loss=contradicting.lowest_loss if is_cross_entropy else 0.0,
        lowest_evaluated_error_rate=contradicting.most_errors_within(evaluated) / len(evaluated),
    )


def race_settings(study: Study, sweep: SweepConfig) -> SweepSettings:
    """What every race of a study has to know; nobody has counted contradictions."""
    first_seed = study.config.seed
    return SweepSettings(
        learning_rates=sweep.learning_rates,
        max_train_steps=study.max_train_steps,
        max_extensions=sweep.max_extensions,
        num_train_examples=study.dataset.train.num_examples,
        steps_per_epoch=study.steps_per_epoch,
        fitted_train_loss=sweep.fitted_train_loss,
        refine=sweep.refine,
        seeds=tuple(range(first_seed, first_seed + sweep.seeds)),
    )


def race_rows(study: Study, sweep: SweepConfig, sides: int = 1, about: str = "") -> dict[str, Any]:
    """How many trials and steps races will take at most, refinement aside.

    Seeds after the first try the best learning rate and its neighbours, and may be extended too.
    """
    length, first = study.max_train_steps, len(sweep.learning_rates)
    most = first + sweep.max_extensions + (sweep.seeds - 1) * (3 + sweep.max_extensions)
    return {
        "trials": f"{sides * first} to {about}{sides * most}",
        "steps a trial": f"at most {length}, raced in {len(lockstep_grid(length))} stages",
        "steps": f"at most {about}{sides * most * length}",
    }


def _checks_fit(config: StudyConfig) -> bool:
    """Whether every example has to be right; else a training loss says when the set is fitted."""
    return config.sweep.fitted_train_loss is None


def _can_refine(config: StudyConfig) -> bool:
    """Whether two neighbours of the first grid are further apart than refinement ends at."""
    rates = sorted(config.sweep.learning_rates)
    return any(b > a * (config.sweep.refine or 1) for a, b in itertools.pairwise(rates))


LR_SWEEP = Kind(
    sections=frozenset({"sweep"}),
    num_trials=num_trials,
    plans=lambda config, *_: tuple(
        _plan(config, {LEARNING_RATE: rate}) for rate in config.sweep.learning_rates
    ),
    plan=lambda study, _, hyperparameters: _plan(study.config, hyperparameters),
    decide=decide,
    grows={"sweep.seeds": "seeds"},
    check=check,
    rules=(
        Rule(
            ("sweep.refine",),
            _can_refine,
            "is the spacing to end with, and config.sweep.learning_rates are as close already; "
            "should be less",
        ),
    ),
    stops=lambda study, plan: list(lockstep_grid(plan.length_steps)),
    expected_steps=expected_steps,
    trials_held=num_trials,
    in_rows=lambda study: race_rows(study, study.config.sweep),
    regularizes=False,
    checks_fit=_checks_fit,
    promotes=False,
)
