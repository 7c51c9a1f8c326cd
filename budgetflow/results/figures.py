"""Charts of a study for notebooks and papers, drawn from the panels of the report."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import struct
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from budgetflow.base.errors import UserError
from budgetflow.results.reading import StudyResult
from budgetflow.results.report.page_data import PageData, curve_rows, page_data, trial_rows
from budgetflow.results.report.panels import comparison, forecasts, rounds, sweep, trials
from budgetflow.results.report.vega import PARAMS, THEME, UNSEEN, Panel, Spec, color

# In CSS pixels: a panel that takes a row of its own, and one of two in a row.
WIDE, NARROW, HEIGHT = 780, 360, 220
SCALE = 2.0  # pixels of a PNG for each of these
_CHARACTERS_A_LINE = {WIDE: 130, NARROW: 60}
# What a chart is saved as, with the options of the converter.
_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"scale": SCALE},
    ".svg": {},
    ".pdf": {},
    ".html": {"bundle": True},
}


class Chart:
    """A chart that shows itself in a notebook, and is saved as a picture or a page.

    Attributes:
        spec: the chart in Vega-Lite, with all its data.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def save(self, path: epath.PathLike) -> None:
        """Writes the chart as a file: ``.png``, ``.svg``, ``.pdf``, or ``.html`` for a browser.

        Raises:
            UserError: the path has another ending.
        """
        content = self._converted(epath.Path(path).suffix.lower(), os.fspath(path))
        epath.Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())

    def _converted(self, ending: str, path: str = "") -> bytes | str:
        import vl_convert  # takes a while, and not every reader draws

        if ending not in _OPTIONS:
            raise UserError(f"{path}: a chart is saved as .png, .svg, .pdf or .html")
        convert = getattr(vl_convert, f"vegalite_to_{ending[1:]}")
        return convert(self.spec, **_OPTIONS[ending])

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """For notebooks: a picture, which every viewer shows, and its size in CSS pixels."""
        png = self._converted(".png")
        assert isinstance(png, bytes)
        width, height = struct.unpack(">II", png[16:24])
        return png, {"width": round(width / SCALE), "height": round(height / SCALE)}


def steps_to_fit(study: StudyResult) -> Chart:
    """Of a sweep: learning rate against the step of the first fit, and the last training loss."""
    return _chart(study, sweep.steps_to_fit)


def steps_of_both_sides(study: StudyResult) -> Chart:
    """Of a comparison: the steps of each seed's fastest trial, without and with the change."""
    return _chart(study, comparison.sides)


def best_steps(study: StudyResult) -> Chart:
    """The best step of every trial, with the first 10 % and the last 25 % of training shaded."""
    return _chart(study, rounds.best_steps)


def lengths(study: StudyResult) -> Chart:
    """The selection metric of every trial against its length."""
    return _chart(study, rounds.lengths)


def hyperparameters(study: StudyResult) -> Chart:
    """The selection metric of every trial against each hyperparameter that varies."""
    return _chart(study, rounds.axis_plots)


def forecast(study: StudyResult) -> Chart:
    """The validation loss that longer runs are to end with, and earlier forecasts of this study."""
    return _chart(study, forecasts.forecasts)


def schedules(study: StudyResult) -> Chart:
    """The best trial's learning rates; over the earlier round's where they were carried over."""
    return _chart(study, trials.schedules)


def curves(study: StudyResult) -> Chart:
    """Training and validation curves of all trials, the best one highlighted."""
    return _chart(study, trials.curves)


def _chart(study: StudyResult, make: Callable[[PageData], Iterator[Panel]]) -> Chart:
    """The panels of one kind as one chart, two in a row."""
    data = page_data(study)
    views = [_view(panel) for panel in make(data)]
    if not views:
        text = f"There is nothing to draw of {study.name} (so far)."
        views = [{"data": {"values": [{}]}, "mark": {"type": "text", "text": text}}]
    names = {view["data"].get("name") for view in views}
    rows = {"trials": trial_rows, "curves": curve_rows}
    drawn = {
        "concat": views,
        "columns": 1 if any(view.get("width") == WIDE for view in views) else 2,
        "config": {**THEME, "background": "white"},
    }
    return Chart(
        {
            "datasets": {name: rows[name](data) for name in rows if name in names},
            "params": PARAMS,
            **_self_contained(drawn, data.group_names, _colors()),
        }
    )


def _view(panel: Panel) -> Spec:
    width = WIDE if panel.wide else NARROW
    title = {
        "text": panel.title + (f" ({panel.flag})" if panel.flag else ""),
        "subtitle": textwrap.wrap(panel.note, _CHARACTERS_A_LINE[width]),
        "subtitleColor": "var(--muted)",
        "anchor": "start",
    }
    return {"height": HEIGHT, "width": width, "title": title, **panel.spec}


def _self_contained(part: Any, groups: dict[str, str], colors: dict[str, str]) -> Any:
    """A specification with what the page would add: its colours, and a legend of the groups.

    Brushes are left out: they select in other panels of a page.
    """
    if isinstance(part, str):
        return re.sub(r"var\(--(\w+)\)", lambda m: colors.get(m[1], m[0]), part)
    if isinstance(part, list):
        return [_self_contained(each, groups, colors) for each in part if not _is_unseen(each)]
    if not isinstance(part, dict):
        return part
    if part.keys() >= color().keys() and part["field"] == "group":
        names = f"{json.dumps(groups)}[datum.value]"
        legend = {"title": None, "orient": "bottom", "values": [*groups], "labelLimit": 400}
        part = {**part, "legend": {**legend, "labelExpr": names}}
    # The opacity of a whole mark is slow to draw into a PNG: 5 s for sixteen trials.
    if isinstance(part.get("opacity"), dict):
        part = {**part, "strokeOpacity": part["opacity"]}
        del part["opacity"]
    return {k: _self_contained(v, groups, colors) for k, v in part.items() if k != "params"}


def _is_unseen(part: Any) -> bool:
    mark = part.get("mark") if isinstance(part, dict) else None
    return isinstance(mark, dict) and mark.items() >= UNSEEN.items()


def _colors() -> dict[str, str]:
    """The colours of the report on a light page, by name."""
    style = importlib.resources.files("budgetflow.results.report").joinpath("report.css")
    return dict(re.findall(r"--(\w+): (#\w+);", style.read_text().partition("@media")[0]))
