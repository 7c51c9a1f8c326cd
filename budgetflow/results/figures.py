"""The figures of a report, as matplotlib figures; for notebooks too."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from budgetflow.playbook.best_step import FIRST, LAST
from budgetflow.results.reading import StudyResult, TrialResult
from budgetflow.schedules import Schedule

# Okabe and Ito's colours, which readers with any colour vision can tell apart.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
MAX_LABELLED_TRIALS = 20


def steps_to_fit(study: StudyResult) -> Figure:
    """Learning rate against the step at which the training set was fitted, the boundary marked."""
    figure, axes = _figure("Steps to a perfect fit of the training set")
    outcome = study.outcome or {}
    records = sorted((t.record for t in study.trials), key=lambda r: r.schedule.base_learning_rate)
    rates = [record.schedule.base_learning_rate for record in records]
    fitted = [(r.schedule.base_learning_rate, r.fitted_at_step_bracket[1])
              for r in records if r.fitted_at_step_bracket]  # fmt: skip
    diverged = [r for r in records if r.status == "diverged" and not r.fitted_at_step_bracket]
    slower = [r for r in records if r.status != "diverged" and not r.fitted_at_step_bracket]
    if fitted:
        axes.plot(*zip(*fitted, strict=True), "o-", color=BLUE, label="fitted at this step")
    for group, marker, color, label in (
        (slower, "^", GREY, "not fitted by this step (stopped there)"),
        (diverged, "x", RED, "diverged by this step"),
    ):
        if group:
            points = [(r.schedule.base_learning_rate, r.step) for r in group]
            axes.plot(*zip(*points, strict=True), marker, color=color, label=label)
    if outcome.get("max_train_steps"):
        best = (outcome["best_learning_rate"], outcome["max_train_steps"])
        axes.plot(
            *best, "*", color=ORANGE, markersize=16, label=f"answer: {best[1]} steps", zorder=5
        )
    for number, rate in enumerate((min(rates), max(rates))):
        label = "boundary of the search space" if number == 0 else "_"
        axes.axvline(rate, color=RED, linestyle=":", label=label)
    axes.set(xscale="log", yscale="log", xlabel="constant learning rate", ylabel="step")
    _legend(axes)
    return figure


def best_steps(study: StudyResult) -> Figure:
    """The best step of every trial, with the first 10 % and the last 25 % of training shaded."""
    figure, axes = _figure("Best step of each trial (retrospective checkpoint selection)")
    records = [t.record for t in study.trials if t.record.status != "diverged"]
    length = study.config["max_train_steps"]
    axes.axvspan(0, FIRST * length, color=ORANGE, alpha=0.25, label="first 10 %")
    axes.axvspan((1 - LAST) * length, length, color=BLUE, alpha=0.2, label="last 25 %")
    best = (study.outcome or {}).get("best_trial")
    for row, record in enumerate(records):
        color = GREEN if record.trial == best else "black"
        label = "best trial" if record.trial == best else None
        axes.plot([record.best_step or 0], [row], "o", color=color, label=label)
    labels = [str(record.trial) for record in records]
    if len(records) <= MAX_LABELLED_TRIALS:
        axes.set_yticks(range(len(records)), labels)
    axes.set(xlim=(0, length * 1.02), xlabel="step", ylabel="trial")
    axes.invert_yaxis()
    _legend(axes)
    return figure


def schedules(study: StudyResult) -> Figure:
    """The best trial's learning rates; over the earlier round's where they were carried over."""
    figure, axes = _figure("Learning-rate schedule of the best trial")
    transfer = (study.outcome or {}).get("transfer")
    if transfer:
        before, after = Schedule(**transfer["from"]), Schedule(**transfer["to"])
        axes.plot(
            after.learning_rates(), color=BLUE, label=f"{study.name}: {after.total_steps} steps"
        )
        axes.plot(before.learning_rates(), color=ORANGE, linestyle="--", linewidth=2,
                  label=f"earlier round: {before.total_steps} steps")  # fmt: skip
    else:
        schedule = study.best_trial.record.schedule
        axes.plot(schedule.learning_rates(), color=BLUE, label=f"{schedule.total_steps} steps")
    reused = study.best_trial.record.reused_from
    if reused:
        axes.axvspan(0, reused["step"], color=GREY, alpha=0.2,
                     label=f"taken over from {reused['study']}, not trained again")  # fmt: skip
    axes.set(xlabel="step", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return figure


def curves(study: StudyResult) -> Figure:
    """Training and validation curves of all trials, the best one highlighted."""
    keys = {key for trial in study.trials for row in trial.record.rows for key in row}
    prefix = "validation_"
    metrics = sorted({key.removeprefix(prefix) for key in keys if key.startswith(prefix)})[::-1]
    figure = Figure(figsize=(10, 3.8 * len(metrics)), layout="constrained")
    grid = figure.subplots(len(metrics), 2, squeeze=False, sharex=True)
    best = study.best_trial.record.trial
    ordered = sorted(study.trials, key=lambda t: t.record.trial == best)
    for metric, row in zip(metrics, grid, strict=True):
        for split, axes in zip(("train", "validation"), row, strict=True):
            _curves(axes, ordered, f"{split}_{metric}", best)
            axes.set_title(f"{split} {metric.replace('_', ' ')}", loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    _legend(grid[0][1])
    return figure


def _curves(axes: Axes, trials: Sequence[TrialResult], key: str, best: int) -> None:
    smallest = 1.0
    for trial in trials:
        record = trial.record
        points = {r["step"]: r[key] for r in record.rows if math.isfinite(r.get(key, math.nan))}
        smallest = min([smallest, *(value for value in points.values() if value > 0)])
        is_best = record.trial == best
        color = BLUE if is_best else RED if record.status == "diverged" else GREY
        width, order = (2.0, 3) if is_best else (0.8, 2)
        label = f"trial {best} (best)" if is_best else None
        axes.plot(
            list(points), list(points.values()), color=color, linewidth=width, zorder=order,
            label=label,
        )  # fmt: skip
        if is_best and key.startswith("validation") and record.best_step in points:
            value = points[record.best_step]
            label = f"its best step, {record.best_step}"
            axes.plot(
                [record.best_step], [value], "*", color=ORANGE, markersize=12, zorder=4, label=label
            )
    # A logarithm that also shows zero, which error rates reach.
    axes.set_yscale("symlog", linthresh=max(smallest, 1e-6))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
