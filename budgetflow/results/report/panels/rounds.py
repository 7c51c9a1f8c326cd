"""The panels of rounds and cooldowns, whose trials are selected by validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pydantic

from budgetflow.config.search_space import Dimension
from budgetflow.playbook.common.outcomes import CooldownsOutcome, RoundOutcome
from budgetflow.playbook.rounds.best_setting import edges
from budgetflow.playbook.rounds.best_step import FIRST, LAST
from budgetflow.results.reading import StudyResult
from budgetflow.results.report.page_data import PageData, setting
from budgetflow.results.report.vega import (
    Panel,
    Spec,
    is_number,
    layer,
    layers,
    metric_axis,
    points,
    quantity,
    rules,
    scale_of,
    shades,
)
from budgetflow.results.words import short_name


def _by_metric(data: PageData, x: Spec) -> Spec:
    """The trials by the selection metric; those that diverged at the bad end of its axis."""
    selection = data.study.selection
    y = metric_axis("metric", selection.words, data.metric_values)
    low, high = y["scale"]["domain"]
    return points(x, y, diverged_at=low if selection.higher_is_better else high)


def lengths(data: PageData) -> Iterator[Panel]:
    """The selection metric against the length of the run."""
    outcome = data.study.found
    if len({r.max_train_steps for r in data.records}) < 2 or data.is_race:
        return
    x, parts, note = quantity("length", "steps of the run", "log"), [], ""
    if isinstance(outcome, CooldownsOutcome):
        best = [each.best_trial for each in outcome.lengths if each.best_trial is not None]
        encoding = {"x": x, "y": {"field": "metric", "type": "quantitative"}}
        line = layer("line", encoding, color="var(--best)", strokeWidth=2)
        parts.append({"transform": [{"filter": {"field": "trial", "oneOf": best}}], **line})
        note = "A line joins the best of each length."
    spec = layers("trials", _by_metric(data, x), *parts)
    yield Panel("By length of the run", note, spec, section="What does each length give?")


def best_steps(data: PageData) -> Iterator[Panel]:
    """Where the best step of each trial lies, and what it gives."""
    if data.is_race or not any(r.best_step is not None for r in data.records):
        return
    length, outcome = data.study.config["max_train_steps"], data.study.found
    bands = [
        {"from": 0, "to": FIRST * length, "what": "first 10 %"},
        {"from": (1 - LAST) * length, "to": length, "what": "last 25 %"},
    ]
    x = quantity("best_step", "best step") | {"scale": {"domain": [0, length]}}
    names = {"domain": [band["what"] for band in bands], "range": ["var(--warm)", "var(--cool)"]}
    color = {"field": "what", "scale": names, "legend": {"title": None}}
    flag = ""
    if isinstance(outcome, RoundOutcome):
        verdict = outcome.best_step_diagnosis.verdict
        flag = verdict.replace("_", " ") if verdict in ("too_long", "too_short") else ""
    note = "The step that retrospective selection finds; the verdict is about those that compete."
    shade = shades(bands, {"color": color}, opacity=0.25)
    spec = layers("trials", _by_metric(data, x), shade)
    spec["resolve"] = {"scale": {"color": "independent"}}  # a band's colours mean something else
    yield Panel("Best steps", note, spec, flag, "Was the length right?", True)


def axis_plots(data: PageData) -> Iterator[Panel]:
    """Each hyperparameter against the metric: is the best point at the edge of the space?"""
    if data.is_race or not any(value is not None for value in data.metric_values):
        return
    space, outcome = _space(data.study), data.study.found
    at: dict[str, Any] = {}
    if data.best is not None:
        at = dict(edges(space, data.best.hyperparameters))
        if isinstance(outcome, RoundOutcome) and outcome.at_edge is not None:
            at = dict(outcome.at_edge)
    ranges = {dimension.name: dimension for dimension in space}
    for n, name in enumerate(data.varied):
        values = [setting(data.study, r, name) for r in data.records]
        field, title, ends = f"h{n}", short_name(name), []
        if name != "seed" and all(is_number(value) for value in values):
            # Of a range searched, its ends; else those of the values.
            if (dimension := ranges.get(name)) and dimension.distribution != "choices":
                values = [dimension.low, dimension.high, *values]
                ends = [rules(field, (dimension.low, dimension.high))]
            x = quantity(field, title, scale_of(values))
        else:
            x = {"field": field, "type": "nominal", "title": title}
            x["axis"] = {"labelAngle": 0, "labelLimit": 90}
        flag = f"optimum at the {at[name]} edge" if name in at else ""
        spec = layers("trials", _by_metric(data, x), *ends)
        note = "Dotted: the ends of what was searched." if ends else ""
        section = "Which values are good, and is the best at an edge?"
        yield Panel(title, note, spec, flag, section)


def _space(study: StudyResult) -> Sequence[Dimension]:
    """What a study searched: the space of its config, or the one that it was derived with."""
    outcome = study.found
    if isinstance(outcome, RoundOutcome) and outcome.carried_over:
        return [row.searched_dimension for row in outcome.carried_over]
    # JSON has null for what a dimension does not use.
    dimensions = [
        {name: value for name, value in dimension.items() if value is not None}
        for dimension in study.config["search"].get("space") or ()
    ]
    return pydantic.TypeAdapter(tuple[Dimension, ...]).validate_python(dimensions)
