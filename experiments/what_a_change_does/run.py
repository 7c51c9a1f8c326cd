"""Measures what batch size and dropout do to the number of steps, on three workloads.

    .venv/bin/python experiments/what_a_change_does/run.py

Started again, it goes on from what is complete. Writes results.json and table.md.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from rich.console import Console
from studies import CHANGES, WORKLOADS, comparison

import budgetflow
from budgetflow.cli.launch import launch
from budgetflow.config import StudyConfig
from budgetflow.playbook.comparison.outcome import ComparisonOutcome, Side
from budgetflow.studies.kinds.comparison import variants
from budgetflow.studies.store.trial import read_outcome

FOLDER = Path(__file__).parent
WORKDIR = FOLDER.parents[1] / "runs" / "what_a_change_does"


def result(workload: str, change: tuple[str, Any]) -> dict[str, Any]:
    """What a comparison came to; it is run first if that is missing."""
    config = comparison(workload, change)
    if read_outcome(WORKDIR / config.name) is None:
        start = time.perf_counter()
        launch([config], str(WORKDIR), False, Console(quiet=True))
        print(f"{config.name}: {time.perf_counter() - start:.0f} s", flush=True)
    found = budgetflow.open_study(WORKDIR / config.name).found
    assert isinstance(found, ComparisonOutcome)
    (only,) = found.changes
    unchanged, changed = of_side(found.unchanged), of_side(found.changed)
    return {
        "workload": workload,
        "field": only.field,
        "before": only.before,
        "after": only.after,
        "playbook": only.expected,
        "status": found.status,
        "direction": found.direction,
        "factor": [found.steps_factor, found.steps_factor_low, found.steps_factor_high],
        "predicted_factor": [
            found.predicted_steps_factor,
            found.predicted_steps_factor_low,
            found.predicted_steps_factor_high,
        ],
        "predicted_point_by_point": point_by_point(config, unchanged, changed),
        "unchanged": unchanged,
        "changed": changed,
        "steps_trained": found.steps_trained + found.steps_rerun,
    }


def of_side(side: Side) -> dict[str, Any]:
    """Steps, learning rates and noise scales of one side."""
    noise = side.noise_scale
    scales: list[float] = []
    if noise is not None:
        points = [(p.covariance_trace, p.squared_gradient_norm) for p in noise.points]
        # [seeds, points of training, 2] -> the ratio of the seeds' means at each point.
        means = np.array(points).reshape(len(side.seeds), -1, 2).mean(axis=0)
        scales = (means[:, 0] / means[:, 1]).tolist()
    return {
        "steps": [one.steps for one in side.seeds],
        "learning_rates": [one.learning_rate for one in side.seeds],
        "status": [one.status for one in side.seeds],
        "noise_scale": [noise.examples, noise.low, noise.high] if noise else None,
        "noise_scale_along_training": scales,
    }


def point_by_point(
    config: StudyConfig, unchanged: dict[str, Any], changed: dict[str, Any]
) -> float | None:
    """The factor that the noise predicts step by step, where both sides progress alike.

    Equation 2.11 with the noise scale of each point of training instead of one for all of it: steps
    without the change, of which each takes (1 + B'_noise / B') / (1 + B_noise / B) with it.
    """
    sides = [
        1 + np.array(side["noise_scale_along_training"]) / variant.data.batch_size
        for side, variant in zip((unchanged, changed), variants(config), strict=True)
    ]
    known = len(sides[0]) == len(sides[1]) > 0 and (np.array(sides) > 1).all()
    return float((sides[1] / sides[0]).mean()) if known else None


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| workload | change | steps without | steps with | factor (95 %) | playbook | predicted "
        "by the noise scale (95 %) | point by point | noise scale without, with |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        without, changed = row["unchanged"], row["changed"]
        cells = [
            row["workload"],
            f"{row['field'].partition('.')[2]} {row['before']:g} → {row['after']:g}",
            listed(without["steps"]),
            listed(changed["steps"]),
            interval(row["factor"]),
            row["playbook"],
            interval(row["predicted_factor"]),
            figure(row["predicted_point_by_point"]),
            f"{interval(without['noise_scale'])}, {interval(changed['noise_scale'])}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def listed(steps: list[float | None]) -> str:
    """The steps of each seed."""
    return ", ".join("-" if s is None else f"{s:.0f}" for s in steps)


def figure(value: float | None) -> str:
    """A figure to three digits."""
    return "-" if value is None else f"{value:.3g}"


def interval(values: list[float | None] | None) -> str:
    """A figure with its interval."""
    if values is None or values[0] is None:
        return "-"
    return f"{values[0]:.3g} ({values[1]:.3g} to {values[2]:.3g})"


def main() -> None:
    """Runs what is missing, and writes the results."""
    logging.set_verbosity(logging.ERROR)
    jax.config.update("jax_platforms", "cpu")
    start = time.perf_counter()
    rows = [result(workload, change) for workload in WORKLOADS for change in CHANGES]
    lines = ",\n".join(map(json.dumps, rows))
    (FOLDER / "results.json").write_text(f"[\n{lines}\n]\n")
    (FOLDER / "table.md").write_text(table(rows))
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
