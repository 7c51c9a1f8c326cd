"""The panel of a comparison."""

from __future__ import annotations

from collections.abc import Iterator

from budgetflow.playbook.comparison.outcome import ComparisonOutcome
from budgetflow.results.report.page_data import PageData, number
from budgetflow.results.report.vega import Panel, Spec, layer, layers, points, quantity


def sides(data: PageData) -> Iterator[Panel]:
    """The steps of each seed without and with a change."""
    outcome = data.study.found
    if not isinstance(outcome, ComparisonOutcome):
        return
    rows = [
        {
            "trial": one.trial,
            "group": "competes",
            "seed": one.seed,
            "side": name,
            "steps": number(one.steps),
        }
        for name, side in (("without", outcome.unchanged), ("with the change", outcome.changed))
        for one in side.seeds
        if one.steps is not None
    ]
    x: Spec = {"field": "side", "type": "nominal", "sort": None, "axis": {"labelAngle": 0}}
    x |= {"title": None}
    y = quantity("steps", "steps")
    line = layer("line", {"x": x, "y": y, "detail": {"field": "seed"}}, color="var(--muted)")
    changes = ", ".join(f"{c.field}: {c.before} → {c.after}" for c in outcome.changes)
    note = f"A line joins the two sides of a seed. {changes}."
    section = "How many steps does each side take?"
    yield Panel("Steps of each seed", note, layers(rows, points(x, y), line), "", section)
