"""The parts of panels in Vega-Lite: marks, axes and scales.

Colours are variables of the page's style sheet, so that light, dark and print differ in that alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from budgetflow.engine.schedules import Schedule
from budgetflow.results.report.page_data import GROUPS

Spec = dict[str, Any]
# The configuration of Vega-Lite for all panels.
THEME: Spec = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None, "fill": "transparent"},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "gridColor": "var(--line)",
        "gridOpacity": 0.6,
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 11,
        "titleFontSize": 12,
    },
    "legend": {"labelColor": "var(--muted)", "titleColor": "var(--muted)", "orient": "top"},
}
# A range of positive numbers is drawn on a logarithmic axis from this ratio of its ends on.
LOGARITHMIC_FROM = 20
# A schedule is drawn through so many steps, and its corners.
MOST_STEPS_DRAWN = 200
CROSS = "M-.6,-.6L.6,.6M.6,-.6L-.6,.6"
_SHAPES = dict.fromkeys(GROUPS, "circle") | {"diverged": CROSS, "best": "diamond"}
# What the page sets: the trials that are selected, as keys (null: all), and the one that is shown.
PARAMS: list[Spec] = [{"name": "chosen", "value": None}, {"name": "picked", "value": None}]
_LEFT_OUT, _PICKED = "chosen && !chosen[datum.trial]", "picked === datum.trial"
_IS_BEST = "datum.group === 'best'"
OPACITY: Spec = {"condition": {"test": _LEFT_OUT, "value": 0.07}, "value": 0.95}
# The style of what is there for the mouse alone.
UNSEEN: Spec = {"opacity": 0}
# Touch scrolls the page.
_BRUSH: Spec = {
    "name": "brush",
    "select": {
        "type": "interval",
        "on": "[pointerdown[event.pointerType !== 'touch'], window:pointerup]"
        " > window:pointermove!",
        "zoom": False,
        "mark": {"fill": "var(--text)", "fillOpacity": 0.08, "stroke": "var(--muted)"},
    },
}


class Panel(NamedTuple):
    """A panel of the report.

    Attributes:
        title: what is drawn.
        note: what to know to read it.
        spec: in Vega-Lite.
        flag: a warning that it shows.
        section: the question that it answers, with others.
        wide: whether it takes the whole width.
    """

    title: str
    note: str
    spec: Spec
    flag: str = ""
    section: str = ""
    wide: bool = False


def is_number(value: Any) -> bool:
    """Whether a value can be drawn on an axis of numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def color() -> Spec:
    """The colour of a trial's group."""
    scale = {"domain": list(GROUPS), "range": [f"var(--{group})" for group in GROUPS]}
    return {"field": "group", "type": "nominal", "scale": scale, "legend": None}


def layers(data: str | list[Spec], *parts: Spec) -> Spec:
    """A specification of layers over a data set of the page, or over rows of its own.

    Args:
        data: the name of the data set, or the rows.
        parts: from the bottom to the top.
    """
    source: Spec = {"name": data} if isinstance(data, str) else {"values": data}
    return {"data": source, "params": PARAMS, "layer": list(parts)}


def layer(mark: str, encoding: Spec, rows: list[Spec] | None = None, **style: Any) -> Spec:
    """One layer: a mark, its style and its encoding; over rows of its own if some are given."""
    spec = {"mark": {"type": mark, **style}, "encoding": encoding}
    return spec if rows is None else {"data": {"values": rows}, **spec}


def points(x: Spec, y: Spec, diverged_at: float | None = None) -> Spec:
    """A mark for each trial, of its group's colour and shape; a trial that is picked is larger.

    Args:
        x, y: the axes.
        diverged_at: where diverged trials are drawn that have no value; None for nowhere.
    """
    shapes = {"domain": list(GROUPS), "range": list(_SHAPES.values())}
    transform = []
    if diverged_at is not None:
        at = f"isValid(datum.{y['field']}) || datum.group !== 'diverged'"
        value = f"{at} ? datum.{y['field']} : {diverged_at!r}"
        transform = [{"calculate": value, "as": y["field"]}]
    encoding = {
        "x": x,
        "y": y,
        "color": color(),
        "shape": {"field": "group", "scale": shapes, "legend": None},
        "fill": {"condition": {"test": _IS_BEST, "value": "var(--best)"}, "value": "#fff0"},
        "opacity": OPACITY,
        "size": {
            "condition": [{"test": _PICKED, "value": 320}, {"test": _IS_BEST, "value": 130}],
            "value": 55,
        },
    }
    mark = layer("point", encoding, filled=False, strokeWidth=1.8, cursor="pointer")
    return {"transform": transform, "params": [_BRUSH], **mark}


def lines(x: Spec, y: Spec, flatten: Sequence[str]) -> Spec:
    """A line for each trial, of rows that hold lists; a wide one, unseen, is easy to hit.

    They are not clipped: ``y`` is clamped, or holds all values.
    """
    base = {"x": x, "y": y, "detail": {"field": "trial"}}
    width = [{"test": _PICKED, "value": 3.5}, {"test": _IS_BEST, "value": 2.4}]
    faint = [{"test": _LEFT_OUT, "value": 0.05}, {"test": f"chosen || {_PICKED}", "value": 0.95}]
    faint.append({"test": "datum.group === 'other'", "value": 0.45})
    seen = {
        **base,
        "color": color(),
        "strokeWidth": {"condition": width, "value": 1},
        "opacity": {"condition": faint, "value": 0.95},
    }
    wide = layer("line", base, **UNSEEN, strokeWidth=9, cursor="pointer")
    return {
        "transform": [{"flatten": list(flatten)}],
        "layer": [layer("line", seen), {"params": [_BRUSH], **wide}],
    }


def rules(field: str, values: Iterable[float]) -> Spec:
    """Dotted upright lines, as at the ends of a search space."""
    rows = [{field: value} for value in dict.fromkeys(values)]
    encoding = {"x": {"field": field, "type": "quantitative"}}
    return layer("rule", encoding, rows, strokeDash=[2, 3], color="var(--diverged)")


def shades(rows: list[Spec], encoding: Spec | None = None, **style: Any) -> Spec:
    """Upright bands of the steps from "from" to "to" of each row."""
    ends = {"x": {"field": "from", "type": "quantitative"}, "x2": {"field": "to"}}
    return layer("rect", ends | (encoding or {}), rows, **style)


def quantity(field: str, title: str, scale: str = "linear") -> Spec:
    """An axis of numbers."""
    is_log = scale == "log"
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"type": scale} | ({} if is_log else {"zero": field in ("step", "steps", "rate")}),
        "axis": ({"format": "~g"} if is_log else {}) | {"tickCount": 5},
    }


def scale_of(values: Iterable[Any]) -> str:
    """The scale that spreads numbers: a logarithm where they span more than a decade."""
    numbers = [value for value in values if is_number(value)]
    far = numbers and min(numbers) > 0 and max(numbers) / min(numbers) >= LOGARITHMIC_FROM
    return "log" if far else "linear"


def limit_of(values: Iterable[Any]) -> float:
    """The largest size to draw: ten times the median where some are a thousand times it."""
    sizes = [abs(value) for value in values if is_number(value)]
    most, usual = max(sizes, default=1.0), statistics.median(sizes or [1.0])
    return 10 * usual if 0 < 1000 * usual < most else most


def metric_axis(
    field: str,
    title: str,
    values: Iterable[Any],
    limit: float | None = None,
) -> Spec:
    """An axis for a metric that ends at a limit; what lies beyond is drawn at its end.

    Args:
        field, title: of the axis.
        values: what is drawn.
        limit: the largest size to draw, of either sign; by default :func:`limit_of` the values.
    """
    numbers = [value for value in values if is_number(value)]
    limit = limit_of(numbers) if limit is None else limit
    low, high = max(min(numbers, default=0.0), -limit), min(max(numbers, default=1.0), limit)
    above_zero = [value for value in numbers if value > 0]
    scale: Spec = {"type": "linear", "domain": [low, high]}
    if above_zero and low >= 0 and high / min(above_zero) >= LOGARITHMIC_FROM:
        # A logarithm has no zero, which error rates reach.
        scale = {"type": "sqrt" if low == 0 else "log", "domain": [low, high]}
    elif 0 <= low < high / 2:
        scale["domain"] = [0.0, high]
    if scale["domain"][0] >= scale["domain"][1]:
        scale["domain"] = [low - abs(low or 1.0), high + abs(high or 1.0)]
    scale |= {"clamp": True, "nice": scale["type"] != "log"}
    axis = {"format": "~r" if scale["type"] == "linear" else "~g", "tickCount": 5}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def positions(values: Sequence[Any]) -> tuple[list[float | None], str, str]:
    """Where values lie between the lowest (0) and the highest (1), and what these two are."""
    given = [value for value in values if value is not None]
    if not all(is_number(value) for value in given):
        names = sorted({str(value) for value in given})
        most = max(1, len(names) - 1)
        at = [None if value is None else names.index(str(value)) / most for value in values]
        return at, names[0], names[-1]
    low, high = min(given, default=0.0), max(given, default=0.0)
    if low == high:
        return [None if value is None else 0.5 for value in values], f"{low:.3g}", f"{high:.3g}"
    scaled = math.log if scale_of(given) == "log" else float
    span = scaled(high) - scaled(low)
    at = [None if v is None else (scaled(v) - scaled(low)) / span for v in values]
    return at, f"{low:.3g}", f"{high:.3g}"


def thinned(schedule: Schedule) -> tuple[list[int], list[float]]:
    """Steps of a schedule, its corners among them, and their learning rates."""
    rates = schedule.learning_rates()
    last = len(rates) - 1
    corners = [0, schedule.warmup_steps, schedule.decay_start_step, last]
    corners += [schedule.decay_start_step + schedule.decay_steps, schedule.decay_start_step - 1]
    steps = {
        *np.linspace(0, last, min(MOST_STEPS_DRAWN, len(rates))).astype(int).tolist(),
        *corners,
    }
    drawn = sorted(step for step in steps if 0 <= step <= last)
    return drawn, [float(f"{rates[step]:.5g}") for step in drawn]
