"""A comparison: what a change of the config does to the number of steps, trained side by side."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from budgetflow.base import processes
from budgetflow.base.errors import ConfigError, nearest, shown
from budgetflow.config.checks import check_combinations
from budgetflow.config.fields import option_type, should
from budgetflow.config.keys import replace_fields, value_of
from budgetflow.config.schema import FREE_FORM, DataConfig, StudyConfig, SweepConfig
from budgetflow.engine.training.spec import make_task
from budgetflow.playbook.common.measurement import LEARNING_RATE, SEED, Decision, TrialRecord
from budgetflow.playbook.comparison import policy as comparison
from budgetflow.playbook.comparison.gradient_noise import NoiseSample, noise_scale
from budgetflow.playbook.comparison.outcome import ComparisonOutcome, Side
from budgetflow.playbook.comparison.policy import predicted_factor
from budgetflow.playbook.comparison.words import noise_reasons
from budgetflow.playbook.sweep.race import CHANGED
from budgetflow.studies.kinds.sweep import LR_SWEEP, check_grid, race_plan, race_rows, race_settings
from budgetflow.studies.plan.trials import TrialPlan
from budgetflow.studies.run.noise_scale import gradient_products

if TYPE_CHECKING:
    from budgetflow.studies.run.live_trials import LiveTrials
    from budgetflow.studies.study import Study

# What may differ between the trials of a study: the arguments of these sections, and these fields.
SECTIONS = ("model", "optimizer", "regularization", "augmentation")
FIELDS = (
    *("data.batch_size", "precision", "gradient_accumulation", "ema_decay"),
    *("weight_decay_mask", "clip_gradient_norm"),
)
# Where the gradient noise is measured, as shares of the steps to the training loss.
NOISE_AT = (0.1, 0.3, 0.5, 0.7, 0.9)


def check(config: StudyConfig) -> None:
    """Checks the changes, the grid, and that there is something to reach.

    Raises:
        ConfigError: one of them is wrong.
    """
    changes = config.comparison.changes
    if not changes:
        raise ConfigError(
            "config.comparison.changes is empty; name what differs, as in "
            "(('data.batch_size', 32),)"
        )
    for number, (field, value) in enumerate(changes):
        where = f"config.comparison.changes: {field} = {shown(value)}"
        if field in dict(changes[:number]):
            raise ConfigError(f"{where} is there twice")
        if wanted := should(_field_type(field), value):
            raise ConfigError(f"{where}: should {wanted}")
        if _value(config, field) == value:
            raise ConfigError(f"{where} changes nothing: it is config.{field} already")
    check_grid(config, "comparison")
    if config.comparison.train_loss is None and not hasattr(make_task(config.task), "fitted"):
        raise ConfigError(
            f"config.comparison.train_loss is missing: the task {config.task['name']} has no "
            "method fitted(outputs, batch), so there is no perfect fit to reach"
        )
    try:
        check_combinations(changed(config))
    except ConfigError as error:
        raise ConfigError(f"config.comparison.changes: {error}") from error


def _field_type(field: str) -> Any:
    """The type of a field that may differ."""
    section, _, name = field.partition(".")
    if section in SECTIONS and name:
        return option_type(section, name)
    if field not in FIELDS:
        valid = (*(f"{section}.…" for section in SECTIONS), *FIELDS)
        raise ConfigError(
            f"config.comparison.changes: {field!r} cannot differ between the trials of a study; "
            f"what can: {', '.join(valid)}; {nearest(field, FIELDS)}"
        )
    owner = DataConfig if name else StudyConfig
    return typing.get_type_hints(owner, include_extras=True)[name or field]


def _value(config: StudyConfig, field: str) -> Any:
    """The value of a field; None for an argument that is left out, but 0 for a strength."""
    section, _, name = field.partition(".")
    is_left_out = section in ("model", "optimizer") and name not in getattr(config, section)
    return None if is_left_out else value_of(config, field)


def changed(config: StudyConfig) -> StudyConfig:
    """The config with the changes; a section of another name has no arguments but theirs."""
    changes = dict(config.comparison.changes)
    for section in FREE_FORM:
        if f"{section}.name" in changes:
            config = replace_fields(config, {section: {}})
    return replace_fields(config, changes)


def variants(config: StudyConfig) -> tuple[StudyConfig, StudyConfig]:
    """The config without and with the changes."""
    return config, changed(config)


def num_trials(config: StudyConfig) -> int:
    """The learning rates of the first grid, on both sides."""
    return 2 * len(config.comparison.learning_rates)


def plans(config: StudyConfig, *_: Any) -> tuple[TrialPlan, ...]:
    """The trials of the first grid, first those without the changes."""
    return tuple(
        _plan(config, {LEARNING_RATE: rate, **side})
        for side in _sides(config)
        for rate in config.comparison.learning_rates
    )


def _sides(config: StudyConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters that the first seed's trials of each side have in common."""
    changes = dict(config.comparison.changes)
    before = {field: _value(config, field) for field in changes}
    return (
        {CHANGED: False, **before, SEED: config.seed},
        {CHANGED: True, **changes, SEED: config.seed},
    )


def _plan(config: StudyConfig, hyperparameters: dict[str, Any]) -> TrialPlan:
    """A trial of one side at a constant learning rate."""
    side = variants(config)[hyperparameters[CHANGED]]
    # What a trial looks at with every evaluation.
    looked_at = {"sweep.fitted_train_loss": config.comparison.train_loss}
    return race_plan(replace_fields(side, looked_at), hyperparameters)


def _as_sweep(config: StudyConfig) -> SweepConfig:
    """The races of each side, as those of a sweep."""
    asked = config.comparison
    return SweepConfig(
        learning_rates=asked.learning_rates,
        refine=asked.refine,
        seeds=asked.seeds,
        fitted_train_loss=asked.train_loss,
    )


def decide(study: Study, trials: Sequence[TrialRecord]) -> Decision:
    """See :func:`budgetflow.playbook.comparison.policy.decide`."""
    config = study.config
    return comparison.decide(race_settings(study, _as_sweep(config)), _sides(config), trials)


def finish(
    study: Study, outcome: ComparisonOutcome, records: Sequence[TrialRecord], live: LiveTrials
) -> ComparisonOutcome:
    """The outcome with the noise scales, measured along the fastest trials of each seed."""
    sides, rerun = [], 0
    for side in (outcome.unchanged, outcome.changed):
        samples = list(_noise(study, side, records, live))
        rerun += sum(of_trial[-1].step for of_trial in samples)
        all_samples = [sample for of_trial in samples for sample in of_trial]
        scale = noise_scale(all_samples) if all_samples else None
        sides.append(dataclasses.replace(side, noise_scale=scale))
    unchanged, changed_side = sides
    outcome = dataclasses.replace(
        outcome, unchanged=unchanged, changed=changed_side, steps_rerun=rerun
    )
    before, after = unchanged.noise_scale, changed_side.noise_scale
    if before is None and after is None:
        return outcome
    sizes = (study.config.data.batch_size, changed(study.config).data.batch_size)
    if before and after and (factor := predicted_factor(before, sizes[0], after, sizes[1])):
        outcome = dataclasses.replace(outcome, **factor.fields("predicted_steps_factor"))
    return outcome.with_reasons(noise_reasons(outcome, sizes))


def _noise(
    study: Study, side: Side, records: Sequence[TrialRecord], live: LiveTrials
) -> Iterator[list[NoiseSample]]:
    """Of each seed that got there, the gradient noise along its fastest trial, run again."""
    for one in side.seeds:
        if one.steps is None:
            continue
        trial = next(record for record in records if record.trial == one.trial)
        plan = _plan(study.config, trial.hyperparameters)
        steps = sorted({max(1, round(share * one.steps)) for share in NOISE_AT})
        samples = []
        with live.stopwatch("gradient noise"):
            run = live.start(plan, position=0)
            for step in steps if run.is_local else ():
                run.train(step)
                products = gradient_products(run, plan.config.seed, plan.config.data.batch_size)
                samples.append(NoiseSample(step, **dataclasses.asdict(products)))
        yield processes.gather(samples)[0]


COMPARISON = dataclasses.replace(
    LR_SWEEP,
    sections=frozenset({"comparison"}),
    num_trials=num_trials,
    plans=plans,
    plan=lambda study, _, hyperparameters: _plan(study.config, hyperparameters),
    decide=decide,
    grows={"comparison.seeds": "seeds"},
    check=check,
    rules=(),
    trials_held=num_trials,
    in_rows=lambda study: race_rows(study, _as_sweep(study.config), 2, "about "),
    regularizes=True,
    checks_fit=lambda config: config.comparison.train_loss is None,
    gives_length=False,
    variants=variants,
    finish=finish,
)
