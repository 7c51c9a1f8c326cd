"""The report: one HTML file with everything in it, and no network.

Its panels are drawn by Vega-Lite, which of the libraries for interactive plots is the smallest that
has all of them (with Vega-Embed 0.90 MB; Bokeh with its tables 1.95 MB; Plotly 4.8 MB, and its
small bundles lack parallel coordinates), draws them as SVG, which a style sheet can make dark and a
printer print, and whose specifications are plain JSON that a notebook shows as well.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.resources
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe
import pandas as pd
from etils import epath

from budgetflow.base.disk_cache import cached_text
from budgetflow.base.errors import UserError
from budgetflow.base.files import write_text
from budgetflow.playbook.common.outcomes import TrialsOutcome
from budgetflow.playbook.common.words import words
from budgetflow.playbook.forecasts.scored import receipts_from
from budgetflow.playbook.forecasts.words import RECEIPT_COLUMNS, coverage, receipt_rows
from budgetflow.results.kind_views import ShownTable, best_first, headline, view_of
from budgetflow.results.provenance import builds_on, facts, next_step, order_of
from budgetflow.results.reading import StudyResult, open_study
from budgetflow.results.report.page_data import PageData, curve_rows, page_data, trial_rows
from budgetflow.results.report.panels import panels
from budgetflow.results.report.panels.trials import of_one_trial
from budgetflow.results.report.vega import THEME, Panel
from budgetflow.results.study_difference import compare_studies
from budgetflow.results.words import format_cell, timing_line, under_way
from budgetflow.studies.store.forecast_ledger import read_ledger

# So many reasons are read before the evidence; the others unfold.
FIRST_REASONS = 3
# Prints the script that draws the panels.
_BUNDLE = """
import sys, vl_convert
script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
sys.stdout.buffer.write(script.encode())
"""
_being_made = threading.Lock()


def write_report(study: StudyResult) -> epath.Path:
    """Writes ``report.html`` into the study's folder and returns its path."""
    others = {}
    for folder in study.folder.parent.iterdir():
        # What is wrong with another study is no reason to have no report of this one.
        with contextlib.suppress(UserError):
            others[folder.name] = open_study(folder)
    path = study.folder / "report.html"
    write_text(path, render_report(study, others))
    return path


def render_report(study: StudyResult, others: Mapping[str, StudyResult] | None = None) -> str:
    """The report of a study as HTML; of one under way, what there is so far.

    Args:
        study: which one.
        others: the studies of its workdir, which it links to where one builds on another.
    """
    return _render(study.name, [study], others or {})


def render_side_by_side(studies: Sequence[StudyResult]) -> str:
    """The reports of several studies in one page, with what differs between them."""
    difference = compare_studies(*studies)
    tables = [
        ShownTable(
            title,
            ["", *frame.columns],
            [[str(name), *map(_cell, row)] for name, *row in frame.itertuples()],
        )
        for title, frame in (
            ("What differs in the configs", difference.config),
            ("What each found", difference.results),
        )
    ]
    title = " and ".join(study.name for study in studies)
    others = {study.name: study for study in studies}
    return _render(title, studies, others, differences=tables)


def _cell(value: Any) -> str:
    """A value of a config or an outcome; of a search space, its dimensions."""
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return "; ".join(map(_dimension, value))
    return "-" if value == [] else format_cell(value)


def _dimension(fields: dict[str, Any]) -> str:
    """A dimension of a search space, or another entry of a config, in words."""
    name, distribution = fields.get("name"), fields.get("distribution")
    if name is None or distribution is None:
        return ", ".join(f"{key} {value}" for key, value in fields.items() if value is not None)
    if distribution == "choices":
        return f"{name}: {', '.join(map(format_cell, fields['values']))}"
    return f"{name}: {words(distribution)}, {fields['low']:g} to {fields['high']:g}"


def render_index(studies: Mapping[str, StudyResult], title: str) -> str:
    """The studies of a workdir as a graph of what builds on what, with links to their reports."""
    chain = [{**_heading(study), "depth": depth} for study, depth in order_of(studies)]
    return _render(title, [], studies, chain=chain)


def _heading(study: StudyResult) -> dict[str, Any]:
    """What a study is, and what it found in one sentence, or how far it is."""
    outcome = study.found
    return {
        "name": study.name,
        "kind": study.config["kind"].replace("_", " "),
        "decision": headline(outcome) if outcome else under_way(study),
        "warn": outcome is not None and not outcome.has_answer,
    }


def _render(
    title: str,
    studies: Sequence[StudyResult],
    others: Mapping[str, StudyResult],
    **more: Any,
) -> str:
    drawn = [(data, panels(data)) for data in map(page_data, studies)]
    island = {
        "config": THEME,
        "studies": [
            {
                "name": data.study.name,
                "groups": data.group_names,
                "trials": trial_rows(data),
                "curves": curve_rows(data),
                "panels": [panel.spec for panel in of_study],
                "of_one_trial": of_one_trial(data),
            }
            for data, of_study in drawn
        ],
    }
    # "<" in a name must not end the script.
    text = json.dumps(island, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return _template().render(
        {"chain": (), "differences": (), **more},
        title=title,
        studies=[_content(data, of_study, others) for data, of_study in drawn],
        island=markupsafe.Markup(text),
        library=markupsafe.Markup(library() if studies else ""),
        style=markupsafe.Markup(_resource("report.css")),
        script=markupsafe.Markup(_resource("report.js")),
    )


def _content(
    data: PageData, drawn: Sequence[Panel], others: Mapping[str, StudyResult]
) -> dict[str, Any]:
    """What the template shows of a study beside its panels."""
    study, outcome = data.study, data.study.found
    view = view_of(outcome) if outcome else None
    later = [each.name for each in others.values() if builds_on(each, [study.name])]
    # What is to be heeded comes first.
    reasons = sorted(outcome.reasons if outcome else (), key=lambda reason: not reason.loud)
    sections: dict[str, list[tuple[int, Panel]]] = {}
    for number, panel in enumerate(drawn):
        sections.setdefault(panel.section, []).append((number, panel))
    if (every := data.stride) > 1 and "Training and validation" in sections:
        number, first = sections["Training and validation"][0]
        note = f"{first.note} Of each {every} evaluations, one is drawn.".strip()
        sections["Training and validation"][0] = number, first._replace(note=note)
    shown_facts = {**facts(study), **(view.facts(outcome) if view else {})}
    if outcome and outcome.fingerprint:
        shown_facts["fingerprint"] = outcome.fingerprint
    if study.timing:
        shown_facts["timing"] = timing_line(study.timing)
    table = _table(study)
    return {
        **_heading(study),
        "earlier": builds_on(study, others),
        "under_way": outcome is None,
        "next": next_step(study, later[0] if later else None),
        "reasons": reasons,
        "first": max(FIRST_REASONS, sum(reason.loud for reason in reasons)),
        "facts": shown_facts,
        "groups": data.group_names,
        "sections": sections,
        "tables": [*(view.tables(study) if view else []), *_ledger(study)],
        "columns": [name.rpartition(".")[2] for name in table.columns],
        "rows": [_row(data, row) for row in table.itertuples(index=False)],
        "config": json.dumps(study.config, indent=2),
    }


def _ledger(study: StudyResult) -> list[ShownTable]:
    """The forecasts that were scored so far in a study's workdir, if there are any."""
    ledger = read_ledger(study.folder.parent)
    if not isinstance(study.found, TrialsOutcome) or not (ledger.rows or ledger.damaged):
        return []
    receipts = receipts_from(ledger.rows)
    title = "The ledger of forecasts"
    if receipts:
        title += f": {coverage(receipts)}"
    rows = receipt_rows(receipts)
    rows += [(words, *[""] * (len(RECEIPT_COLUMNS) - 1)) for words in ledger.damaged]
    return [ShownTable(title, RECEIPT_COLUMNS, rows)]


def _table(study: StudyResult) -> pd.DataFrame:
    """The trials, the best first, without columns that say the same in every row."""
    table, key = study.to_pandas(), study.selection.key
    if not len(table):
        return pd.DataFrame({"trial": []})
    if key in table:  # what selects comes first
        columns = ["role", key, *(name for name in table if name not in ("role", key))]
        table = best_first(study)[columns]
    may_be_empty = ("seed", "steps_reused", "fitted_at_step")
    same = [n for n in ("role", "max_train_steps", *may_be_empty) if table[n].nunique() <= 1]
    dropped = [name for name in same if name not in may_be_empty or not table[name].any()]
    return table.drop(columns=dropped).reset_index()


def _row(data: PageData, row: tuple[Any, ...]) -> dict[str, Any]:
    """A row of the table: each cell as it is shown, and where that is rounded, as it is."""
    cells = []
    for value in row:
        text = format_cell(value)
        exact = repr(float(value)) if isinstance(value, int | float) and text != "-" else text
        cells.append({"text": text, "value": None if exact == text else exact})
    return {"trial": row[0], "group": data.groups[row[0]], "cells": cells}


def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, by the package that ships them."""
    with _being_made:
        version = importlib.metadata.version("vl-convert-python")
        return cached_text("report_library", f"{version}: {_BUNDLE}", _bundled)


@functools.cache  # A text that is the same for all reports.
def _bundled() -> str:
    # Within this process it would hold up every thread for more than a second. Who interrupts this
    # one does not mean the other one, of which nobody should hear then.
    command = [sys.executable, "-c", _BUNDLE]
    made = subprocess.run(command, check=True, capture_output=True, start_new_session=True)
    return made.stdout.decode()


def _resource(name: str) -> str:
    return importlib.resources.files("budgetflow.results.report").joinpath(name).read_text()


@functools.cache  # The same for all reports.
def _template() -> jinja2.Template:
    return jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(_resource("report.html.j2"))
