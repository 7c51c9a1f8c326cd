"""Sweeps that set hopeless trials aside, replayed on recorded and on simulated curves.

    .venv/bin/python scripts/racing_with_proof.py [--races 600] [--record]

Takes half a minute. Every race is run twice on the same curves, exact and with
config.sweep.stop_hopeless: wrong answers are counted, and the steps as a share of K x s*, the least
that an exact race takes. The recorded curves are of experiments/racing_with_proof/races.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from simulated_problems import AnnealedPowerLaw, NoisyQuadratic

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import PARTIAL, Advance, TrialRecord
from budgetflow.playbook.sweep import hopeless
from budgetflow.playbook.sweep.race import (
    LEARNING_RATE,
    Race,
    SweepSettings,
    lockstep_grid,
    run_race,
)

FOLDER = Path(__file__).parents[1] / "experiments" / "racing_with_proof"
LAGS = (3.0, 4.0)
STEPS = 400


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a trial shows if nothing stops it.

    Attributes:
        rate: its learning rate.
        rows: its measurements, as in a record.
        bracket: of its fit; None if it never fits.
        diverged: whether it does.
    """

    rate: float
    rows: tuple[dict[str, Any], ...]
    bracket: tuple[int, int] | None
    diverged: bool = False

    def at(self, number: int, step: int, length: int) -> TrialRecord:
        """The trial's record after some steps."""
        rows = tuple(row for row in self.rows if row["step"] <= step)
        ended = self.diverged and step >= self.rows[-1]["step"]
        if not ended and step > (end := self.rows[-1]["step"]):
            raise ValueError(f"the curve ends at step {end} and is asked for at {step}")
        return TrialRecord(
            trial=number,
            hyperparameters={LEARNING_RATE: self.rate},
            schedule=Schedule(self.rate, constant_steps=length),
            seed=0,
            max_train_steps=length,
            status="diverged" if ended else "running",
            step=step,
            fitted_at_step_bracket=self.bracket
            if self.bracket and self.bracket[1] <= step
            else None,
            rows=rows,
        )


@dataclasses.dataclass(frozen=True)
class Curves:
    """The trials of a race: its family of curves, N, and each trial's."""

    family: str
    length: int
    curves: tuple[Curve, ...]

    def race(self, stop_hopeless: bool) -> Race:
        """The race's end."""
        settings = SweepSettings(
            learning_rates=tuple(curve.rate for curve in self.curves),
            max_train_steps=self.length,
            max_extensions=0,
            num_train_examples=1,
            steps_per_epoch=1,
            stop_hopeless=stop_hopeless,
        )
        trials = {n: curve.at(n, 0, self.length) for n, curve in enumerate(self.curves)}
        while isinstance(found := run_race(settings, list(trials.values())), Advance):
            # As where one trial runs at a time: after each there is another decision.
            number = found.trials[0]
            trials[number] = self.curves[number].at(number, found.to_step, self.length)
        assert isinstance(found, Race)
        return found

    def lag_overcome(self) -> float:
        """How many times as slow the fastest trial was as another one that fits; 1 if never.

        The most, after a share of hopeless.SHARE of the other's steps or more: with
        a LAG above this, the other's fit puts the fastest one out at no step.
        """
        fits = {n: curve.bracket[1] for n, curve in enumerate(self.curves) if curve.bracket}
        first = min(fits, key=lambda n: fits[n], default=0)
        most = 1.0
        for other in fits.keys() - {first}:
            leader = self.curves[other].at(other, self.curves[other].rows[-1]["step"], self.length)
            for step in (row["step"] for row in self.curves[first].rows):
                if hopeless.SHARE * fits[other] <= step < fits[first]:
                    found = hopeless.lag(self.curves[first].at(first, step, self.length), leader)
                    most = max(most, found.step / found.leader_step) if found else most
        return most


def recorded(path: Path) -> Iterator[Curves]:
    """The races that were trained."""
    for race in json.loads(gzip.decompress(path.read_bytes())):
        curves = []
        for trial in race["trials"]:
            rows = [
                {"step": s, "train_loss": loss} | ({PARTIAL: p} if p else {})
                for s, loss, p in trial["rows"]
            ]
            bracket = tuple(trial["bracket"]) if trial["bracket"] else None
            curves.append(Curve(trial["rate"], tuple(rows), bracket, trial["diverged"]))
        yield Curves(race["name"], race["n"], tuple(curves))


def simulated(family: str, rng: np.random.Generator) -> Curves:
    """A random race of 5 to 12 learning rates over three decades.

    A trial fits as soon as its loss, times noise, is under what the lowest of them is at a random
    step, and its measured losses have noise of their own.
    """
    rates = 10 ** np.sort(rng.uniform(-2.5, 0.5, rng.integers(5, 13)))
    losses = FAMILIES[family](rates, rng)
    target = losses[:, : int(STEPS * 10 ** rng.uniform(-1, 0))].min() * (1 + 1e-9)
    noise = 10 ** rng.uniform(-3, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        fits = losses * np.exp(noise * rng.normal(size=losses.shape)) <= target
        measured = losses * np.exp(noise * rng.normal(size=losses.shape))
    curves = []
    for rate, fit, row in zip(rates, fits, measured, strict=True):
        steps = [s for s in lockstep_grid(STEPS) if math.isfinite(row[s - 1])]
        first = int(np.argmax(fit)) + 1 if fit.any() else None
        bracket = (first - 1, first) if first else None
        diverged = not np.isfinite(row).all()
        if diverged:
            steps.append(min(s for s in lockstep_grid(STEPS) if not math.isfinite(row[s - 1])))
            row = np.nan_to_num(row, nan=math.inf)
        rows = tuple({"step": s, "train_loss": float(row[s - 1])} for s in steps)
        curves.append(Curve(float(rate), rows, bracket, diverged))
    return Curves(family, STEPS, tuple(curves))


def _surface(surface: Any) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    def losses(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        schedule = np.repeat(rates[:, None], STEPS, axis=1)
        return surface.draw(rng).losses(schedule, np.arange(1, STEPS + 1))

    return losses


def _crossing(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Power laws, each trial's time constant and exponent drawn without regard to the others'."""
    time = 10 ** rng.uniform(0, 2, (len(rates), 1))
    exponent = rng.uniform(0.5, 3, (len(rates), 1))
    return (1 + np.arange(1, STEPS + 1) / time) ** -exponent


def _late(rates: np.ndarray, rng: np.random.Generator, starts: np.ndarray) -> np.ndarray:
    """The loss at the start up to a step of each trial's own, and from then on a power law."""
    speed = rates / np.exp(rng.normal(size=len(rates)) * 0.2)
    speed *= 10 ** rng.uniform(0, 1.5) / rates.max()
    since = np.maximum(np.arange(1, STEPS + 1) - starts[:, None], 0)
    return (1 + speed[:, None] * since) ** -rng.uniform(0.5, 3)


def _catapult(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The higher the learning rate the faster, but the upper half starts late, up to step N / 4."""
    late = rates > np.median(rates)
    return _late(rates, rng, late * rng.uniform(0, STEPS / 4, len(rates)))


def _plateau(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every trial starts at a random step of its own, up to N."""
    return _late(rates, rng, rng.uniform(0, STEPS, len(rates)))


FAMILIES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "quadratic": _surface(NoisyQuadratic),
    "power law": _surface(AnnealedPowerLaw),
    "crossing": _crossing,
    "catapult": _catapult,
    "plateau": _plateau,
}


def answer(race: Race) -> tuple[Any, ...]:
    """What a race is for."""
    best = race.best
    return race.status, best and best.base_learning_rate, best and best.fitted_at_step


def steps(race: Race) -> int:
    """The updates of all its trials."""
    return sum(trial.step for trial in race.trials)


def row(family: str, races: Sequence[Curves]) -> str:
    """A line of the table: wrong answers and cost by LAG, and the lags that winners overcame."""
    exact = [curves.race(stop_hopeless=False) for curves in races]
    fitted = [n for n, race in enumerate(exact) if race.best and race.best.fitted_at_step]
    least = {n: len(exact[n].trials) * exact[n].best.fitted_at_step for n in fitted}
    cells = [family, len(races), len(fitted), mean([steps(exact[n]) / least[n] for n in fitted])]
    own = hopeless.LAG
    for hopeless.LAG in LAGS:
        found = [curves.race(stop_hopeless=True) for curves in races]
        wrong = sum(answer(a) != answer(b) for a, b in zip(exact, found, strict=True))
        cells += [wrong, mean([steps(found[n]) / least[n] for n in fitted])]
    hopeless.LAG = own
    overcome = [races[n].lag_overcome() for n in fitted]
    cells += [f"{np.quantile(overcome, 0.95):.1f}", f"{max(overcome):.1f}"]
    return f"| {' | '.join(map(str, cells))} |"


def mean(values: Sequence[float]) -> str:
    """The mean to two digits."""
    return f"{np.mean(values):.2f}"


def table(races: int) -> Iterator[str]:
    """The table, line by line."""
    heads = ["races", "of", "with a fit", "exact"]
    heads += [text for lag in LAGS for text in (f"wrong at {lag:g}", f"cost at {lag:g}")]
    yield f"| {' | '.join([*heads, 'overcome, 95 %', 'overcome, most'])} |"
    yield f"| --- |{' ---: |' * (len(heads) + 1)}"
    by_family = itertools.groupby(recorded(FOLDER / "curves.json.gz"), key=lambda one: one.family)
    for family, group in by_family:
        yield row(family, list(group))
    rng = np.random.default_rng(0)
    for family in FAMILIES:
        yield row(f"simulated: {family}", [simulated(family, rng) for _ in range(races)])


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--races", type=int, default=600, help="simulated ones of each family")
    parser.add_argument("--record", action="store_true", help=f"write the table to {FOLDER}")
    arguments = parser.parse_args()
    lines = []
    for line in table(arguments.races):
        print(line, flush=True)
        lines.append(line)
    if arguments.record:
        (FOLDER / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
