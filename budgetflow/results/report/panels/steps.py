"""The panels about steps: schedules, which steps are shared, and a single trial's course."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from budgetflow.engine.schedules import Schedule
from budgetflow.playbook.common.measurement import TrialRecord
from budgetflow.playbook.common.outcomes import TrialsOutcome
from budgetflow.results.report.page_data import Shown, metrics
from budgetflow.results.report.vega import (
    OPACITY,
    PARAMS,
    Panel,
    Spec,
    color,
    layers,
    metric_axis,
    quantity,
    thinned,
)

# Of the tree, what still can be told apart.
MOST_BRANCHES = 60


def schedules(of: Shown) -> Iterator[Panel]:
    """The schedule of the best trial; where it was carried over, with where extra steps go."""
    found, best = of.study.found, of.best
    if of.is_race or best is None:
        return
    transfer = found.transfer if isinstance(found, TrialsOutcome) else None
    lines: list[tuple[str, Schedule, dict[str, Any]]] = [("best trial", best.schedule, {})]
    if transfer:
        lines = [
            ("carried over", Schedule(**transfer["to"]), transfer),
            ("the earlier round's", Schedule(**transfer["from"]), {}),
        ]
        if "stretched" in transfer:  # not in outcomes of the first version
            stretched = transfer["stretched"]
            lines.append(("stretched in proportion", Schedule(**stretched["to"]), stretched))
    rows, notes = [], []
    for name, schedule, extra in lines:
        steps, rates = thinned(schedule)
        rows += [{"what": name, "step": s, "rate": r} for s, r in zip(steps, rates, strict=True)]
        mean = extra.get("extra_steps_mean_relative_learning_rate")
        if mean is not None:
            notes.append(f"{name}: the extra steps are at {mean:.0%} of the base on average")
    names = [name for name, _, _ in lines]
    colors = ["var(--best)", "var(--warm)", "var(--muted)"][: len(names)]
    mark = {"type": "line", "strokeWidth": 2}
    encoding: Spec = {"x": quantity("step", "step"), "y": quantity("rate", "learning rate")}
    scale = {"domain": names, "range": colors}
    encoding["color"] = {"field": "what", "scale": scale, "legend": {"title": None}}
    dashes = {"domain": names, "range": [[1, 0], [6, 3], [2, 3]][: len(names)]}
    encoding["strokeDash"] = {"field": "what", "scale": dashes, "legend": {"title": None}}
    drawn: list[Spec] = [{"mark": mark, "encoding": encoding}]
    if best.reused_from:
        span = {"from": 0, "to": best.reused_from["step"]}
        shade: Spec = {"data": {"values": [span]}}
        shade["mark"] = {"type": "rect", "opacity": 0.15, "color": "var(--muted)"}
        shade["encoding"] = {"x": {"field": "from", "type": "quantitative"}, "x2": {"field": "to"}}
        drawn.insert(0, shade)
        notes.append(f"shaded: taken over from {best.reused_from['study']}, not trained again")
    note = f"{'; '.join(notes)}." if notes else ""
    spec = {"data": {"values": rows}, "params": PARAMS, "layer": drawn}
    yield Panel("Learning rate", note, spec, "", "Where do the steps go?", True)


def tree(of: Shown) -> Iterator[Panel]:
    """Which trials go on from which, and at what step."""
    by_number = {r.trial: r for r in of.records}
    name = of.study.name
    children: dict[int | None, list[int]] = {}
    for r in sorted(of.records, key=lambda r: r.trial):
        inside = _continues_here(r, name, by_number)
        source = r.reused_from["trial"] if r.reused_from and inside else None
        children.setdefault(source, []).append(r.trial)
    shared = {n for parent, each in children.items() if parent is not None for n in (parent, *each)}
    shared |= {r.trial for r in of.records if r.reused_from}
    if not shared:
        return
    order: list[int] = []
    ahead = [root for root in reversed(children[None]) if root in shared]
    while ahead:
        order.append(ahead.pop())
        ahead += reversed(children.get(order[-1], ()))
    kept = order[:MOST_BRANCHES]
    names = {n: _branch_name(by_number[n], name, by_number) for n in kept}
    rows = []
    for trial in kept:
        r = by_number[trial]
        row = {"trial": trial, "group": of.groups[trial], "name": names[trial], "end": r.step}
        row |= {"from": 0, "start": r.steps_reused, "parent": names[trial]}
        if _continues_here(r, name, by_number):
            assert r.reused_from is not None
            row["parent"] = names[r.reused_from["trial"]]
        rows.append(row)
    y: Spec = {"field": "name", "type": "nominal", "title": "trial", "axis": {"labelLimit": 190}}
    y["scale"] = {"domain": list(names.values())}
    x = quantity("start", "step") | {"scale": {"zero": True}}
    encoding = {"x": x, "x2": {"field": "end"}, "y": y, "color": color(), "opacity": OPACITY}
    bar = {"type": "bar", "height": 7, "cornerRadius": 2, "cursor": "pointer"}
    joint = {"type": "rule", "color": "var(--muted)", "strokeWidth": 1.5}
    taken = joint | {"strokeDash": [2, 3]}
    spec = layers(
        rows,
        {"mark": taken, "encoding": {"x": x | {"field": "from"}, "x2": {"field": "start"}, "y": y}},
        {
            "mark": joint,
            "encoding": {"x": x, "y": y | {"field": "parent"}, "y2": {"field": "name"}},
        },
        {"mark": bar, "encoding": encoding},
    )
    note = (
        "A bar is what was trained; dotted is what was taken over from the trial it branches off."
    )
    if len(order) > MOST_BRANCHES:
        note += f" The first {MOST_BRANCHES} of {len(order)} trials that share steps."
    spec["height"] = 20 * len(rows)
    yield Panel("Tree of shared steps", note, spec, "", "Which steps are shared?", True)


def _continues_here(r: TrialRecord, study: str, trials: Collection[int]) -> bool:
    """Whether a trial continues one of its own study."""
    source = r.reused_from or {}
    return source.get("study") == study and source.get("trial") in trials


def _branch_name(r: TrialRecord, study: str, trials: Collection[int]) -> str:
    if r.reused_from is None or _continues_here(r, study, trials):
        return str(r.trial)
    return f"{r.reused_from['study']}/{r.reused_from['trial']} → {r.trial}"


def of_one_trial(of: Shown) -> list[Spec]:
    """What is drawn of the trial that is picked, by its entry of the curves."""
    key = of.study.selection.key
    pair = [k for k in (key.replace("validation_", "train_"), key) if k in metrics(of)]
    fields = [f"m{metrics(of).index(k)}" for k in pair]
    x = quantity("step", "step")
    drawn: list[Spec] = []
    values = [row.get(k) for k in pair for r in of.records for row in r.rows]
    for title, names, labels, y in (
        (key.removeprefix("validation_"), fields, pair, metric_axis("value", "", values)),
        ("learning rate", ["rate"], ["learning rate"], quantity("value", "learning rate")),
    ):
        colors = ["var(--warm)", "var(--best)"] if len(names) > 1 else ["var(--best)"]
        scale = {"domain": [label.replace("_", " ") for label in labels], "range": colors}
        parts = []
        for name, label in zip(names, scale["domain"], strict=True):
            color: Spec = {"datum": label, "scale": scale}
            color["legend"] = {"title": None, "orient": "top"} if len(names) > 1 else None
            y_of = y | {"field": name, "title": title.replace("_", " ")}
            parts.append(
                {"mark": {"type": "line", "point": {"size": 12}}}
                | {"encoding": {"x": x, "y": y_of, "color": color}}
            )
        flatten = [{"flatten": ["step", *names]}]
        spec = {"data": {"name": "curves"}, "params": PARAMS, "transform": flatten}
        drawn.append({**spec, "height": 140, "layer": parts})
    return [spec for spec in drawn if spec["layer"]]
