"""Runs the study of a config file: ``python -m budgetflow.launch``.

In Python ``budgetflow.launch`` is a function. To import this module would hide it, so that fails.
"""

# Whoever imports the name means the function: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

if __name__ == "budgetflow.launch":
    raise ImportError("budgetflow.launch is a function: from budgetflow import launch")
if __name__ == "__main__":
    from budgetflow.cli.launch import run

    run()
