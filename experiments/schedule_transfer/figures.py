"""The experiment's tables and plot, from the rows of results.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from studies import ARMS, FACTORS, SEEDS, WORKLOADS

from budgetflow.engine.schedules import Schedule

Row = dict[str, Any]
# Okabe and Ito's, which readers with any colour vision can tell apart.
COLORS = ("#0072B2", "black", "#999999", "#D55E00", "#E69F00", "#009E73")
STYLES = dict(zip(ARMS, zip(COLORS, "ovsX^D", strict=True), strict=True))


def tables(rows: list[Row]) -> str:
    """All tables, as Markdown: an arm a row, a length a column, a cell over all seeds."""
    reference = {_key(r): _loss(r) for r in rows if r["arm"] == "transferred"}

    def base(row: Row) -> float:
        return row["schedule"]["base_learning_rate"]

    def extra(row: Row) -> str:
        mean = row["extra_steps_mean_relative_learning_rate"]
        return "-" if mean is None else f"{mean:.2f}"

    cells = {
        "Best validation loss: mean (min to max) of the seeds": _spread(_loss),
        "Its difference from that of the first arm with the same seed": _spread(
            lambda row: _loss(row) - reference[_key(row)], "+"
        ),
        "Error rate of the same checkpoints": _spread(
            lambda row: row["best_validation"]["error_rate"]
        ),
        "Validation loss at the last step": _spread(lambda row: row["last_validation_loss"]),
        "Best step, as a share of the run": _spread(
            lambda row: row["best_step"] / row["max_train_steps"]
        ),
        "Steps trained + reused; 1x: the whole grid": lambda found: (
            f"{found[0]['steps_trained']} + {found[0]['steps_reused']}"
        ),
        "Mean learning rate of the steps beyond round 1, relative to the base": lambda found: extra(
            found[0]
        ),
        "Base learning rate, by seed": lambda found: ", ".join(f"{base(r):g}" for r in found),
    }
    parts = []
    for workload, (title, *_) in WORKLOADS.items():
        parts.append(f"## {title}\n")
        parts += [_table(heading, rows, workload, cell) for heading, cell in cells.items()]
    return "\n".join(parts)


def _table(heading: str, rows: list[Row], workload: str, cell: Callable[[list[Row]], str]) -> str:
    lines = [
        f"{heading}.",
        "",
        f"| arm | {' | '.join(f'{factor}x' for factor in FACTORS)} |",
        f"| --- |{' ---: |' * len(FACTORS)}",
    ]
    for name, arm in ARMS.items():
        found = [cell(_seeds(rows, workload, name, factor)) for factor in FACTORS]
        lines.append(f"| {arm.title} | {' | '.join(found)} |")
    return "\n".join(lines) + "\n"


def _spread(value: Callable[[Row], float], sign: str = "") -> Callable[[list[Row]], str]:
    def cell(found: list[Row]) -> str:
        numbers = [value(row) for row in found]
        mean, low, high = (f(numbers) for f in (statistics.mean, min, max))
        return f"{mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"

    return cell


def _key(row: Row) -> tuple[str, int, int]:
    return row["workload"], row["factor"], row["seed"]


def _loss(row: Row) -> float:
    return row["best_validation"]["loss"]


def _seeds(rows: list[Row], *key: str | int) -> list[Row]:
    return [row for row in rows if (row["workload"], row["arm"], row["factor"]) == key]


def plot(rows: list[Row], path: Path) -> None:
    """Validation loss against length, a panel per workload, and the schedules below."""
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2.4, 1))
    panels = above.subplots(1, len(WORKLOADS))
    for axes, workload in zip(panels, WORKLOADS, strict=True):
        _losses(axes, rows, workload)
    above.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    panels = below.subplots(1, len(ARMS), sharey=True)
    for axes, name in zip(panels, ARMS, strict=True):
        _schedules(axes, rows, name)
    panels[0].set_ylabel("learning rate / base")
    figure.savefig(path, dpi=90)


def _losses(axes: Axes, rows: list[Row], workload: str) -> None:
    for number, (name, arm) in enumerate(ARMS.items()):
        losses = [[*map(_loss, _seeds(rows, workload, name, factor))] for factor in FACTORS]
        means = [statistics.mean(values) for values in losses]
        pairs = list(zip(means, losses, strict=True))
        reach = [[mean - min(v) for mean, v in pairs], [max(v) - mean for mean, v in pairs]]
        color, marker = STYLES[name]
        x = [factor * 1.025 ** (number - 2.5) for factor in FACTORS]
        axes.errorbar(x, means, reach, color=color, marker=marker, capsize=3, label=arm.title)
    title, unit, *_ = WORKLOADS[workload]
    axes.set(xscale="log", xlabel=f"length, in units of round 1 ({unit} steps)")
    axes.set_ylabel(f"best validation loss, mean and range of {len(SEEDS)} seeds")
    axes.set_xticks(FACTORS, [f"{factor}x" for factor in FACTORS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    _style(axes, title)


def _schedules(axes: Axes, rows: list[Row], name: str) -> None:
    color, _ = STYLES[name]
    for factor, line in ((4, {"color": color}), (1, {"color": "black", "linestyle": ":"})):
        schedule = Schedule(**_seeds(rows, next(iter(WORKLOADS)), name, factor)[0]["schedule"])
        rates = schedule.learning_rates() / schedule.base_learning_rate
        axes.plot(rates, label=f"{factor}x", **line)
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=8)
    _style(axes, ARMS[name].title.replace(", ", ",\n"), 9)


def _style(axes: Axes, title: str, size: int = 12) -> None:
    axes.set_title(title, loc="left", fontsize=size)
    axes.spines[["top", "right"]].set_visible(False)
