"""What a change of the configuration does to the number of steps: both sides, trained and compared.

The configuration with and without the change races, seed by seed, to the same training loss (or a
perfect fit), each at the best of its own constant learning rates, since what changes the gradient
noise changes the best learning rate, too. The first seed's race is over the whole grid, the others'
around its best, as in a sweep (:mod:`budgetflow.playbook.sweep.policy`).

The factor is the geometric mean over seeds of steps with the change over steps without it. A seed
is the same initialisation on both sides where the model is the same one, so the ratios are paired.
Its 95 % interval is Student's t on the logarithms of the ratios: if these are normal, an interval
that lies on one side of 1 lies on the wrong side in at most 2.5 % of comparisons whose factor is 1
or on the other side. It knows of seeds alone, not of other data or a finer grid.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from budgetflow.playbook.common.measurement import SEED, Conclude, Decision, TrialRecord
from budgetflow.playbook.comparison.direction import Change, directions
from budgetflow.playbook.comparison.gradient_noise import NoiseScale, student_t
from budgetflow.playbook.comparison.outcome import (
    MIN_SEEDS,
    ComparisonOutcome,
    Factor,
    SeedSteps,
    Side,
)
from budgetflow.playbook.comparison.words import comparison_reasons
from budgetflow.playbook.sweep.race import Race, SweepSettings, around_best, merged, run_race

# In a trial's hyperparameters: whether it has the change.
CHANGED = "changed"


@dataclasses.dataclass(frozen=True)
class ComparisonSettings:
    """What a comparison is asked to do.

    Attributes:
        race: of each side and seed; its ``fitted_train_loss`` is the training loss to reach.
        changes: what differs.
        hyperparameters: those that tell the trials without the change from those with it, in this
            order; :data:`CHANGED` among them.
    """

    race: SweepSettings
    changes: tuple[Change, ...]
    hyperparameters: tuple[dict[str, Any], dict[str, Any]]


def changes_of(changed: dict[str, tuple[Any, Any]]) -> tuple[Change, ...]:
    """The changes of some fields, from their values before and after."""
    return tuple(departure.change for departure in directions(changed))


def decide(settings: ComparisonSettings, trials: Sequence[TrialRecord]) -> Decision:
    """What to do next, given what the study's trials have shown."""
    first_seed, *other_seeds = settings.race.seeds

    def of(changed: bool, seed: int) -> list[TrialRecord]:
        wanted = {CHANGED: changed, SEED: seed}
        return [t for t in trials if wanted.items() <= t.hyperparameters.items()]

    sides = (False, True)
    races = {
        (changed, first_seed): run_race(settings.race, of(changed, first_seed)) for changed in sides
    }
    # Without an answer on both sides there is no factor, and no use for other seeds.
    if all(isinstance(race, Race) and race.status == "found" for race in races.values()):
        for changed in sides:
            race = races[changed, first_seed]
            assert isinstance(race, Race)
            around = around_best(settings.race, race)
            races |= {(changed, seed): run_race(around, of(changed, seed)) for seed in other_seeds}
    over = {key: race for key, race in races.items() if isinstance(race, Race)}
    if len(over) < len(races):
        own = {
            (changed, seed): {**settings.hyperparameters[changed], SEED: seed}
            for changed, seed in races
        }
        return merged(races, own, trials)
    return Conclude(_outcome(settings, over, trials))


def steps_to_target(settings: SweepSettings, race: Race) -> tuple[float, TrialRecord] | None:
    """The steps that the fastest trial of a race needs, and that trial; None unless found.

    For a perfect fit, the first step that is known to have it; for a training loss, where the line
    between the evaluations before and after crosses it. Nobody knows the step of a trial that got
    there before its first evaluation.
    """
    if race.status != "found":
        return None
    fitted = [t for t in race.trials if t.fitted_at_step_bracket is not None]
    crossings = [(_crossing(settings.fitted_train_loss, trial), trial) for trial in fitted]
    steps, fastest = min(crossings, key=lambda pair: (pair[0], pair[1].trial))
    return (steps, fastest) if steps > 0 else None


def _crossing(loss: float | None, trial: TrialRecord) -> float:
    """The step at which a trial got there; 0 if only an evaluation after it is known."""
    assert trial.fitted_at_step_bracket is not None
    before, at = trial.fitted_at_step_bracket
    if before == 0 and at > 1:
        return 0.0
    if loss is None:
        return float(at)
    losses = {row["step"]: row["train_loss"] for row in trial.rows}
    share = (losses[before] - loss) / (losses[before] - losses[at])
    return before + share * (at - before)


def steps_factor(ratios: Sequence[float]) -> Factor:
    """The geometric mean of the seeds' ratios, and its interval by Student's t on the logarithms.

    Args:
        ratios: steps with the change over steps without, of each seed; two or more.
    """
    logs = [math.log(ratio) for ratio in ratios]
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    return _from_log(statistics.fmean(logs), student_t(len(logs) - 1) * error)


def predicted_factor(
    before: NoiseScale, batch_before: int, after: NoiseScale, batch_after: int
) -> Factor | None:
    """The factor by which steps grow, by equation 2.11: (1 + B'_noise / B') / (1 + B_noise / B).

    See :mod:`budgetflow.playbook.comparison.gradient_noise`. It takes S_min, the steps without any
    noise, to be the same on both sides, each at the best learning rate for its batch. The interval
    is of the measured noise scales alone, their errors taken for independent: it says nothing of
    how well the equation holds.

    Returns:
        None where one of the noise scales cannot be told.
    """
    logs, variance = [], 0.0
    for scale, batch in ((before, batch_before), (after, batch_after)):
        if scale.examples is None or scale.high is None:
            return None
        noise = scale.examples / batch
        logs.append(math.log1p(noise))
        half = math.log(scale.high / scale.examples)
        variance += (noise / (1 + noise) * half) ** 2
    return _from_log(logs[1] - logs[0], math.sqrt(variance))


def _from_log(log: float, half: float) -> Factor:
    """A factor from its logarithm and half the width of that one's interval."""
    return Factor(math.exp(log), math.exp(log - half), math.exp(log + half))


def _outcome(
    settings: ComparisonSettings,
    races: dict[tuple[bool, int], Race],
    trials: Sequence[TrialRecord],
) -> ComparisonOutcome:
    unchanged, changed = (
        _side(settings.race, {seed: race for (side, seed), race in races.items() if side == which})
        for which in (False, True)
    )
    pairs = [
        (before.steps, after.steps)
        for before, after in zip(unchanged.seeds, changed.seeds, strict=True)
    ]
    fastest = [one for side in (changed, unchanged) for one in side.seeds if one.trial is not None]
    factor = None
    if len(pairs) >= MIN_SEEDS and all(before and after for before, after in pairs):
        factor = steps_factor([after / before for before, after in pairs if before and after])
    outcome = ComparisonOutcome(
        max_train_steps=settings.race.max_train_steps,
        best_trial=min(fastest, key=_fastest_first).trial if fastest else None,
        steps_trained=sum(trial.step for trial in trials),
        diverged=sum(trial.diverged for trial in trials),
        status="measured" if factor else "cannot_be_told",
        changes=settings.changes,
        train_loss=settings.race.fitted_train_loss,
        unchanged=unchanged,
        changed=changed,
        direction=factor.direction if factor else None,
        **(factor.fields("steps_factor") if factor else {}),
    )
    return outcome.with_reasons(comparison_reasons(outcome))


def _fastest_first(one: SeedSteps) -> float:
    return math.inf if one.steps is None else one.steps


def _side(settings: SweepSettings, races: dict[int, Race]) -> Side:
    seeds = []
    for seed, race in races.items():
        target = steps_to_target(settings, race)
        steps, trial = target or (None, race.best)
        seeds.append(
            SeedSteps(
                seed=seed,
                status="too_early" if race.status == "found" and not target else race.status,
                steps=steps,
                learning_rate=trial.base_learning_rate if trial else None,
                trial=trial.trial if trial else None,
            )
        )
    steps_of_seeds = [one.steps for one in seeds if one.steps is not None]
    median_steps = statistics.median(steps_of_seeds) if steps_of_seeds else None
    return Side(seeds=tuple(seeds), median_steps=median_steps)
