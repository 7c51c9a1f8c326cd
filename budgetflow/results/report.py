"""The report of a study: one HTML file with everything in it, no script and no network."""

from __future__ import annotations

import functools
import importlib.resources
import io
import json

import jinja2
import markupsafe
import matplotlib
import pandas as pd
from etils import epath
from matplotlib.figure import Figure

from budgetflow.files import write_text
from budgetflow.results.figures import PANELS
from budgetflow.results.reading import StudyResult
from budgetflow.results.views import view_of
from budgetflow.results.wording import format_cell, under_way


def write_report(study: StudyResult) -> epath.Path:
    """Writes ``report.html`` into the study's folder and returns its path."""
    path = study.folder / "report.html"
    write_text(path, render_report(study))
    return path


def render_report(study: StudyResult) -> str:
    """The report of a study as HTML; of one under way, what there is so far."""
    outcome = study.found
    view = view_of(outcome) if outcome else None
    table = study.to_pandas()
    table = table.reset_index() if len(table) else pd.DataFrame({"trial": []})
    # A column that says the same in every row says nothing.
    may_say_nothing = ("role", "seed", "steps_reused", "fitted_at_step")
    same = [c for c in may_say_nothing if c in table and table[c].nunique() <= 1]
    told = [column for column in same if column == "role" or not table[column].any()]
    table = table.drop(columns=told)
    if "max_train_steps" in table and table["max_train_steps"].nunique() == 1:
        table = table.drop(columns="max_train_steps")
    return _template().render(
        name=study.name,
        headline=view.headline(outcome) if view else under_way(study),
        outcome=outcome,
        facts=view.facts(outcome) if view else {},
        tables=view.tables(outcome) if view else [],
        figures=[
            (panel.title, markupsafe.Markup(_svg(panel.draw(study))))
            for panel in PANELS
            if panel.shows(outcome)
        ],
        columns=[column.rpartition(".")[2].replace("_", " ") for column in table.columns],
        rows=[[format_cell(value) for value in row] for row in table.itertuples(index=False)],
        config=json.dumps(study.config, indent=2),
    )


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # No date and fixed ids: the same study gives the same report.
    with matplotlib.rc_context(
        {"svg.hashsalt": "budgetflow", "svg.fonttype": "none", "font.family": "sans-serif"}
    ):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


@functools.cache
def _template() -> jinja2.Template:
    source = importlib.resources.files("budgetflow.results").joinpath("report.html.j2").read_text()
    return jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(source)
