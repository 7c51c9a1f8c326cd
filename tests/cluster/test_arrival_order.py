"""A race on simulated workers: in whatever order results arrive, the answer is the same."""

import random
import types

import pytest
from etils import epath
from test_lr_sweep import LEARNING_RATE, Fate, Simulation, sweep

from budgetflow.cluster.dispatch import ClusterExecutor
from budgetflow.cluster.queue import read_placement
from budgetflow.cluster.worker import WorkerReport
from budgetflow.cluster.workers import LostWorker
from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import Add, Advance, Selection
from budgetflow.playbook.sweep import policy as lr_sweep
from budgetflow.studies.store.trial import write_trial

RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


class SimulatedWorker:
    """What a :class:`budgetflow.cluster.workers.WorkerHandle` is to the executor."""

    def __init__(self, node):
        self.node, self.last_trial, self.asked = node, None, None

    def ask(self, method, *arguments):
        assert self.asked is None, "it has something to do"
        self.asked = method, arguments


class SimulatedWorkers:
    """Workers that come back in a random order, or die; each trial has one writer at a time.

    Args:
        count: how many.
        chance: which one is the next.
        result: (stretch) -> a report.
        dies: how likely one is to die instead of coming back.
    """

    needs = "a simulated node"

    def __init__(self, count, chance, result, dies=0.0):
        self.started = [SimulatedWorker(f"node {n}") for n in range(count)]
        self._chance, self._result, self._dies = chance, result, dies
        self.most_at_once = 0

    def grow(self, wanted):
        pass

    def idle(self, trial=None):
        free = [worker for worker in self.started if worker.asked is None]
        return self._chance.choice(free) if free else None

    def wait(self, seconds):
        busy = [worker for worker in self.started if worker.asked]
        self.most_at_once = max(self.most_at_once, len(busy))
        trials = [worker.asked[1][1].trial for worker in busy]
        assert len({*trials}) == len(trials), "two workers have the same trial"
        worker = self._chance.choice(busy)
        (_, (_, stretch)), worker.asked = worker.asked, None
        if self._chance.random() < self._dies:
            return [(worker, LostWorker("its node died", process_only=False))]
        return [(worker, self._result(stretch))]


def race_in(folder, settings, fate_of, count, chance, dies=0.0):
    """A race on simulated workers; its outcome, and how many worked at the same time."""
    simulation = Simulation.__new__(Simulation)
    simulation.settings, simulation.fate_of, simulation.exact = settings, fate_of, True

    def plan(study, number, hyperparameters):
        schedule = Schedule(hyperparameters[LEARNING_RATE], 0, settings.max_train_steps)
        config = types.SimpleNamespace(seed=0)
        return types.SimpleNamespace(
            hyperparameters=hyperparameters, schedule=schedule, config=config,
            length_steps=schedule.total_steps, role="point", idea=None,
        )  # fmt: skip

    kind = types.SimpleNamespace(
        plan=plan,
        promotes=False,
        decide=lambda study, records: lr_sweep.decide(settings, records),
    )
    study = types.SimpleNamespace(
        folder=epath.Path(folder), kind=kind, selection=Selection("validation_loss"),
        asked=None, earlier=None, same_results=False, lengths_to_come=(), found_on={},
    )  # fmt: skip

    def result(stretch):
        before = executor.records[stretch.trial]
        assert before.step < stretch.to_step and before.status in ("pending", "running")
        record = simulation.view(stretch.trial, before.hyperparameters, stretch.to_step)
        if dies:  # else nobody reads it
            write_trial(study.folder, record)
        return WorkerReport(record, steps_trained=record.step - before.step)

    workers = SimulatedWorkers(count, chance, result, dies)
    executor = ClusterExecutor(study, workers, lambda: None, lambda phase: None)
    executor.read()
    return carried_out(study, executor), workers


def carried_out(study, executor):
    """What a study's policy finds, as the controller has it carried out."""
    while True:
        decision = study.kind.decide(study, list(executor.records.values()))
        if isinstance(decision, Add):
            executor.add(decision.trials)
        elif isinstance(decision, Advance):
            executor.advance(decision)
        elif not executor.wait():
            return decision.outcome


ANSWER = (
    "status", "max_train_steps", "fitted_at_step_bracket", "best_trial", "best_learning_rate",
    "learning_rates", "extensions", "refinements", "seeds", "fit_held", "regime",
)  # fmt: skip


def answer(outcome):
    return {name: getattr(outcome, name) for name in ANSWER}


def fates(chance, most):
    """Of a learning rate and a seed: one valley, ties and trials that diverge or never fit."""
    best, width = 10 ** chance.uniform(-2.3, 0.3), chance.choice([20, 60, 200])
    never, edge = chance.random() < 0.15, 10 ** chance.uniform(0, 1)

    def fate_of(rate, seed=0):
        own = random.Random(f"{best} {rate} {seed}")
        distance = abs(own.gauss(0, 0.1) + (rate / best if rate > best else best / rate))
        fits_at = min(most * 3, int(width * distance))
        diverges = own.randrange(1, most) if rate > edge else None
        return Fate(None if never else max(1, fits_at), diverges, loss=distance)

    return fate_of


@pytest.mark.parametrize("cases", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_a_race_has_one_answer_in_whatever_order_results_arrive(cases, tmp_path):
    """Five orders of each, on 1 to 9 workers, some of which die."""
    restarts = at_once = 0
    for case in range(cases):
        chance = random.Random(f"{cases} {case}")
        seeds = tuple(range(chance.choice([1, 1, 2, 3])))
        refine = chance.choice([None, 1.3])
        settings = sweep(*RATES, steps=chance.choice([60, 200]), refine=refine, seeds=seeds)
        fate_of = fates(chance, settings.max_train_steps)
        expected = answer(
            lr_sweep.decide(settings, Simulation(settings, fate_of).sorted_trials()).outcome
        )
        for order in range(5):
            folder = tmp_path / f"{case}-{order}"
            dies = 0.05 * (order == 4)
            found, workers = race_in(
                folder, settings, fate_of, chance.randrange(1, 10), chance, dies
            )
            assert answer(found) == expected
            at_once = max(at_once, workers.most_at_once)
            placements = [read_placement(epath.Path(folder), n) for n in range(5)]
            restarts += sum(placement.attempt - 1 for placement in placements)
    assert at_once > len(RATES) and restarts > cases / 2
