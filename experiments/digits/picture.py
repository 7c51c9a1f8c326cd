"""Draws the picture in the README from a finished study.

    scripts/launch --config=configs/lr_sweep.py
    .venv/bin/python experiments/digits/picture.py runs

Takes a few seconds.
"""

import sys
from pathlib import Path

import budgetflow
from budgetflow.results import figures

workdir = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
path = Path(__file__).with_name("lr_sweep.png")
figures.steps_to_fit(budgetflow.open_study(workdir / "lr_sweep")).save(path)
print(path)
