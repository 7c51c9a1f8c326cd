"""The report of a study: one HTML file with everything in it, no script and no network."""

from __future__ import annotations

import functools
import importlib.resources
import io
import json
import math
from typing import Any

import jinja2
from etils import epath
from matplotlib.figure import Figure

from budgetflow.files import write_text
from budgetflow.results import figures
from budgetflow.results.reading import StudyResult


def write_report(study: StudyResult) -> epath.Path:
    """Writes ``report.html`` into the study's folder and returns its path."""
    path = study.folder / "report.html"
    write_text(path, render_report(study))
    return path


def render_report(study: StudyResult) -> str:
    """The report of a complete study as HTML."""
    assert study.outcome is not None
    outcome = study.outcome
    is_sweep = outcome["kind"] == "lr_sweep"
    drawn: list[tuple[str, Figure]] = []
    if is_sweep:
        drawn.append(("How fast does each learning rate fit?", figures.steps_to_fit(study)))
    else:
        drawn.append(("Was the length right?", figures.best_steps(study)))
    best = outcome.get("best_learning_rate") if is_sweep else outcome.get("best_trial")
    if best is not None:
        if not is_sweep:
            drawn.append(("Where do the steps go?", figures.schedules(study)))
        drawn.append(("Training and validation", figures.curves(study)))
    table = study.to_pandas().reset_index()
    return _template().render(
        name=study.name,
        headline=headline(outcome),
        outcome=outcome,
        figures=[(title, jinja2.utils.markupsafe.Markup(_svg(figure))) for title, figure in drawn],
        columns=[column.removeprefix("schedule.") for column in table.columns],
        rows=[[format_cell(value) for value in row] for row in table.itertuples(index=False)],
        config=json.dumps(study.config, indent=2),
    )


def headline(outcome: dict[str, Any]) -> str:
    """The outcome of a study in one sentence."""
    if outcome["kind"] == "round":
        if outcome["best_trial"] is None:
            return "Every trial diverged."
        values = [f"validation {_words(k)} {v:.4g}" for k, v in outcome["best_validation"].items()]
        values += [f"test {_words(k)} {v:.4g}" for k, v in outcome.get("best_test", {}).items()]
        return (
            f"Best of {outcome['trials']} trials of {outcome['max_train_steps']} steps: trial "
            f"{outcome['best_trial']} at step {outcome['best_step']}: {', '.join(values)}."
        )
    if outcome["status"] == "found":
        return (
            f"max_train_steps = {outcome['max_train_steps']}: the training set is fitted perfectly "
            f"by then, at a constant learning rate of {outcome['best_learning_rate']:g}."
        )
    if outcome["status"] == "at_boundary":
        return "No answer: the best learning rate lies at the boundary of the search space."
    return "No answer: no learning rate fitted the training set within the steps allowed."


def _words(name: str) -> str:
    return name.replace("_", " ")


def format_cell(value: Any) -> str:
    """A table's cell: four significant digits, a dash where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>":
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # No date and fixed ids: the same study gives the same report.
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "budgetflow", "svg.fonttype": "none",
                                "font.family": "sans-serif"}):  # fmt: skip
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


@functools.cache
def _template() -> jinja2.Template:
    source = importlib.resources.files("budgetflow.results").joinpath("report.html.j2").read_text()
    return jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(source)
