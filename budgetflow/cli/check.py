"""Checks all that studies recorded, checkpoints included, and says what each damage costs.

    python -m budgetflow.check --workdir=runs           # all studies in a folder
    python -m budgetflow.check --workdir=runs/round1    # one study

It changes nothing. Exit status 0 if all is as it was written, 1 if something is damaged.
"""

from __future__ import annotations

from absl import flags
from rich.console import Console
from rich.progress import track

from budgetflow.cli.command_line import WORKDIR, run_command
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
    for name, files in parts:
        progress = track(
            files, name, console=console, transient=True, disable=not console.is_terminal
        )
        costs_by_damage: dict[str, str] = {}
        for file in progress:
            if (damage := file.damage()) is not None:  # once, though several checks meet it
                costs_by_damage.setdefault(damage, file.costs)
        damages += len(costs_by_damage)
        lines = [f"  • {damage}. It costs {costs}." for damage, costs in costs_by_damage.items()]
        summary = f"{len(costs_by_damage)} damaged" if lines else "all as it was written"
        lines.append(f"{name}: {len(files)} files and checkpoints, {summary}")
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    return damages


def main(values: flags.FlagValues) -> int:
    """The command, given its flags; returns its exit status."""
    return 1 if check(values.workdir, Console()) else 0


def run() -> None:
    """Runs the command on the command line."""
    run_command(__doc__, [WORKDIR], main)
