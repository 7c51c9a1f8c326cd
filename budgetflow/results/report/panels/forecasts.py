"""The panel of forecasts: what longer runs would give, and how earlier forecasts turned out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from budgetflow.playbook.common.outcomes import TrialsOutcome
from budgetflow.playbook.forecasts.study_forecast import LOSS
from budgetflow.playbook.forecasts.words import forecast_sentences
from budgetflow.results.report.page_data import PageData, number
from budgetflow.results.report.vega import (
    Panel,
    Spec,
    is_number,
    layer,
    layers,
    metric_axis,
    quantity,
)

SECTION = "What would longer runs give?"
_BEFORE = "forecast before this study ran"


def forecasts(data: PageData) -> Iterator[Panel]:
    """The loss of the best setting, what runs of other lengths are to end with, and what came."""
    outcome = data.study.found
    if not isinstance(outcome, TrialsOutcome) or outcome.forecast is None:
        return
    forecast, receipts = outcome.forecast, outcome.receipts or ()
    band = [_interval(end, "forecast") for end in forecast.ends]
    receipt_rows = [_interval(receipt, _BEFORE) for receipt in receipts]
    if not band and not receipt_rows:
        return
    rows = _measured(data, [forecast.trial, *(receipt.scored_trial for receipt in receipts)])
    config = data.study.config
    length, metric = config["max_train_steps"], config["evaluation"]["selection_metric"]
    note = next(forecast_sentences(forecast, length, metric), "")
    if band:
        note += f" Shaded: where {forecast.level:.0%} of runs are to end, schedule carried over."
    missed = any(not receipt.inside for receipt in receipts)
    flag = "the forecast for this study missed" if missed else ""
    spec = _spec(rows, band, receipt_rows)
    yield Panel("Validation loss by the length of the run", note, spec, flag, SECTION, True)


def _interval(run: Any, what: str) -> dict[str, Any]:
    """The row of a run's forecast loss."""
    loss = {name: number(getattr(run.loss, name)) for name in ("low", "high")}
    return {"step": run.length_steps, "loss": number(run.loss.value), "what": what, **loss}


def _measured(data: PageData, numbers: list[int]) -> list[dict[str, Any]]:
    """The rows of the losses that some trials were measured with."""
    records, stride = {r.trial: r for r in data.records}, data.stride
    return [
        {"trial": trial, "step": row["step"], "loss": number(row[LOSS]), "what": "measured"}
        for trial in dict.fromkeys(numbers)
        if trial in records
        for n, row in enumerate(records[trial].rows)
        if is_number(row.get(LOSS)) and (n % stride == 0 or row is records[trial].rows[-1])
    ]


def _spec(rows: list[Spec], band: list[Spec], receipt_rows: list[Spec]) -> Spec:
    # From where on the losses are near what is forecast: the first ones would press it flat.
    near = [row["loss"] for row in rows[len(rows) // 10 :]]
    values = [*near, *(row[end] for row in (*band, *receipt_rows) for end in ("low", "high"))]
    numbers = [value for value in values if is_number(value)]
    y = metric_axis("loss", LOSS.replace("_", " "), values, max(numbers))
    # Not pressed against its end: a curve that begins beyond it comes in from there.
    y["scale"] |= {"domain": [min(numbers), y["scale"]["domain"][1]], "clamp": False}
    x = quantity("step", "step; of a forecast, the length of the run")
    colors = {"measured": "var(--best)", "forecast": "var(--warm)"}
    if receipt_rows:
        colors[_BEFORE] = "var(--muted)"
    what: Spec = {"field": "what", "legend": {"title": None, "symbolOpacity": 1}}
    what["scale"] = {"domain": list(colors), "range": list(colors.values())}
    base: Spec = {"x": x, "y": y, "color": what}
    ends: Spec = {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": what}
    parts = [layer("line", base | {"detail": {"field": "trial"}}, clip=True)]
    if band:
        shade = layer("area", ends, band, opacity=0.18, clip=True)
        parts = [shade, *parts, layer("line", base, band, clip=True, strokeDash=[5, 3])]
    if receipt_rows:
        parts.append(layer("rule", ends, receipt_rows, strokeWidth=2, clip=True))
        parts.append(layer("point", base, receipt_rows, filled=True, size=60))
    return layers(rows, *parts)
