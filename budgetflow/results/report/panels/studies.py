"""The panels of the report, each a small Vega-Lite specification.

A panel is drawn by data sets that the page holds once for all of them (``trials``, ``curves``) or
by rows of its own. In every specification, ``chosen`` is an object whose keys are the trials that
are selected (null: all), ``picked`` the trial that is shown in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pydantic

from budgetflow.config.search_space import Dimension
from budgetflow.playbook.common.measurement import TrialRecord
from budgetflow.playbook.common.outcomes import CooldownsOutcome, RoundOutcome, SweepOutcome
from budgetflow.playbook.comparison.outcome import ComparisonOutcome
from budgetflow.playbook.rounds.best_setting import edges
from budgetflow.playbook.rounds.best_step import FIRST, LAST
from budgetflow.playbook.sweep.race import LEARNING_RATE, SEED
from budgetflow.results.figures import explosion_limit
from budgetflow.results.reading import StudyResult
from budgetflow.results.report.page_data import Shown, metrics, number, value_of
from budgetflow.results.report.panels.forecasts import forecasts
from budgetflow.results.report.panels.steps import schedules, tree
from budgetflow.results.report.vega import (
    CROSS,
    OPACITY,
    Panel,
    Spec,
    is_number,
    layers,
    limit_of,
    lines,
    metric_axis,
    points,
    positions,
    quantity,
    rules,
    scale_of,
)

# Of parallel coordinates, what still can be told apart.
MOST_AXES = 9


def panels(of: Shown) -> list[Panel]:
    """All panels of a study that have something to show."""
    return [panel for make in MAKERS for panel in make(of)]


def metric_values(of: Shown) -> list[float | None]:
    """The selection metric of each trial at its best step."""
    return [value_of(r, of.study.selection.key) for r in of.records]


def by_metric(of: Shown, x: Spec) -> Spec:
    """The trials by the selection metric; those that diverged at the bad end of its axis."""
    selection = of.study.selection
    y = metric_axis("metric", selection.words, metric_values(of))
    low, high = y["scale"]["domain"]
    return points(x, y, diverged_at=low if selection.higher_is_better else high)


def short(name: str) -> str:
    """The name of a hyperparameter without its section, in words."""
    return name.rpartition(".")[2].replace("_", " ")


def steps_to_fit(of: Shown) -> Iterator[Panel]:
    """When each learning rate fitted, and how far each came."""
    # Races that differ in more than these, as those of a comparison, are no single curve.
    differing = {name for r in of.records for name in r.hyperparameters} - {LEARNING_RATE, SEED}
    if not of.is_race or differing or not any(r.rows for r in of.records):
        return
    found = of.study.found
    answer = isinstance(found, SweepOutcome) and found.status == "found"
    rates = [r.base_learning_rate for r in of.records]
    ends = rules("rate", (min(rates), max(rates)))
    last = {r.trial: r.rows[-1].get("train_loss") for r in of.records if r.rows}
    rows = [
        {"trial": r.trial, "group": of.groups[r.trial], "rate": number(r.base_learning_rate)}
        | {"step": r.fitted_at_step or r.step, "loss": number(last.get(r.trial))}
        for r in of.records
    ]
    x = quantity("rate", "learning rate, constant", "log")
    note = "Dotted: the boundary of the learning rates tried. "
    flag = ""
    if isinstance(found, SweepOutcome) and found.status == "at_boundary":
        flag = "the best learning rate lies at the boundary"
    if answer and isinstance(found, SweepOutcome):
        note += f"The answer: {found.max_train_steps} steps at {found.best_learning_rate:g}."
    section = "How fast does each learning rate fit?"
    step = quantity("step", "step")
    yield Panel("Step of the first fit", note, layers(rows, points(x, step), ends), flag, section)
    loss = metric_axis("loss", "last training loss", [row["loss"] for row in rows])
    note = "Of each trial's last evaluation."
    yield Panel("Last training loss", note, layers(rows, points(x, loss), ends), "", section)


def sides(of: Shown) -> Iterator[Panel]:
    """The steps of each seed without and with a change."""
    found = of.study.found
    if not isinstance(found, ComparisonOutcome):
        return
    rows = [
        {"trial": one.trial, "group": "competes", "seed": one.seed, "side": side}
        | {"steps": number(one.steps)}
        for side, each in (("without", found.unchanged), ("with the change", found.changed))
        for one in each.seeds
        if one.steps is not None
    ]
    x: Spec = {"field": "side", "type": "nominal", "sort": None, "axis": {"labelAngle": 0}}
    x |= {"title": None}
    y = quantity("steps", "steps")
    line: Spec = {"mark": {"type": "line", "color": "var(--muted)"}}
    line["encoding"] = {"x": x, "y": y, "detail": {"field": "seed"}}
    changes = ", ".join(f"{c.field}: {c.before} → {c.after}" for c in found.changes)
    note = f"A line joins the two sides of a seed. {changes}."
    section = "How many steps does each side take?"
    yield Panel("Steps of each seed", note, layers(rows, points(x, y), line), "", section)


def lengths(of: Shown) -> Iterator[Panel]:
    """The selection metric against the length of the run."""
    found = of.study.found
    if len({r.max_train_steps for r in of.records}) < 2 or of.is_race:
        return
    x = quantity("length", "steps of the run", "log")
    joined = []
    if isinstance(found, CooldownsOutcome):
        joined = [_best_line(x, [each.best_trial for each in found.lengths])]
    spec = layers("trials", by_metric(of, x), *joined)
    note = "A line joins the best of each length." if joined else ""
    yield Panel("By length of the run", note, spec, section="What does each length give?")


def _best_line(x: Spec, best: Iterable[int | None]) -> Spec:
    encoding = {"x": x, "y": {"field": "metric", "type": "quantitative"}}
    kept = {"filter": {"field": "trial", "oneOf": [n for n in best if n is not None]}}
    mark = {"type": "line", "color": "var(--best)", "strokeWidth": 2}
    return {"transform": [kept], "mark": mark, "encoding": encoding}


def best_steps(of: Shown) -> Iterator[Panel]:
    """Where the best step of each trial lies, and what it gives."""
    if of.is_race or not any(r.best_step is not None for r in of.records):
        return
    length, found = of.study.config["max_train_steps"], of.study.found
    bands = [
        {"from": 0, "to": FIRST * length, "what": "first 10 %"},
        {"from": (1 - LAST) * length, "to": length, "what": "last 25 %"},
    ]
    x = quantity("best_step", "best step") | {"scale": {"domain": [0, length]}}
    names = {"domain": [band["what"] for band in bands], "range": ["var(--warm)", "var(--cool)"]}
    shade = {
        "data": {"values": bands},
        "mark": {"type": "rect", "opacity": 0.25},
        "encoding": {
            "x": {"field": "from", "type": "quantitative"},
            "x2": {"field": "to"},
            "color": {"field": "what", "scale": names, "legend": {"title": None}},
        },
    }
    flag = ""
    if isinstance(found, RoundOutcome) and found.best_step_diagnosis.verdict[:4] == "too_":
        flag = found.best_step_diagnosis.verdict.replace("_", " ")
    note = "The step that retrospective selection finds; the verdict is about those that compete."
    spec = layers("trials", by_metric(of, x), shade, own_colors=True)
    yield Panel("Best steps", note, spec, flag, "Was the length right?", True)


def axis_plots(of: Shown) -> Iterator[Panel]:
    """Each hyperparameter against the metric: is the best point at the edge of the space?"""
    if of.is_race or not any(v is not None for v in metric_values(of)):
        return
    space = _space(of.study)
    found = of.study.found
    at: dict[str, Any] = {}
    if of.best is not None:
        at = dict(edges(space, of.best.hyperparameters))
        if isinstance(found, RoundOutcome) and found.at_edge is not None:
            at = dict(found.at_edge)
    ranges = {dimension.name: dimension for dimension in space}
    for n, name in enumerate(of.varied):
        values = [of.setting(r, name) for r in of.records]
        field, ends = f"h{n}", []
        if name != "seed" and all(is_number(value) for value in values):
            # Of a range searched, its ends; else those of the values.
            if (known := ranges.get(name)) and known.distribution != "choices":
                values = [known.low, known.high, *values]
                ends = [rules(field, (known.low, known.high))]
            x = quantity(field, short(name), scale_of(values))
        else:
            x = {"field": field, "type": "nominal", "title": short(name)}
            x["axis"] = {"labelAngle": 0, "labelLimit": 90}
        flag = f"optimum at the {at[name]} edge" if name in at else ""
        spec = layers("trials", by_metric(of, x), *ends)
        note = "Dotted: the ends of what was searched." if ends else ""
        section = "Which values are good, and is the best at an edge?"
        yield Panel(short(name), note, spec, flag, section)


def _space(study: StudyResult) -> Sequence[Dimension]:
    """What a study searched: the space of its config, or the one that it was derived with."""
    found = study.found
    if isinstance(found, RoundOutcome) and found.carried_over:
        return [row.searched_dimension for row in found.carried_over]
    # JSON has null for what a dimension does not use.
    known = [
        {name: value for name, value in dimension.items() if value is not None}
        for dimension in study.config["search"].get("space") or ()
    ]
    return pydantic.TypeAdapter(tuple[Dimension, ...]).validate_python(known)


def parallel(of: Shown) -> Iterator[Panel]:
    """All hyperparameters of a trial as one line."""
    if of.is_race or len(of.varied) < 2:
        return
    names = list(of.varied)[: MOST_AXES - 1]
    metric = of.study.selection.words
    limit = limit_of(metric_values(of))
    columns: dict[str, list[Any]] = {
        short(name): [of.setting(r, name) for r in of.records] for name in names
    }
    columns[metric] = [v if v is None else min(v, limit) for v in metric_values(of)]
    placed = {title: positions(values) for title, values in columns.items()}
    rows = [
        {"trial": r.trial, "group": of.groups[r.trial], "axis": list(placed)}
        | {"at": [number(at[n]) for at, _, _ in placed.values()]}
        for n, r in enumerate(of.records)
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
    ends: Spec = {"data": {"values": labels}, "mark": {"type": "text", "fontSize": 10}}
    ends["encoding"] = {"x": x, "y": y, "text": {"field": "text"}}
    ends["mark"]["color"] = "var(--muted)"
    spec = layers(rows, lines(x, y, flatten=("axis", "at")), ends)
    note = "A line is a trial; drag over a part of an axis to see what goes with it."
    if (left := len(of.records) - len(rows)) > 0:
        note += f" Left out: {left} without a validation."
    section = "What goes together?"
    yield Panel("Parallel coordinates", note, spec, "", section, True)


def curves(of: Shown) -> Iterator[Panel]:
    """What was measured, step by step, on axes that one explosion does not stretch."""
    for n, key in enumerate(metrics(of)):
        series = [(r, [row.get(key) for row in r.rows]) for r in of.records]
        values = [v for _, each in series for v in each]
        if all(sum(map(is_number, each)) < 2 for _, each in series):
            continue  # no line to draw
        limit = explosion_limit(of.study.trials, key)
        y = metric_axis(f"m{n}", key.replace("_", " "), values, limit)
        x = quantity("step", "step")
        ends = [_end(of, r, each, limit) for r, each in series]
        marks = [end for end in ends if end is not None]
        crosses = []
        if marks:
            encoding = {"x": x, "y": y | {"field": "value"}, "opacity": OPACITY}
            mark = {"type": "point", "shape": CROSS, "size": 60, "color": "var(--diverged)"}
            crosses.append({"data": {"values": marks}, "mark": mark, "encoding": encoding})
        beyond = sum(end["what"] == "beyond" for end in marks)
        counts = {"diverged": len(marks) - beyond, "leave this axis here": beyond}
        told = [f"{count} {what}" for what, count in counts.items() if count]
        note = f"✕: {', '.join(told)}." if told else ""
        spec = layers("curves", lines(x, y, flatten=("step", f"m{n}")), *crosses)
        yield Panel(key.replace("_", " "), note, spec, "", "Training and validation")


def _end(of: Shown, r: TrialRecord, values: Sequence[Any], limit: float | None) -> Spec | None:
    """Where the curve of a trial that diverged ends, or where one leaves the axis."""
    about = {"trial": r.trial, "group": of.groups[r.trial]}
    known = [(row["step"], v) for row, v in zip(r.rows, values, strict=True) if is_number(v)]
    for step, value in known:
        if limit is not None and abs(value) > limit:
            what = "diverged" if r.diverged else "beyond"
            at = math.copysign(limit, value)
            return {**about, "what": what, "step": step, "value": number(at)}
    if not r.diverged or not known:
        return None
    step, value = known[-1]
    return {**about, "what": "diverged", "step": step, "value": number(float(value))}


# In the order of the report.
MAKERS: tuple[Callable[[Shown], Iterator[Panel]], ...] = (
    steps_to_fit,
    sides,
    lengths,
    axis_plots,
    best_steps,
    forecasts,
    parallel,
    curves,
    schedules,
    tree,
)
