"""Checks all that studies recorded, checkpoints included, and says what each damage costs.

    python -m budgetflow.check --workdir=runs           # all studies in a folder
    python -m budgetflow.check --workdir=runs/round1    # one study

It changes nothing. Exit status 0 if all is as it was written, 1 if something is damaged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track

from budgetflow.cli.main import parser, run_command
from budgetflow.results.checking import checks, ledger_checks, studies_in


def check(workdir: str, console: Console) -> int:
    """Prints what is damaged in a folder of studies, or in one study, and counts it.

    Raises:
        UserError: there is no study.
    """
    damages = 0
    parts = [(folder.name, list(checks(folder))) for folder in studies_in(workdir)]
    if ledger := list(ledger_checks(workdir)):
        parts.append((ledger[0].about.name, ledger))
    for name, found in parts:
        progress = track(
            found, name, console=console, transient=True, disable=not console.is_terminal
        )
        said: dict[str, str] = {}
        for each in progress:
            if (damage := each.damage()) is not None:  # which what needs the file would say again
                said.setdefault(damage, each.costs)
        damages += len(said)
        for damage, costs in said.items():
            line = f"  • {damage}. It costs {costs}."
            console.print(line, soft_wrap=True, highlight=False, markup=False)
        summary = f"{len(said)} damaged" if said else "all as it was written"
        line = f"{name}: {len(found)} files and checkpoints, {summary}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return damages


def main(argv: Sequence[str]) -> None:
    """The command, given its arguments."""
    given = parser("check", __doc__).parse_args(argv)
    sys.exit(1 if check(given.workdir, Console()) else 0)


def run() -> None:
    """Runs the command on the command line."""
    run_command(main)
