"""The command ``budgetflow``, which an installation has: each word after it is a module to run.

budgetflow launch --config=configs/round2.py    # python -m budgetflow.launch …
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from budgetflow.base.errors import UserError, nearest

COMMANDS = {
    "launch": "run the study of a config, and first those that it builds on",
    "report": "write the report of a study, of several, or of a folder of them",
    "check": "verify all that studies recorded, and say what each damage costs",
    "show": "print how studies stand: decision, ranking, what still runs",
}


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments of a command that reads studies: --workdir, to which others can be added."""
    arguments = argparse.ArgumentParser(
        prog=f"budgetflow {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    arguments.add_argument(
        "--workdir", default="runs", help="a study's folder, or one that holds some"
    )
    return arguments


def run_command(command: Callable[[Sequence[str]], None]) -> None:
    """Runs a command on the command line; user errors become one line and exit status 2."""
    try:
        command(sys.argv[1:])
    except UserError as error:
        print(f"budgetflow: {error}", file=sys.stderr)
        sys.exit(2)


def main() -> None:
    """Runs the module that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print("usage: budgetflow COMMAND [--help] …\n")
        print("\n".join(f"  {command:8}{does}" for command, does in COMMANDS.items()))
    elif name in COMMANDS:
        del sys.argv[1]
        importlib.import_module(f"budgetflow.cli.{name}").run()
    else:
        print(f"budgetflow: no command {name!r}; {nearest(name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
