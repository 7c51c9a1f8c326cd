"""The panels about longer runs: what they would give, and how earlier forecasts turned out."""

from __future__ import annotations

from collections.abc import Iterator

from budgetflow.playbook.common.outcomes import TrialsOutcome
from budgetflow.playbook.forecasts.study_forecast import LOSS
from budgetflow.playbook.forecasts.words import forecast_sentences
from budgetflow.results.report.page_data import Shown, number, stride
from budgetflow.results.report.vega import Panel, Spec, is_number, layers, metric_axis, quantity

SECTION = "What would longer runs give?"
_BEFORE = "forecast before this study ran"


def forecasts(of: Shown) -> Iterator[Panel]:
    """The loss of the best setting, what runs of other lengths are to end with, and what came."""
    found = of.study.found
    if not isinstance(found, TrialsOutcome) or found.forecast is None:
        return
    said, length = found.forecast, of.study.config["max_train_steps"]
    measured = {r.trial: r for r in of.records}
    shown = dict.fromkeys((said.trial, *(r.scored_trial for r in found.receipts or ())))
    rows = [
        {"trial": trial, "step": row["step"], "loss": number(row[LOSS]), "what": "measured"}
        for trial in shown
        if trial in measured
        for n, row in enumerate(measured[trial].rows)
        if is_number(row.get(LOSS)) and (n % stride(of) == 0 or row is measured[trial].rows[-1])
    ]
    band = [
        {"step": end.length_steps, "loss": number(end.loss.value), "what": "forecast"}
        | {"low": number(end.loss.low), "high": number(end.loss.high)}
        for end in said.ends
    ]
    receipts = [
        {"step": r.length_steps, "loss": number(r.loss.value), "what": _BEFORE}
        | {"low": number(r.loss.low), "high": number(r.loss.high)}
        for r in found.receipts or ()
    ]
    if not band and not receipts:
        return
    # From where on the losses are near what is forecast: the first ones would press it flat.
    near = [row["loss"] for row in rows[len(rows) // 10 :]]
    values = [*near, *(row[end] for row in (*band, *receipts) for end in ("low", "high"))]
    y = metric_axis("loss", LOSS.replace("_", " "), values, max(filter(is_number, values)))
    # Not pressed against its end: a curve that begins beyond it comes in from there.
    y["scale"] |= {"domain": [min(filter(is_number, values)), y["scale"]["domain"][1]]}
    y["scale"] |= {"clamp": False}
    x = quantity("step", "step; of a forecast, the length of the run")
    drawn = {"measured": "var(--best)", "forecast": "var(--warm)", _BEFORE: "var(--muted)"}
    if not receipts:
        del drawn[_BEFORE]
    what: Spec = {"field": "what", "legend": {"title": None, "symbolOpacity": 1}}
    what["scale"] = {"domain": list(drawn), "range": list(drawn.values())}
    base: Spec = {"x": x, "y": y, "color": what}
    ends: Spec = {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": what}
    line: Spec = {"type": "line", "clip": True}
    shade: Spec = {"mark": {"type": "area", "opacity": 0.18, "clip": True}, "encoding": ends}
    middle: Spec = {"mark": line | {"strokeDash": [5, 3]}, "encoding": base}
    bar: Spec = {"mark": {"type": "rule", "strokeWidth": 2, "clip": True}, "encoding": ends}
    dot: Spec = {"mark": {"type": "point", "filled": True, "size": 60}, "encoding": base}
    parts: list[Spec] = [{"mark": line, "encoding": base | {"detail": {"field": "trial"}}}]
    if band:
        parts = [{"data": {"values": band}, **shade}, *parts, {"data": {"values": band}, **middle}]
    if receipts:
        parts += [{"data": {"values": receipts}, **mark} for mark in (bar, dot)]
    spec = layers(rows, *parts)
    metric = of.study.config["evaluation"]["selection_metric"]
    first = next(forecast_sentences(said, length, metric), "")
    note = first
    if band:
        note += f" Shaded: where {said.level:.0%} of runs are to end, schedule carried over."
    missed = any(not receipt.inside for receipt in found.receipts or ())
    flag = "the forecast for this study missed" if missed else ""
    yield Panel("Validation loss by the length of the run", note, spec, flag, SECTION, True)
