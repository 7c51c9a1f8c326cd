"""Writes reports: ``python -m budgetflow.report --workdir=runs [--study=round1,round2]``.

Of a folder of studies, a report for each and an index of them all; with ``--study``, of one of
them, or of several side by side. A study that is under way is reported as far as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from absl import flags
from etils import epath

from budgetflow.base.errors import UserError, nearest
from budgetflow.base.files import write_text
from budgetflow.cli.command_line import WORKDIR, Flag, run_command
from budgetflow.results.reading import absolute, is_study, open_studies
from budgetflow.results.report.page import render_index, render_report, render_side_by_side

FLAGS = (
    WORKDIR,
    Flag("study", "", "The names of studies, with commas between; all of the folder without it."),
    Flag("output", None, "The file to write; by default beside the studies."),
)


def report(workdir: str, names: Sequence[str] = (), output: str | None = None) -> epath.Path:
    """Writes what is asked for and returns the path of the page to open.

    Args:
        workdir: the folder of studies, or a study itself.
        names: the studies to report of; none for all, in an index.
        output: where to write the page; by default beside what it is about.

    Raises:
        UserError: there is no such study, or the page cannot be written.
    """
    folder = absolute(workdir)
    if not names and is_study(folder):
        folder, names = folder.parent, (folder.name,)
    studies = open_studies(folder)
    for name in names:
        if name not in studies:
            raise UserError(f"--study={name}: {workdir} has none; {nearest(name, studies)}")
    if len(names) == 1:
        pages = {names[0] + "/report.html": render_report(studies[names[0]], studies)}
    elif names:
        pages = {"_and_".join(names) + ".html": render_side_by_side([studies[n] for n in names])}
    else:
        pages = {f"{n}/report.html": render_report(s, studies) for n, s in studies.items()}
        pages["index.html"] = render_index(studies, folder.name)
    if output is not None:
        if not names:
            raise UserError(f"--output={output}: an index links to a page for each study; name one")
        pages = {output: next(iter(pages.values()))}
        folder = epath.Path(os.getcwd())
    for place, page in pages.items():
        try:
            write_text(folder / place, page)
        except OSError as error:
            why = error.strerror or error
            raise UserError(
                f"{folder / place} cannot be written: {why}; give an --output"
            ) from error
    return folder / place


def main(values: flags.FlagValues) -> int:
    """The command, given its flags; returns its exit status."""
    names = [name for name in values.study.split(",") if name]
    print(f"Report: {report(values.workdir, names, values.output)}")
    return 0


def run() -> None:
    """Runs the command on the command line."""
    run_command(__doc__, FLAGS, main)
