"""Planned rounds on a synthetic problem: budgetflow's own decisions, from plan to verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from simulated_problems import (
    DECAY,
    EVALUATIONS,
    PRODUCTION_STEPS,
    RATE,
    Problem,
    draw_problem,
    evaluation_steps,
)

from budgetflow.config import default_config
from budgetflow.config.search_space import points
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.budget.budget import StepCost
from budgetflow.playbook.common.measurement import SEED, Add, Conclude, Selection, TrialRecord
from budgetflow.playbook.derived.earlier_choice import ChoiceVerdict, Verdict, choice_verdict
from budgetflow.playbook.derived.search_space import NothingToCarryOverError, Overrides, derive
from budgetflow.playbook.derived.trials import NextTrial, next_trials
from budgetflow.playbook.rounds import policy as rounds
from budgetflow.studies.kinds import parse_study
from budgetflow.studies.kinds.rounds import expand, planned

SELECTION = Selection("validation_loss")
NO_OVERRIDES: Overrides = {}


class RoundOfPlan(NamedTuple):
    """What a round of a plan is told by its config."""

    length: int
    points: int
    reruns: int
    seeds: int


class Verdicted(NamedTuple):
    """A verdict on an earlier round's choice, and whether that is truly the best one run again."""

    verdict: Verdict
    truly_best: bool


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a problem.

    Attributes:
        cost: the true mean loss of the setting that the last round found best; infinite if every
            trial of a round diverged.
        verdicts: one for each derived round with re-runs.
    """

    cost: float
    verdicts: tuple[Verdicted, ...]


def plan_of(budget_steps: int, **fields: Any) -> list[RoundOfPlan]:
    """The rounds of a config of planned rounds: by the planner, and as they are told.

    Args:
        budget_steps: the budget.
        fields: those of the config that are not at their defaults, "__" for ".".

    Raises:
        ConfigError: the budget is too small.
    """
    config = default_config("rounds")
    config.name = "simulated"
    config.rounds.production_steps = PRODUCTION_STEPS
    config.rounds.budget_steps = budget_steps
    config.evaluation.evaluations = EVALUATIONS
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.2
    config.search.space = draw_problem(np.random.default_rng(0)).space
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    study = parse_study(config)
    told = []
    for each in expand(study, planned(study, StepCost(examples=study.data.batch_size))):
        search = each.search
        assert each.max_train_steps is not None
        told.append(
            RoundOfPlan(each.max_train_steps, search.trials or 0, search.reruns, search.seeds)
        )
    return told


def run_rounds(
    problem: Problem, told: Sequence[RoundOfPlan], seed: int, overrides: Overrides = NO_OVERRIDES
) -> Result:
    """Runs the rounds of a plan on a problem.

    Args:
        problem: the problem.
        told: the plan's rounds, the first one first.
        seed: of the config: of the points, and of the noise.
        overrides: what becomes of a hyperparameter instead of what its tag says.
    """
    rng = np.random.default_rng([seed, 1])
    first, *later = told
    settings = points(problem.space, "halton", first.points, seed)
    schedules = [_schedule(setting, first.length) for setting in settings]
    luck = rng.normal(size=len(settings))
    records, best = run_round(problem, settings, schedules, luck)
    space, verdicts = problem.space, []
    for each in later:
        try:
            derivation = derive(
                space, list(records.values()), SELECTION, overrides, max_train_steps=each.length
            )
        except NothingToCarryOverError:
            return Result(math.inf, tuple(verdicts))
        assert derivation.best_trial == best
        trials = list(
            next_trials(
                derivation,
                records,
                SELECTION,
                max_train_steps=each.length,
                reruns=each.reruns,
                seeds=each.seeds,
                points=each.points,
                seed=seed,
            )
        )
        earlier, choice = records, derivation.best_trial
        luck = _later_luck(problem, trials, luck, rng)
        records, best = run_round(
            problem,
            [trial.hyperparameters for trial in trials],
            [trial.schedule for trial in trials],
            luck,
            [trial.role for trial in trials],
        )
        found = choice_verdict(list(earlier.values()), choice, list(records.values()), SELECTION)
        if found is not None:
            verdicts.append(Verdicted(found.verdict, _truly_best(problem, records, found)))
        # A value that is pinned is the only choice of its dimension: as the next round reads it.
        space = tuple(row.searched_dimension for row in derivation.rows)
    if best is None:
        return Result(math.inf, tuple(verdicts))
    return Result(float(true_costs(problem, [records[best]])[0]), tuple(verdicts))


def run_round(
    problem: Problem,
    settings: Sequence[dict[str, Any]],
    schedules: Sequence[Schedule],
    luck: np.ndarray,
    roles: Sequence[Any] = (),
) -> tuple[dict[int, TrialRecord], int | None]:
    """Drives the policy of a round to its outcome.

    Returns:
        The records by number, and the number of the best trial; None if all diverged.
    """
    length = schedules[0].total_steps
    planned_trials = [_Planned(setting, length) for setting in settings]
    told = rounds.RoundSettings(planned_trials, length, SELECTION)
    losses = problem.means(list(settings), list(schedules))
    losses = losses * np.exp(problem.noise * luck)[:, None]
    steps = evaluation_steps(length).tolist()
    records: dict[int, TrialRecord] = {}
    while True:
        decision = rounds.decide(told, list(records.values()), rounds.outcome)
        if isinstance(decision, Conclude):
            return records, decision.outcome.best_trial
        if isinstance(decision, Add):
            for number, setting in decision.trials.items():
                records[number] = TrialRecord(
                    number,
                    setting,
                    schedules[number],
                    setting.get(SEED, 0),
                    length,
                    role=roles[number] if roles else "point",
                )
            continue
        assert decision.to_step == length
        for number in decision.trials:
            records[number] = _trained(records[number], steps, losses[number].tolist())


class _Planned(NamedTuple):
    """What a policy knows of a trial before it runs."""

    hyperparameters: dict[str, Any]
    length_steps: int
    branch: None = None


def _trained(record: TrialRecord, steps: Sequence[int], losses: Sequence[float]) -> TrialRecord:
    """A trial after training to its end, or until it diverged."""
    rows: list[dict[str, float]] = []
    for step, loss in zip(steps, losses, strict=True):
        rows.append({"step": step, SELECTION.key: loss, "train_loss": loss})
        if not math.isfinite(loss):
            break
    diverged = not math.isfinite(losses[len(rows) - 1])
    best = SELECTION.best(rows)
    return dataclasses.replace(
        record,
        status="diverged" if diverged else "complete",
        step=int(rows[-1]["step"]),
        best_step=best["step"] if best else None,
        rows=tuple(rows),
    )


def true_costs(problem: Problem, trials: Sequence[TrialRecord]) -> np.ndarray:
    """The true mean loss of trials of one length, at the best evaluation of each."""
    settings = [trial.hyperparameters for trial in trials]
    return problem.means(settings, [trial.schedule for trial in trials]).min(axis=1)


def _truly_best(problem: Problem, records: Mapping[int, TrialRecord], found: ChoiceVerdict) -> bool:
    """Whether the earlier round's choice is the best of the settings that ran again."""
    again = [r for r in records.values() if r.role in ("best", "rerun")]
    costs = true_costs(problem, again)
    of_choice = next(c for c, trial in zip(costs, again, strict=True) if trial.role == "best")
    assert found.settings <= len(again)
    return bool(of_choice <= costs.min())


def _later_luck(
    problem: Problem, trials: Sequence[NextTrial], earlier: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The noise of later trials, which go on from where earlier ones were."""
    luck = rng.normal(size=len(trials))
    kept = problem.luck_kept
    for number, trial in enumerate(trials):
        if trial.promoted_from is not None:
            before = earlier[trial.promoted_from.trial]
            luck[number] = kept * before + math.sqrt(1 - kept**2) * luck[number]
    return luck


def _schedule(setting: Mapping[str, Any], length: int) -> Schedule:
    """A linear decay to 0 at the end, as config.schedule gives it."""
    decay = max(1, round(setting[DECAY] * length))
    return Schedule(setting[RATE], 0, length - decay, decay, "linear")
