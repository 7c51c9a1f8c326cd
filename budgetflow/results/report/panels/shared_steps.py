"""The panel of the steps that trials share."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from budgetflow.playbook.common.measurement import TrialRecord
from budgetflow.results.report.page_data import PageData
from budgetflow.results.report.vega import OPACITY, Panel, Spec, color, layer, layers, quantity

# What still can be told apart.
MOST_BRANCHES = 60


def tree(data: PageData) -> Iterator[Panel]:
    """Which trials go on from which, and at what step."""
    records, study = {r.trial: r for r in data.records}, data.study.name
    order = _tree_order(data)
    if not order:
        return
    drawn = order[:MOST_BRANCHES]
    names = {n: _branch_name(records[n], study, records) for n in drawn}
    rows = []
    for n in drawn:
        r, parent = records[n], _parent(records[n], study, records)
        row = {"trial": n, "group": data.groups[n], "name": names[n], "end": r.step, "from": 0}
        row |= {"start": r.steps_reused, "parent": names[n if parent is None else parent]}
        rows.append(row)
    y: Spec = {"field": "name", "type": "nominal", "title": "trial", "axis": {"labelLimit": 190}}
    y["scale"] = {"domain": list(names.values())}
    x = quantity("start", "step") | {"scale": {"zero": True}}
    taken = {"x": x | {"field": "from"}, "x2": {"field": "start"}, "y": y}
    joint = {"x": x, "y": y | {"field": "parent"}, "y2": {"field": "name"}}
    bar = {"x": x, "x2": {"field": "end"}, "y": y, "color": color(), "opacity": OPACITY}
    rule: Spec = {"color": "var(--muted)", "strokeWidth": 1.5}
    spec = layers(
        rows,
        layer("rule", taken, **rule, strokeDash=[2, 3]),
        layer("rule", joint, **rule),
        layer("bar", bar, height=7, cornerRadius=2, cursor="pointer"),
    )
    note = (
        "A bar is what was trained; dotted is what was taken over from the trial it branches off."
    )
    if len(order) > MOST_BRANCHES:
        note += f" The first {MOST_BRANCHES} of {len(order)} trials that share steps."
    spec["height"] = 20 * len(rows)
    yield Panel("Tree of shared steps", note, spec, "", "Which steps are shared?", True)


def _tree_order(data: PageData) -> list[int]:
    """The trials that share steps with another, each after the one that it branches off."""
    records, study = {r.trial: r for r in data.records}, data.study.name
    children: dict[int | None, list[int]] = {}
    for n, r in sorted(records.items()):
        children.setdefault(_parent(r, study, records), []).append(n)
    shared = {n for parent, each in children.items() if parent is not None for n in (parent, *each)}
    shared |= {n for n, r in records.items() if r.reused_from}
    order: list[int] = []
    ahead = [root for root in reversed(children.get(None, ())) if root in shared]
    while ahead:
        order.append(ahead.pop())
        ahead += reversed(children.get(order[-1], ()))
    return order


def _parent(r: TrialRecord, study: str, trials: Collection[int]) -> int | None:
    """The trial of its own study that a trial continues, if it does."""
    source = r.reused_from or {}
    is_inside = source.get("study") == study and source.get("trial") in trials
    return source["trial"] if is_inside else None


def _branch_name(r: TrialRecord, study: str, trials: Collection[int]) -> str:
    if r.reused_from is None or _parent(r, study, trials) is not None:
        return str(r.trial)
    return f"{r.reused_from['study']}/{r.reused_from['trial']} → {r.trial}"
