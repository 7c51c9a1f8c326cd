"""The studies that a launch runs, each after the one that it builds on; rounds by their plan."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from budgetflow.base import processes
from budgetflow.base.files import read_json, write_json
from budgetflow.config.schema import StudyConfig
from budgetflow.engine.training.mesh import make_mesh
from budgetflow.playbook.budget.budget import StepCost
from budgetflow.playbook.budget.planner import RoundsPlan
from budgetflow.playbook.budget.words import plan_sentences
from budgetflow.playbook.derived.search_space import PlannedField
from budgetflow.playbook.derived.search_space import plan as plan_fields
from budgetflow.studies.kinds import kind_of
from budgetflow.studies.kinds.conclusions import PLAN
from budgetflow.studies.kinds.rounds import budget, expand, planned, request_of
from budgetflow.studies.plan.cost import flops_per_step, seconds_per_step
from budgetflow.studies.study import Study, first_program, resolve, study_dataset


@dataclasses.dataclass(frozen=True)
class PlannedChain:
    """The studies of a chain, its rounds planned.

    Attributes:
        studies: the first one first.
        config: of the rounds that were planned; None where there are none.
        cost: of a step of theirs.
        plan: of theirs.
    """

    studies: list[StudyConfig]
    config: StudyConfig | None = None
    cost: StepCost | None = None
    plan: RoundsPlan | None = None

    def sentences(self) -> Iterator[str]:
        """The words of a dry run on the plan."""
        if self.config is not None and self.cost is not None and self.plan is not None:
            request = request_of(self.config, self.plan.budget_steps)
            yield from plan_sentences(self.plan, request, budget(self.config), self.cost)

    def fields(self) -> tuple[PlannedField, ...]:
        """The plan for each dimension of the first round, by its tag."""
        assert self.config is not None
        return plan_fields(self.config.search.space, dict(self.config.search.carry))

    def record(self, workdir: epath.Path) -> None:
        """Writes the plan into the folder of the last round.

        It is kept: timed again, a budget in hours would be another number of steps.
        """
        if self.config is None or self.cost is None or self.plan is None:
            return
        unit, amount = budget(self.config)
        content = {
            "budget": {unit: amount},
            "cost": dataclasses.asdict(self.cost),
            **dataclasses.asdict(self.plan),
        }
        path = workdir / self.config.name / PLAN
        processes.on_main(write_json, path, content)


def resolved(
    chain: Sequence[StudyConfig],
    workdir: epath.Path,
    same_results: bool = False,
    forked_from: str | None = None,
) -> Iterator[Study]:
    """The studies of a chain, each resolved once the one before is complete.

    Args:
        chain: their configs, the first study's first.
        workdir: where their folders lie.
        same_results: see :func:`budgetflow.studies.study.resolve`.
        forked_from: the name of a study whose states the last one takes over.
    """
    previous: epath.Path | None = None
    for number, config in enumerate(chain):
        folder = workdir / config.name
        study = resolve(config, folder, previous, same_results)
        yield dataclasses.replace(
            study,
            lengths_to_come=lengths_to_come(study.max_train_steps, chain[number + 1 :]),
            forked_from=forked_from if config is chain[-1] else None,
        )
        previous = folder


def lengths_to_come(length: int, later: Sequence[StudyConfig]) -> tuple[int, ...]:
    """The lengths of the studies that come after one of a length, each building on the last."""
    lengths: list[int] = []
    for config in later:
        if kind_of(config).gives_length:
            length = config.max_train_steps or math.ceil(config.max_train_steps_factor * length)
            lengths.append(length)
    return tuple(lengths)


def planned_chain(chain: list[StudyConfig], workdir: epath.Path) -> PlannedChain:
    """A chain with rounds in place of the plan that its last study may be.

    Compiles and times a step where the budget is in FLOPs or hours, unless the folder of the last
    round says what one costs.

    Raises:
        ConfigError: the budget is too small, or cannot be measured here.
    """
    *before, last = chain
    if not kind_of(last).is_planned:
        return PlannedChain(chain)
    cost = processes.on_main(_recorded_cost, workdir / last.name) or _cost(last)
    plan = planned(last, cost)
    return PlannedChain([*before, *expand(last, plan)], last, cost, plan)


def _recorded_cost(folder: epath.Path) -> StepCost | None:
    path = folder / PLAN
    return StepCost(**read_json(path)["cost"]) if path.exists() else None


def _cost(config: StudyConfig) -> StepCost:
    """What a step costs, as far as the budget has to know."""
    unit = budget(config).unit
    measured: dict[str, Any] = {}
    if unit in ("flops", "hours"):
        mesh = make_mesh(config.mesh, kind_of(config).num_trials(config))
        filled, program = first_program(config, mesh)
        dataset = study_dataset(config)
        measured["flops"] = flops_per_step(filled, dataset, program)
        if unit == "hours":
            assert config.rounds.production_steps is not None
            length = round(config.rounds.first_round_fraction * config.rounds.production_steps)
            measured["seconds"] = seconds_per_step(filled, dataset, program, max(1, length))
    return StepCost(examples=config.data.batch_size, **measured)
