"""The panels of the report, a module for each topic; :data:`PANELS` is the table of all of them.

- ``sweep``, ``comparison``, ``rounds``, ``forecasts``: what a study of that topic found.
- ``trials``: of any kind of study: parallel coordinates, curves, schedules, and a single trial.
- ``shared_steps``: which trials branch off which.

To add a panel, write a function in the module of its topic and enter it into :data:`PANELS`. It
takes a :class:`budgetflow.results.report.page_data.PageData` and yields
:class:`budgetflow.results.report.vega.Panel`, none where there is nothing to show. Marks, axes and
scales are in :mod:`budgetflow.results.report.vega`. Rows are the panel's own, or those that the
page holds once for all panels: ``trials`` and ``curves``. In every specification, ``chosen`` is an
object whose keys are the trials that are selected (null: all), and ``picked`` the trial that is
shown in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from budgetflow.results.report.page_data import PageData
from budgetflow.results.report.panels import (
    comparison,
    forecasts,
    rounds,
    shared_steps,
    sweep,
    trials,
)
from budgetflow.results.report.vega import Panel

# In the order of the report.
PANELS: tuple[Callable[[PageData], Iterator[Panel]], ...] = (
    sweep.steps_to_fit,
    comparison.sides,
    rounds.lengths,
    rounds.axis_plots,
    rounds.best_steps,
    forecasts.forecasts,
    trials.parallel,
    trials.curves,
    trials.schedules,
    shared_steps.tree,
)


def panels(data: PageData) -> list[Panel]:
    """All panels of a study that have something to show."""
    return [panel for make in PANELS for panel in make(data)]
