"""The command ``budgetflow``, which an installation has: its first argument names what to run.

budgetflow launch --config=configs/round2.py    # python -m budgetflow.launch …
"""

from __future__ import annotations

import importlib
import sys

from budgetflow.base.errors import nearest

# Each is a module of this package.
COMMANDS = {
    "launch": "run the study of a config, and first those that it builds on",
    "report": "write the report of a study, of several, or of a folder of them",
    "check": "verify all that studies recorded, and say what each damage costs",
    "show": "print how studies stand: decision, ranking, what still runs",
}


def main() -> None:
    """Runs the command that the first argument names."""
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
