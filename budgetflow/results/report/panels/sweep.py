"""The panels of a sweep."""

from __future__ import annotations

from collections.abc import Iterator

from budgetflow.playbook.common.measurement import LEARNING_RATE, SEED
from budgetflow.playbook.common.outcomes import SweepOutcome
from budgetflow.results.report.page_data import PageData, number
from budgetflow.results.report.vega import Panel, layers, metric_axis, points, quantity, rules


def steps_to_fit(data: PageData) -> Iterator[Panel]:
    """When each learning rate fitted, and how far each came."""
    # Races that differ in more than these, as those of a comparison, are no single curve.
    differing = {n for r in data.records for n in r.hyperparameters} - {LEARNING_RATE, SEED}
    if not data.is_race or differing or not any(r.rows for r in data.records):
        return
    section, outcome = "How fast does each learning rate fit?", data.study.found
    note, flag = "Dotted: the boundary of the learning rates tried. ", ""
    if isinstance(outcome, SweepOutcome) and outcome.status == "at_boundary":
        flag = "the best learning rate lies at the boundary"
    if isinstance(outcome, SweepOutcome) and outcome.status == "found":
        steps, rate = outcome.max_train_steps, outcome.best_learning_rate
        note += f"The answer: {steps} steps at {rate:g}."
    rates = [r.base_learning_rate for r in data.records]
    ends = rules("rate", (min(rates), max(rates)))
    last = {r.trial: r.rows[-1].get("train_loss") for r in data.records if r.rows}
    rows = [
        {
            "trial": r.trial,
            "group": data.groups[r.trial],
            "rate": number(r.base_learning_rate),
            "step": r.fitted_at_step or r.step,
            "loss": number(last.get(r.trial)),
        }
        for r in data.records
    ]
    x, step = quantity("rate", "learning rate, constant", "log"), quantity("step", "step")
    yield Panel("Step of the first fit", note, layers(rows, points(x, step), ends), flag, section)
    loss = metric_axis("loss", "last training loss", [row["loss"] for row in rows])
    note = "Of each trial's last evaluation."
    yield Panel("Last training loss", note, layers(rows, points(x, loss), ends), "", section)
