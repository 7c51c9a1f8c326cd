"""Writes reports: ``python -m budgetflow.report``; see :mod:`budgetflow.cli.report`."""

from budgetflow.cli.report import run

if __name__ == "__main__":
    run()
