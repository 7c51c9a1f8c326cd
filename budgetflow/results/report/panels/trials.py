"""The panels of the trials of any kind of study, and what is drawn of a single one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import TrialRecord
from budgetflow.playbook.common.outcomes import TrialsOutcome
from budgetflow.results.report.page_data import PageData, number, setting
from budgetflow.results.report.vega import (
    CROSS,
    OPACITY,
    Panel,
    Spec,
    is_number,
    layer,
    layers,
    limit_of,
    lines,
    metric_axis,
    positions,
    quantity,
    shades,
    thinned,
)
from budgetflow.results.words import short_name

# Of parallel coordinates, what still can be told apart.
MOST_AXES = 9


def parallel(data: PageData) -> Iterator[Panel]:
    """All hyperparameters of a trial as one line."""
    if data.is_race or len(data.varied) < 2:
        return
    metrics = data.metric_values
    limit = limit_of(metrics)
    columns: dict[str, list[Any]] = {
        short_name(name): [setting(data.study, r, name) for r in data.records]
        for name in data.varied[: MOST_AXES - 1]
    }
    columns[data.study.selection.words] = [v if v is None else min(v, limit) for v in metrics]
    placed = {title: positions(values) for title, values in columns.items()}
    rows = [
        {"trial": r.trial, "group": data.groups[r.trial], "axis": list(placed)}
        | {"at": [number(at[n]) for at, _, _ in placed.values()]}
        for n, r in enumerate(data.records)
        if all(at[n] is not None for at, _, _ in placed.values())
    ]
    labels = [
        {"axis": title, "at": y, "text": text}
        for title, (_, low, high) in placed.items()
        for y, text in ((-0.07, low), (1.07, high))
    ]
    x: Spec = {"field": "axis", "type": "nominal", "sort": list(placed), "title": None}
    # A word a line, above the axis.
    most = max(len(title.split()) for title in placed)
    x["axis"] = {"labelAngle": 0, "labelExpr": "split(datum.label, ' ')", "labelLineHeight": 11}
    x["axis"] |= {"labelPadding": 3 + 11 * (most - 1), "grid": True, "orient": "top"}
    y: Spec = {"field": "at", "type": "quantitative", "axis": None}
    y["scale"] = {"domain": [-0.1, 1.1]}
    encoding = {"x": x, "y": y, "text": {"field": "text"}}
    ends = layer("text", encoding, labels, fontSize=10, color="var(--muted)")
    spec = layers(rows, lines(x, y, flatten=("axis", "at")), ends)
    note = "A line is a trial; drag over a part of an axis to see what goes with it."
    if (left := len(data.records) - len(rows)) > 0:
        note += f" Left out: {left} without a validation."
    yield Panel("Parallel coordinates", note, spec, "", "What goes together?", True)


def curves(data: PageData) -> Iterator[Panel]:
    """What was measured, step by step, on axes that one explosion does not stretch."""
    for n, key in enumerate(data.metrics):
        series = [[row.get(key) for row in r.rows] for r in data.records]
        if all(sum(map(is_number, values)) < 2 for values in series):
            continue  # no line to draw
        limit = explosion_limit(series)
        title = key.replace("_", " ")
        y = metric_axis(f"m{n}", title, [v for values in series for v in values], limit)
        x = quantity("step", "step")
        ends = [_end(data, r, key, limit) for r in data.records]
        marks, crosses = [end for end in ends if end is not None], []
        if marks:
            encoding = {"x": x, "y": y | {"field": "value"}, "opacity": OPACITY}
            style = {"shape": CROSS, "size": 60, "color": "var(--diverged)"}
            crosses.append(layer("point", encoding, marks, **style))
        beyond = sum(end["what"] == "beyond" for end in marks)
        counts = {"diverged": len(marks) - beyond, "leave this axis here": beyond}
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        note = f"✕: {', '.join(parts)}." if parts else ""
        spec = layers("curves", lines(x, y, flatten=("step", f"m{n}")), *crosses)
        yield Panel(title, note, spec, "", "Training and validation")


def explosion_limit(series: Sequence[Sequence[Any]]) -> float | None:
    """Ten times the usual value of a metric, where some are a thousand times it; else None.

    One trial that explodes, whether it counts as diverged or not, would hide all others. The usual
    value is the median, of all values or of the first ones of the trials, whichever is larger.

    Args:
        series: the values of each trial.
    """
    finite = [[abs(v) for v in values if is_number(v)] for values in series]
    if not any(finite):
        return None
    firsts, values = [each[0] for each in finite if each], [v for each in finite for v in each]
    usual = max(statistics.median(firsts), statistics.median(values))
    return 10 * usual if 0 < 1000 * usual < max(values) else None


def _end(data: PageData, r: TrialRecord, key: str, limit: float | None) -> Spec | None:
    """Where the curve of a trial that diverged ends, or where one leaves the axis."""
    points = [(row["step"], row[key]) for row in r.rows if is_number(row.get(key))]
    beyond = [(s, math.copysign(limit, v)) for s, v in points if limit and abs(v) > limit]
    if not beyond and not (r.diverged and points):
        return None
    step, value = beyond[0] if beyond else points[-1]
    what = "diverged" if r.diverged else "beyond"
    about = {"trial": r.trial, "group": data.groups[r.trial]}
    return {**about, "what": what, "step": step, "value": number(float(value))}


def schedules(data: PageData) -> Iterator[Panel]:
    """The schedule of the best trial; where it was carried over, with where extra steps go."""
    outcome, best = data.study.found, data.best
    if data.is_race or best is None:
        return
    transfer = outcome.transfer if isinstance(outcome, TrialsOutcome) else None
    drawn: list[tuple[str, Schedule, dict[str, Any]]] = [("best trial", best.schedule, {})]
    if transfer:
        drawn = [
            ("carried over", Schedule(**transfer["to"]), transfer),
            ("the earlier round's", Schedule(**transfer["from"]), {}),
        ]
        if "stretched" in transfer:  # not in outcomes of the first version
            stretched = transfer["stretched"]
            drawn.append(("stretched in proportion", Schedule(**stretched["to"]), stretched))
    rows, notes = [], []
    for name, schedule, extra in drawn:
        steps, rates = thinned(schedule)
        rows += [{"what": name, "step": s, "rate": r} for s, r in zip(steps, rates, strict=True)]
        mean = extra.get("extra_steps_mean_relative_learning_rate")
        if mean is not None:
            notes.append(f"{name}: the extra steps are at {mean:.0%} of the base on average")
    names = [name for name, _, _ in drawn]
    what = {"field": "what", "legend": {"title": None}}
    colors = ["var(--best)", "var(--warm)", "var(--muted)"][: len(names)]
    dashes = [[1, 0], [6, 3], [2, 3]][: len(names)]
    encoding = {
        "x": quantity("step", "step"),
        "y": quantity("rate", "learning rate"),
        "color": what | {"scale": {"domain": names, "range": colors}},
        "strokeDash": what | {"scale": {"domain": names, "range": dashes}},
    }
    parts = [layer("line", encoding, strokeWidth=2)]
    if best.reused_from:
        span = {"from": 0, "to": best.reused_from["step"]}
        parts.insert(0, shades([span], opacity=0.15, color="var(--muted)"))
        notes.append(f"shaded: taken over from {best.reused_from['study']}, not trained again")
    note = f"{'; '.join(notes)}." if notes else ""
    yield Panel("Learning rate", note, layers(rows, *parts), "", "Where do the steps go?", True)


def of_one_trial(data: PageData) -> list[Spec]:
    """What is drawn of the trial that is picked, by its entry of the curves."""
    key = data.study.selection.key
    pair = [k for k in (key.replace("validation_", "train_"), key) if k in data.metrics]
    specs = []
    if pair:
        values = [row.get(k) for k in pair for r in data.records for row in r.rows]
        y = metric_axis("value", key.removeprefix("validation_").replace("_", " "), values)
        fields = {f"m{data.metrics.index(k)}": k.replace("_", " ") for k in pair}
        specs.append(_course(fields, y))
    return [*specs, _course({"rate": "learning rate"}, quantity("value", "learning rate"))]


def _course(fields: dict[str, str], y: Spec) -> Spec:
    """Fields of a trial's entry of the curves over its steps: field to its name."""
    colors = ["var(--warm)", "var(--best)"] if len(fields) > 1 else ["var(--best)"]
    legend = {"title": None, "orient": "top"} if len(fields) > 1 else None
    parts = []
    for field, name in fields.items():
        color = {"datum": name, "scale": {"domain": [*fields.values()], "range": colors}}
        encoding = {"x": quantity("step", "step"), "y": y | {"field": field}}
        encoding["color"] = color | {"legend": legend}
        parts.append(layer("line", encoding, point={"size": 12}))
    flatten = [{"flatten": ["step", *fields]}]
    return {**layers("curves", *parts), "transform": flatten, "height": 140}
