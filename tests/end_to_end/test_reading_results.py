"""The notebook runs from top to bottom: by nbclient where it is installed, else cell by cell."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from budgetflow import open_study

NOTEBOOK = REPOSITORY / "experiments" / "reading_results.ipynb"
CELLS = ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"] if "outputs" in c]
HAS_CLIENT = all(importlib.util.find_spec(name) for name in ("nbclient", "ipykernel"))


def by_nbclient(folder):
    """What the notebook prints, and how many figures and tables it shows."""
    import nbclient
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    data = [output["data"] for output in outputs if "data" in output]
    printed = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    return printed, sum("image/png" in shown for shown in data)


def by_exec(folder):
    """The same without Jupyter; a figure that is shown is drawn."""
    program = """
import json, sys

def display(figure):
    save = getattr(figure, "savefig", None) or figure.save
    save("figure.png")
    print("FIGURE")

namespace = {"display": display, "__name__": "__main__"}
for cell in json.load(sys.stdin):
    exec(compile(cell, "cell", "exec"), namespace)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        input=json.dumps(CELLS),
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stdout.count("FIGURE\n")


@pytest.mark.slow
@pytest.mark.parametrize("run", [by_nbclient if HAS_CLIENT else by_exec])
def test_the_notebook_runs_on_a_fresh_folder(tmp_path, monkeypatch, run):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    printed, figures = run(tmp_path)
    assert figures == 3
    wrong = int(re.search(r"^(\d+) of 270 test images", printed, flags=re.MULTILINE)[1])
    # What the notebook predicts by itself is what the study found.
    found = open_study(tmp_path / "runs/digits").outcome["best_test"]["error_rate"]
    assert wrong == round(270 * found)
    assert wrong < 27


def test_no_output_is_stored():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
