"""The formulas that trials follow, and their data: all that decides and words is the real thing."""

from __future__ import annotations

import functools
import itertools
import math
import random
import re

import numpy as np
from etils import epath

from budgetflow.engine.metrics import Metric
from budgetflow.engine.tasks import Classification
from budgetflow.playbook.budget.words import plan_rows
from budgetflow.results.kind_views import headline, planned_fields, view_of
from budgetflow.results.reading import open_study
from budgetflow.studies.kinds import check_follows, parse_study
from budgetflow.studies.plan.chain import planned_chain
from budgetflow.studies.run.noise_scale import GradientProducts
from budgetflow.testing import run_simulated


def run_chain(configs, workdir, law, saves=False):
    """Runs studies, each building on the one before; what each ``outcome.json`` holds.

    Args:
        configs: ConfigDicts, the first study's first.
        workdir: where the folders are to lie.
        law: see :data:`budgetflow.testing.simulation.Law`.
        saves: whether trials leave checkpoints, which others can continue.

    Returns:
        The outcomes by the study's name, without fingerprints, and how they are shown; and what is
        said of a plan.
    """
    workdir, chain = epath.Path(workdir), [parse_study(config) for config in configs]
    for before, after in itertools.pairwise(chain):
        check_follows(after, before)
    planned = planned_chain(chain, workdir)
    planned.record(workdir)
    outcomes = run_simulated(planned.studies, workdir, law, saves)
    found = {
        name: {**without_fingerprints(outcome), "shown": shown(open_study(workdir / name))}
        for name, outcome in outcomes.items()
    }
    if planned.plan is None:
        return found
    rows = [" | ".join(map(str, row.values())) for row in plan_rows(planned.plan)]
    return {
        "plan": [*rows, *planned.sentences(), *lines(planned_fields(planned.fields()))],
        **found,
    }


def shown(study):
    """A study's sentence and its tables, as they are printed."""
    tables = [line for table in view_of(study.found).tables(study) for line in lines(table)]
    return [headline(study.found), *tables]


def lines(table):
    """A table in lines, its title first."""
    return [table.title, *(" | ".join(cells) for cells in (table.columns, *table.rows))]


def without_fingerprints(value):
    """JSON values without what depends on the versions of libraries and on budgetflow's code."""
    if isinstance(value, list):
        return [without_fingerprints(each) for each in value]
    if isinstance(value, dict):
        return {k: without_fingerprints(v) for k, v in value.items() if k != "fingerprint"}
    return re.sub(r"\([0-9a-f]{16}\)", "(…)", value) if isinstance(value, str) else value


def gradient_products(run, seed, batch_size):
    """Gradients of a noise scale of 120 examples; with Nesterov's momentum, of noise alone."""
    scale, draw = 120.0, random.Random(f"{seed} {run.step} {batch_size}")
    signal = 1.0 / run.step
    if run.plan.config.optimizer.get("nesterov"):
        norms = [digits(1 + 0.1 * draw.gauss(0, 1)) for _ in range(8)]
        projections = [digits(norm / 8 + 0.05 * draw.gauss(0, 1)) for norm in norms]
        return GradientProducts(batch_size, tuple(norms), tuple(projections))
    norms = [
        digits(signal * (1 + scale / batch_size) * (1 + 0.1 * draw.gauss(0, 1))) for _ in range(8)
    ]
    projections = [digits(signal * (1 + scale / batch_size / 8)) for _ in norms]
    return GradientProducts(batch_size, tuple(norms), tuple(projections))


def digits(value):
    """A number to six digits, the same on every machine though its logarithms are not."""
    return float(f"{value:.6g}")


def noise(spread, *of):
    """A factor near 1, always the same of the same."""
    return math.exp(spread * random.Random(repr(of)).gauss(0, 1))


class WithAccuracy(Classification):
    """A task with a metric of which higher values are better."""

    def metrics(self, outputs, batch):
        """Its own, and the accuracy."""
        right = 1.0 * self.fitted(outputs, batch)
        accuracy = Metric(right, np.ones(right.shape, np.float32), higher_is_better=True)
        return {**super().metrics(outputs, batch), "accuracy": accuracy}


def examples(split):
    """Numbers and their classes: 1,000 to train on, 360 to validate and to test."""
    numbers = range(1000 if split == "train" else 360)
    return [{"inputs": np.asarray([n], np.float32), "targets": np.int32(n % 3)} for n in numbers]


def contradicting(split):
    """Examples of which every tenth has the inputs of the one before and another label."""
    found = examples(split)
    for before, example in zip(found[8::10], found[9::10], strict=True):
        example["inputs"] = before["inputs"]
    return found


def racing(
    steps=250,
    best_rate=0.1,
    width=1.0,
    diverges_above=math.inf,
    falls=None,
    lowest=(0.0, 0.0),
    loses_fit=False,
    seed_noise=0.05,
    dropout=1.0,
):
    """A law of trials that race to a perfect fit.

    Args:
        steps: the fastest trial's, to fit.
        best_rate: its learning rate.
        width: in factors of e, by which a learning rate takes e^(1/2) times the steps.
        diverges_above: the highest learning rate that trains.
        falls: of trials that never fit, the power of the step that the training loss falls with.
        lowest: the lowest training loss and error rate.
        loses_fit: whether a trial that has fitted is wrong somewhere again later.
        seed_noise: between seeds, as a share of the steps.
        dropout: how many more steps it takes, as a multiple of its rate.
    """

    def law(plan, step):
        rate, seed = plan.schedule.base_learning_rate, plan.config.seed
        away = math.log(rate / best_rate) / width
        if rate > diverges_above:
            return {"train_loss": math.nan if step > 3 else 2.3, "train_error_rate": 0.9}
        of = (seed, digits(rate), plan.config.data.batch_size, repr(plan.config.optimizer))
        needed = steps * math.exp(away**2 / 2) * noise(seed_noise, "race", *of)
        needed *= 1 + dropout * plan.config.regularization["dropout_rate"]
        needed = max(1, round(needed * (128 / plan.config.data.batch_size) ** 0.5))
        if falls is None:
            fitted = step >= needed
            loss = lowest[0] + 2.3 * math.exp(-4 * step / needed)
            wrong = lowest[1] + (0.0 if fitted else max(0.001, 0.9 * (1 - step / needed)))
            if loses_fit and step > needed:
                wrong = 0.002
        else:
            fitted = False
            loss = lowest[0] + 2.3 * step**-falls * math.exp(away**2 / 20)
            wrong = lowest[1] + 0.3 * step**-falls * math.exp(away**2 / 20)
        values = {
            "train_loss": digits(loss),
            "train_error_rate": digits(wrong),
            "validation_loss": digits(0.1 + loss),
            "validation_error_rate": digits(0.02 + wrong / 2),
        }
        return {**values, "fitted_at": needed} if fitted else values

    return law


def annealed(
    floor=0.2,
    anneals=0.8,
    best_rate=0.1,
    width=1.5,
    seed_noise=0.004,
    overfits_after=math.inf,
    diverges=lambda plan: False,
    factor=lambda plan: 1.0,
    spikes=lambda plan: False,
):
    """A law of rounds: a power law in the sum of the learning rates, with one of annealing.

    Args:
        floor: the lowest loss.
        anneals: how much of a high learning rate's loss a decay takes away.
        best_rate: the learning rate with the lowest loss.
        width: how many factors of e from it the loss is e^(1/2) times as high.
        seed_noise: between seeds, as a share of the loss.
        overfits_after: the step from which on the validation loss rises.
        diverges, factor, spikes: of a trial's plan: whether it diverges, what its loss is
            multiplied with, and whether its training loss jumps up and comes back.
    """

    def law(plan, step):
        base = plan.schedule.base_learning_rate
        if diverges(plan) and step > 10:
            names = ("train_loss", "train_error_rate", "validation_loss", "validation_error_rate")
            return dict.fromkeys(names, math.nan)
        total, annealed = _sums(plan.schedule)[step - 1]
        loss = floor + 0.8 * (1 + 10 * total) ** -0.4 + anneals * (base - annealed)
        away = math.log(base / best_rate) / width
        loss *= math.exp(away**2 / 2) * factor(plan)
        of = (plan.config.seed, repr(sorted(plan.hyperparameters.items())), plan.idea)
        loss *= noise(seed_noise, "trial", *of) * noise(seed_noise / 4, "step", step, *of)
        train = 0.9 * loss
        if step > overfits_after:
            loss *= 1 + 0.3 * (step / overfits_after - 1)
            train *= (overfits_after / step) ** 0.5
        if spikes(plan) and 0.25 < step / plan.length_steps < 0.45:
            train *= 4
        wrong = round(360 * min(1.0, loss / 4)) / 360
        values = {
            "train_loss": digits(train),
            "train_error_rate": digits(0.8 * wrong),
            "validation_loss": digits(loss),
            "validation_error_rate": wrong,
        }
        if plan.config.task["name"].endswith("WithAccuracy"):
            values |= {"train_accuracy": 1 - 0.8 * wrong, "validation_accuracy": 1 - wrong}
        return values

    return law


@functools.lru_cache(maxsize=256)
def _sums(schedule, memory=0.9):
    """After each step, the sum of the learning rates, and what annealing has taken away."""
    sums, total, momentum, annealed = [], 0.0, 0.0, 0.0
    rates = list(map(float, schedule.learning_rates()))
    for before, rate in itertools.pairwise([rates[0], *rates]):
        total += rate
        momentum = memory * momentum + max(before - rate, 0.0)
        annealed += (1 - memory) * momentum
        sums.append((total, annealed))
    return sums
