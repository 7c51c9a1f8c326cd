"""Prints how studies stand: ``python -m budgetflow.show``; see :mod:`budgetflow.cli.show`."""

from budgetflow.cli.show import run

if __name__ == "__main__":
    run()
