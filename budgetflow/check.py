"""Checks all that studies recorded: ``python -m budgetflow.check``."""

from budgetflow.cli.check import run

if __name__ == "__main__":
    run()
