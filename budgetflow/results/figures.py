"""Figures of a study as matplotlib figures, for notebooks and papers; the report has its own."""

from __future__ import annotations

import functools
import io
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.outcomes import (
    CooldownsOutcome,
    RoundOutcome,
    SweepOutcome,
    TrialsOutcome,
)
from budgetflow.playbook.comparison.outcome import ComparisonOutcome
from budgetflow.playbook.rounds.best_step import FIRST, LAST
from budgetflow.results.reading import StudyResult, TrialResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which readers with any colour vision can tell apart.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
MAX_LABELLED_TRIALS = 20


def steps_to_fit(study: StudyResult) -> Figure:
    """Learning rate against the step of the first fit, and the training loss at the race's end.

    The boundary of the learning rates tried is marked in both.
    """
    figure, ((left, right),) = _panels(1, 2, 4.5)
    outcome = study.found
    # A trial that has just begun has nothing to show.
    measured = [t.record for t in study.trials if t.record.rows and not t.record.failed]
    if not measured:
        return _nothing_yet(figure)
    records = sorted(measured, key=lambda r: r.base_learning_rate)
    rates = [record.base_learning_rate for record in records]
    other_seeds = [r for r in records if r.seed != study.config["seed"]]
    records = [r for r in records if r.seed == study.config["seed"]]
    fitted = [r for r in records if r.fitted_at_step is not None]
    others = [r for r in records if r.fitted_at_step is None]
    diverged = [r for r in others if r.status == "diverged"]
    slower = [r for r in others if r.status != "diverged"]
    for group, marker, color, label in (
        (fitted, "o-", BLUE, "fitted at this step"),
        (slower, "^", GREY, "not fitted up to here, where the race ended"),
        (diverged, "x", RED, "diverged by this step"),
    ):
        steps = [r.fitted_at_step or r.step for r in group]
        if group:
            x = [r.base_learning_rate for r in group]
            left.plot(x, steps, marker, color=color, label=label)
            last = [r.rows[-1]["train_loss"] for r in group]
            right.plot(x, last, marker.strip("-"), color=color)
    if repeated := [r for r in other_seeds if r.fitted_at_step is not None]:
        x = [r.base_learning_rate for r in repeated]
        steps = [r.fitted_at_step or 0 for r in repeated]
        left.plot(x, steps, "o", color=BLUE, mfc="none", label="fitted, other seeds")
    first = "Step of the first perfect fit"
    if isinstance(outcome, SweepOutcome):
        rate, step = outcome.best_learning_rate, outcome.max_train_steps
        if step is not None:
            label = f"answer: {step} steps at {rate:g}"
            left.plot([rate], [step], "*", color=ORANGE, markersize=16, label=label, zorder=5)
        if outcome.contradicting_examples and outcome.fitted_train_loss is None:
            first = "Step of the first fit with the fewest errors possible"
    right.set_yscale("log")
    _end_before_explosions(right, study.trials, "train_loss")
    for axes, title in ((left, first), (right, "Last training loss")):
        axes.axvline(min(rates), color=RED, linestyle=":", label="boundary of the search space")
        axes.axvline(max(rates), color=RED, linestyle=":")
        axes.set(xscale="log", xlabel="constant learning rate")
        _style(axes, title)
    left.set_ylim(0, 1.6 * max(record.step for record in (*records, *other_seeds)))
    left.set_ylabel("step")
    left.legend(frameon=False, loc="upper center")
    return figure


def steps_of_both_sides(study: StudyResult) -> Figure:
    """The steps of each seed's fastest trial, without and with the change, joined by seed."""
    outcome = study.found
    assert isinstance(outcome, ComparisonOutcome)
    target = "a perfect fit"
    if outcome.train_loss is not None:
        target = f"a training loss under {outcome.train_loss:g}"
    figure, axes = _figure(f"Steps to {target}, a line for each seed", 4.0)
    labels = [
        ", ".join(f"{change.field} = {value}" for change, value in values)
        for values in (
            [(change, change.before) for change in outcome.changes],
            [(change, change.after) for change in outcome.changes],
        )
    ]
    for before, after in zip(outcome.unchanged.seeds, outcome.changed.seeds, strict=False):
        points = {x: one.steps for x, one in enumerate((before, after)) if one.steps is not None}
        axes.plot(list(points), list(points.values()), "o-", color=BLUE, alpha=0.7)
    axes.set_xticks(range(2), labels)
    axes.set(xlim=(-0.5, 1.5), ylabel="step")
    _from_zero(axes)
    return figure


def best_steps(study: StudyResult) -> Figure:
    """The best step of every trial, with the first 10 % and the last 25 % of training shaded.

    Grey are the trials that do not compete for the best result; the verdict is not about them.
    """
    records = [t.record for t in study.trials if t.record.status not in ("diverged", "failed")]
    most = max((trial.record.trial for trial in study.trials), default=0) + 1
    height = 1.9 + 0.2 * min(max(most, 5), 2 * MAX_LABELLED_TRIALS)
    figure, axes = _figure("Best step of each trial (retrospective checkpoint selection)", height)
    length = study.config["max_train_steps"]
    axes.axvspan(0, FIRST * length, color=ORANGE, alpha=0.25, label="first 10 %")
    axes.axvspan((1 - LAST) * length, length, color=BLUE, alpha=0.2, label="last 25 %")
    outcome = study.found
    hopeless: tuple[int, ...] = ()
    if isinstance(outcome, RoundOutcome):
        hopeless = outcome.best_step_diagnosis.hopeless_trials
    labelled = set()
    for record in records:
        if record.best_step is None:  # nothing was measured yet
            continue
        color, label = "black", "trial that competes" if hopeless else "trial"
        if outcome is not None and record.trial == outcome.best_trial:
            color, label = GREEN, "best trial"
        elif record.trial in hopeless:
            color, label = GREY, "does not compete"
        shown = label if label not in labelled else None
        labelled.add(label)
        axes.plot([record.best_step], [record.trial], "o", color=color, label=shown)
    if most <= MAX_LABELLED_TRIALS:
        axes.set_yticks(range(most), [str(number) for number in range(most)])
    axes.set(xlim=(0, length * 1.02), xlabel="step", ylabel="trial")
    axes.set_ylim(most - 0.5, -0.5)
    # Below the axes, where it hides no trial.
    figure.subplots_adjust(bottom=0.95 / height)
    figure.legend(loc="lower center", ncols=5, frameon=False)
    return figure


def lengths(study: StudyResult) -> Figure:
    """The selection metric of every trial against its length, the best of each length joined."""
    outcome, metric = study.found, study.selection.key
    figure, axes = _figure(f"{metric.replace('_', ' ')} by length of the run", 4.0)
    table = study.to_pandas()
    if metric not in table:
        return _nothing_yet(figure)
    axes.plot(table["max_train_steps"], table[metric], "o", color=GREY, mfc="none", label="trial")
    best = metric.removeprefix("validation_")
    ends = outcome.lengths if isinstance(outcome, CooldownsOutcome) else ()
    known = {r.length_steps: r.best_validation[best] for r in ends if r.best_validation}
    x, y = list(known), list(known.values())
    axes.plot(x, y, "o-", color=BLUE, label="best of its length")
    axes.set(xscale="log", xlabel="steps", ylabel=metric.replace("_", " "))
    tried = sorted({int(length) for length in table["max_train_steps"]})
    axes.set_xticks(tried, [str(length) for length in tried])
    _from_zero(axes)
    axes.xaxis.set_minor_formatter("")
    _legend(axes)
    return figure


def schedules(study: StudyResult) -> Figure:
    """The best trial's learning rates; over the earlier round's where they were carried over.

    Those of every trial while the study is under way.
    """
    if study.outcome is None:
        return _schedules_under_way(study)
    figure, axes = _figure("Learning-rate schedule of the best trial", 4.0)
    outcome = study.found
    transfer = outcome.transfer if isinstance(outcome, TrialsOutcome) else None
    if transfer:
        lines = [
            (transfer, study.name, BLUE, "-"),
            ({"to": transfer["from"]}, "earlier round", ORANGE, "--"),
        ]
        if "stretched" in transfer:  # not in outcomes of the first version
            lines.insert(0, (transfer["stretched"], "stretched in proportion", GREY, ":"))
        for carried, name, color, line in lines:
            schedule = Schedule(**carried["to"])
            label = f"{name}: {schedule.total_steps} steps"
            mean = carried.get("extra_steps_mean_relative_learning_rate")
            if mean is not None:
                label += f", the extra ones at {mean:.0%} of the base on average"
            axes.plot(schedule.learning_rates(), color=color, linestyle=line, label=label)
    else:
        schedule = study.best_trial.record.schedule
        axes.plot(schedule.learning_rates(), color=BLUE, label=f"{schedule.total_steps} steps")
    reused = study.best_trial.record.reused_from
    if reused:
        label = f"taken over from {reused['study']}, not trained again"
        axes.axvspan(0, reused["step"], color=GREY, alpha=0.2, label=label)
    axes.set(xlabel="step", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return figure


def curves(study: StudyResult) -> Figure:
    """Training and validation curves of all trials, the best one highlighted.

    An axis ends where those of the trials do that did not explode (:func:`explosion_limit`).
    """
    keys = {key for trial in study.trials for row in trial.record.rows for key in row}
    prefix = "validation_"
    metrics = sorted({key.removeprefix(prefix) for key in keys if key.startswith(prefix)})[::-1]
    if not metrics:
        return _nothing_yet(_panels(1, 1, 3.8)[0])
    figure, grid = _panels(len(metrics), 2, 3.8 * len(metrics))
    best = study.found.best_trial if study.found else None
    ordered = sorted(study.trials, key=lambda t: t.record.trial == best)
    for metric, row in zip(metrics, grid, strict=True):
        for split, axes in zip(("train", "validation"), row, strict=True):
            _curves(axes, ordered, f"{split}_{metric}", best)
            _style(axes, f"{split} {metric.replace('_', ' ')}")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    _legend(grid[0][1])
    return figure


def _curves(axes: Axes, trials: Sequence[TrialResult], key: str, best: int | None) -> None:
    smallest = 1.0
    for trial in trials:
        record = trial.record
        points = {r["step"]: r[key] for r in record.rows if math.isfinite(r.get(key, math.nan))}
        smallest = min([smallest, *(abs(value) for value in points.values() if value)])
        is_best = record.trial == best
        color, width, order = GREY, 0.8, 2
        if is_best:
            color, width, order = BLUE, 2.0, 3
        elif record.status == "diverged":
            color = RED
        label = f"trial {best} (best)" if is_best else None
        axes.plot(
            list(points),
            list(points.values()),
            color=color,
            linewidth=width,
            zorder=order,
            label=label,
        )
        step = record.best_step
        if is_best and key.startswith("validation") and step is not None and step in points:
            label = f"its best step, {step}"
            axes.plot(
                [step], [points[step]], "*", color=ORANGE, markersize=12, zorder=4, label=label
            )
    # A logarithm that also shows zero, which error rates reach.
    axes.set_yscale("symlog", linthresh=max(smallest, 1e-6))
    _from_zero(axes)
    _end_before_explosions(axes, trials, key)


def explosion_limit(trials: Sequence[TrialResult], key: str) -> float | None:
    """Ten times the usual value of a metric, where some are a thousand times it; else None.

    One trial that explodes, whether it counts as diverged or not, would hide all others. The usual
    value is the median, of all values or of the first ones of the trials, whichever is larger.
    """
    of_trials = [[row.get(key, math.nan) for row in trial.record.rows] for trial in trials]
    finite = [[abs(v) for v in values if math.isfinite(v)] for values in of_trials]
    if not any(finite):
        return None
    firsts, values = [each[0] for each in finite if each], [v for each in finite for v in each]
    usual = max(statistics.median(firsts), statistics.median(values))
    return 10 * usual if 0 < 1000 * usual < max(values) else None


def _end_before_explosions(axes: Axes, trials: Sequence[TrialResult], key: str) -> None:
    """Ends an axis at :func:`explosion_limit`, and says how many trials go beyond it."""
    limit = explosion_limit(trials, key)
    if limit is None:
        return
    axes.set_ylim(top=limit)
    if axes.get_ylim()[0] < -limit:
        axes.set_ylim(bottom=-limit)
    beyond = sum(any(abs(r.get(key, 0)) > limit for r in trial.record.rows) for trial in trials)
    text = f"off this axis: {beyond} of {len(trials)} trials"
    axes.text(0.99, 0.97, text, ha="right", va="top", transform=axes.transAxes, color=RED)


def _schedules_under_way(study: StudyResult) -> Figure:
    figure, axes = _figure("Learning-rate schedules", 4.0)
    for schedule in dict.fromkeys(trial.record.schedule for trial in study.trials):
        axes.plot(schedule.learning_rates(), color=GREY, linewidth=0.8)
    axes.set(xlabel="step", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    return figure


def _nothing_yet(figure: Figure) -> Figure:
    """A figure of a study that has measured nothing so far."""
    figure.clear()
    figure.text(0.5, 0.5, "Nothing has been measured yet.", ha="center")
    return figure


def _from_zero(axes: Axes) -> None:
    """Lets an axis begin at zero, unless some values are negative."""
    if axes.dataLim.ymin >= 0:
        axes.set_ylim(bottom=0)


def _figure(title: str, height: float) -> tuple[Figure, Axes]:
    figure, ((axes,),) = _panels(1, 1, height)
    _style(axes, title)
    return figure, axes


def _panels(rows: int, columns: int, height: float) -> tuple[Figure, Any]:
    """A figure and its axes, [rows][columns]. Margins are given: to measure labels takes long."""
    from matplotlib.figure import Figure  # takes a second, which not every launch needs

    figure = Figure(figsize=(10, height))
    # Notebooks show it, also before they have loaded what shows the figures of pyplot.
    vars(figure)["_repr_png_"] = functools.partial(_png, figure)
    figure.subplots_adjust(
        left=0.08, right=0.98, top=1 - 0.4 / height, bottom=0.55 / height, wspace=0.2, hspace=0.3
    )
    return figure, figure.subplots(rows, columns, squeeze=False)


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() != "linear":
            # Plain numbers, at the powers of ten only: typesetting formulas takes long.
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
