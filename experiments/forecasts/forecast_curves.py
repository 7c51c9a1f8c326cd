"""Curves that others measured, as experiments/forecasts/score_forecasts.py reads them."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from budgetflow.playbook.forecasts.loss_forecast import Curve

# Of the multi-power-law runs: the updates of warmup, before the first measured loss.
WARMUP = 2160
# Of the scan-bench runs: the share of updates that warm up.
WARMUP_SHARE = 0.05
# A trial that ends before this share of the longest of its kind has no known end.
COMPLETE = 0.9


def pretraining_curve(path: Path) -> Curve:
    """A run of the multi-power-law data, a file with step, learning rate and loss."""
    with path.open() as lines:
        rows = np.array([[float(v) for v in row.values()] for row in csv.DictReader(lines)])
    steps = rows[:, 0].astype(int)
    # The learning rate is known where the loss is; between, it is taken to be straight.
    known_at = np.concatenate([[0, WARMUP], steps])
    known = np.concatenate([[0.0, rows[0, 1]], rows[:, 1]])
    return Curve(np.interp(np.arange(steps[-1]), known_at, known), steps, rows[:, 2])


def configurations(part: str) -> list[tuple[float, Curve]]:
    """The "train" or "test" configurations of scan-bench's language models: parameters, curve.

    Only the package's files are read: importing it would need its many dependencies.
    """
    spec = importlib.util.find_spec("scan_bench")
    if spec is None or spec.origin is None:
        raise SystemExit("scan-bench is not installed: pip install --no-deps scan-bench")
    runs: dict[str, list[dict[str, str]]] = {}
    with (Path(spec.origin).parent / "llm" / "splits" / f"{part}.csv").open() as lines:
        for row in csv.DictReader(lines):
            runs.setdefault(row["config_id"], []).append(row)
    return [(float(rows[0]["n_param"]), _configuration(rows)) for rows in runs.values()]


def _configuration(rows: list[dict[str, str]]) -> Curve:
    rows = sorted(rows, key=lambda row: float(row["eval_step"]))
    total = round(float(rows[0]["final_step"]))
    done = np.arange(total) / total
    warmup = (done + 1 / total) / WARMUP_SHARE
    decay = (1 - done) / max(float(rows[0]["cooldown_steps"]), 1 / total)
    rates = float(rows[0]["lr"]) * np.minimum(np.minimum(1, warmup), decay)
    steps = np.array([min(round(float(row["eval_step"])), total) for row in rows])
    return Curve(rates, steps, np.array([float(row["valid_loss"]) for row in rows]))


def tuning_trials(path: Path) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """The complete AlgoPerf trials: workload, repetition, steps and errors.

    The error is 1 minus the metric where higher is better.
    """
    with gzip.open(path, "rt") as lines:
        trials = [json.loads(line) for line in lines]
    lengths: dict[tuple[Any, ...], int] = {}
    for trial in trials:
        kind = _kind(trial)
        lengths[kind] = max(lengths.get(kind, 0), trial["curve"][-1][0])
    for trial in trials:
        rows = [(r[0], r[1]) for r in trial["curve"] if r[1] is not None and r[0] >= 1]
        rows = [row for row in rows if math.isfinite(row[1])]
        if not rows or rows[-1][0] < COMPLETE * lengths[_kind(trial)]:
            continue
        steps, index = np.unique([row[0] for row in rows], return_index=True)
        values = np.array([row[1] for row in rows])[index]
        errors = values if trial["lower_is_better"] else 1 - values
        yield trial["workload"], str(trial["study"]), steps, errors


def _kind(trial: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(trial[k] for k in ("submission", "study", "workload", "framework"))
