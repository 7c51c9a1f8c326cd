"""Prints how studies stand, from any terminal: the decision, the ranking, and what still runs.

    python -m budgetflow.show --workdir=runs           # every study in a line, running ones whole
    python -m budgetflow.show --workdir=runs/round1    # one study, whole

It reads the studies' folders and nothing else: also of a study that runs elsewhere, or gs://…
"""

from __future__ import annotations

import time

from absl import flags
from rich.console import Console

from budgetflow.cli.command_line import WORKDIR, run_command
from budgetflow.results.kind_views import headline
from budgetflow.results.reading import StudyResult, is_study, open_studies, open_study
from budgetflow.results.study_status import (
    counts_in_words,
    leader_in_words,
    steps_in_words,
    study_status,
)
from budgetflow.results.terminal.printing import MAX_TRIALS_SHOWN, print_outcome, say
from budgetflow.results.terminal.progress import trial_table
from budgetflow.results.words import duration


def show(workdir: str, console: Console) -> None:
    """Prints a study, or all studies of a folder.

    Raises:
        UserError: there is none.
    """
    if is_study(workdir):
        _show_study(open_study(workdir), console)
        return
    studies = open_studies(workdir)
    for study in studies.values():
        if study.found is None:
            _show_study(study, console)
        else:
            say(console, headline(study.found), study.name)
    first = next(iter(studies.values()))
    say(console, f"All of one: python -m budgetflow.show --workdir={first.folder}", style="dim")


def _show_study(study: StudyResult, console: Console) -> None:
    """Prints all of a study; of one under way, what there is so far."""
    if study.found is not None:
        print_outcome(console, study)
        return
    status = study_status((trial.record for trial in study.trials), study.selection)
    facts = [counts_in_words(status), steps_in_words(status), _last_written(study)]
    say(console, f"under way: {'; '.join(filter(None, facts))}.", study.name)
    if leader := leader_in_words(status, study.selection):
        say(console, f"  • {leader[:1].upper()}{leader[1:]}.")
        console.print(trial_table(status, study.selection, MAX_TRIALS_SHOWN))


def _last_written(study: StudyResult) -> str | None:
    """How long ago a running trial was last written, which tells whether it was killed."""
    running = [trial.folder for trial in study.trials if trial.record.status == "running"]
    times = [(folder / "trial.json").stat().mtime for folder in running]
    return f"last written {duration(time.time() - max(times))} ago" if times else None


def main(values: flags.FlagValues) -> int:
    """The command, given its flags; returns its exit status."""
    show(values.workdir, Console())
    return 0


def run() -> None:
    """Runs the command on the command line."""
    run_command(__doc__, [WORKDIR], main)
