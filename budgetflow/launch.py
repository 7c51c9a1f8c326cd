"""Runs the study of a config file: ``python -m budgetflow.launch``.

In Python, ``budgetflow.launch`` is a function, which importing this module would hide.
"""

from budgetflow.cli.launch import run

# Whoever imports the name means the function: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

if __name__ == "__main__":
    run()
elif __name__ == "budgetflow.launch":
    raise ImportError("budgetflow.launch is a function: from budgetflow import launch")
