"""Chains of studies whose trials follow formulas: all that decides and words is the real thing."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from budgetflow.base.files import read_json
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.engine.metrics import Metric
from budgetflow.engine.tasks import Classification
from budgetflow.engine.training.timing import Stopwatch
from budgetflow.engine.training.trial_run import Measurement
from budgetflow.studies.kinds import check_follows, parse_study
from budgetflow.studies.plan.chain import lengths_to_come, planned_chain
from budgetflow.studies.plan.reuse import kept_steps
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.run.noise_scale import GradientProducts
from budgetflow.studies.store.trial import trial_folder
from budgetflow.studies.study import resolve


def run_chain(configs, workdir, law, saves=False):
    """Runs studies, each building on the one before; what each ``outcome.json`` holds.

    Args:
        configs: ConfigDicts, the first study's first.
        workdir: where the folders are to lie.
        law: (plan, step) -> what a trial measures at a step, without ``step`` and
            ``learning_rate``; "fitted_at" is the step from which on it fits the training set.
        saves: whether trials leave checkpoints, which others can continue.

    Returns:
        The outcomes by the study's name, without fingerprints, and what is said of a plan.
    """
    workdir, chain = epath.Path(workdir), [parse_study(config) for config in configs]
    for before, after in itertools.pairwise(chain):
        check_follows(after, before)
    planned = planned_chain(chain, workdir)
    planned.record(workdir)
    outcomes, earlier = {}, None
    for number, each in enumerate(planned.studies):
        study = resolve(each, workdir / each.name, earlier)
        to_come = lengths_to_come(study.max_train_steps, planned.studies[number + 1 :])
        study = dataclasses.replace(study, lengths_to_come=to_come)
        run_study(study, lambda *_: None, live=SimulatedTrials(study, law, saves))
        earlier = study.folder
        outcomes[each.name] = without_fingerprints(read_json(study.folder / "outcome.json"))
    return {"plan": list(planned.sentences()), "outcomes": outcomes}


def without_fingerprints(value):
    """JSON values without what depends on the versions of libraries and on budgetflow's code."""
    if isinstance(value, list):
        return [without_fingerprints(each) for each in value]
    if isinstance(value, dict):
        return {k: without_fingerprints(v) for k, v in value.items() if k != "fingerprint"}
    return re.sub(r"\([0-9a-f]{16}\)", "(…)", value) if isinstance(value, str) else value


class SimulatedTrials:
    """Takes the place of ``LiveTrials``: one trial at a time, whose measurements are a law's."""

    def __init__(self, study, law, saves):
        self._study, self._law, self._saves = study, law, saves
        self._open = {}
        self.stopwatch = Stopwatch()

    def __contains__(self, number):
        return number in self._open

    def wave(self, trials):
        return dict.fromkeys(itertools.islice(trials, 1), 0)

    def open(self, record, plan, position):
        folder = trial_folder(self._study.folder, record.trial)
        checkpoints = TrialCheckpoints(folder, 1e9) if self._saves else None
        self._open[record.trial] = (plan, checkpoints, record.step)

    def start(self, plan, position):
        return SimulatedRun(plan)

    def advance(self, trials, to_step):
        return {number: self._measured(number, to_step) for number in trials}

    def _measured(self, number, step):
        plan, checkpoints, checked_step = self._open[number]
        self._open[number] = (plan, checkpoints, step)
        values = self._law(plan, step)
        fitted_at = values.pop("fitted_at", math.inf)
        row = {"step": step, "learning_rate": float(plan.schedule.learning_rates()[step - 1])}
        is_whole = plan.whole_at is None or step >= min(fitted_at, plan.length_steps)
        if not is_whole:
            values = {k: v for k, v in values.items() if not k.startswith("validation_")}
            if step not in plan.whole_at:
                row["partial_train_examples"] = 100
        bracket = None
        threshold = plan.config.sweep.fitted_train_loss
        if threshold is not None and values["train_loss"] < threshold:
            bracket = (checked_step, step)
        elif step >= fitted_at:
            bracket = (fitted_at - 1, fitted_at)
        diverged = not all(math.isfinite(value) for value in values.values())
        return Measurement({**row, **values}, diverged, bracket)

    def hold(self, record, plan):
        _, checkpoints, _ = self._open[record.trial]
        if checkpoints is not None:
            keep = kept_steps(self._study, plan, record.rows, record.step)
            checkpoints.hold(record.step, self._state(record), keep)
        return False

    def close(self, record, plan, save=True):
        _, checkpoints, _ = self._open.pop(record.trial)
        if checkpoints is not None and save:
            keep = kept_steps(self._study, plan, record.rows, record.step)
            state = None if record.status == "diverged" else self._state(record)
            checkpoints.save(keep, record.step, state)
        if checkpoints is not None:
            checkpoints.finish()

    def evaluate(self, number, split):
        plan, _, step = self._open[number]
        values = self._law(plan, step)
        return {
            name.removeprefix("validation_"): value
            for name, value in values.items()
            if name.startswith("validation_")
        }

    @staticmethod
    def _state(record):
        return SimulatedState(jnp.asarray(record.step))


class SimulatedState(NamedTuple):
    """What a checkpoint of a simulated trial holds."""

    step: jax.Array


@dataclasses.dataclass
class SimulatedRun:
    """A trial that is run again for its gradient noise."""

    plan: Any
    step: int = 0
    is_local = True

    def train(self, to_step):
        self.step = to_step


def gradient_products(run, seed, batch_size):
    """Gradients of a noise scale of 120 examples; with Nesterov's momentum, of noise alone."""
    scale, draw = 120.0, random.Random(f"{seed} {run.step} {batch_size}")
    signal = 1.0 / run.step
    if run.plan.config.optimizer.get("nesterov"):
        norms = [digits(1 + 0.1 * draw.gauss(0, 1)) for _ in range(8)]
        return GradientProducts(batch_size, tuple(norms), tuple(norm / 8 for norm in norms))
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
