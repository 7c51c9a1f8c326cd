"""Draws the pictures in the README from finished studies.

    scripts/launch --config=configs/round2.py
    .venv/bin/python experiments/digits/picture.py runs

Takes a few seconds.
"""

import sys
from pathlib import Path

import budgetflow
from budgetflow.results import figures

workdir = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
here = Path(__file__).parent
for study, draw in (("lr_sweep", figures.steps_to_fit), ("round2", figures.schedules)):
    path = here / f"{study}.png"
    draw(budgetflow.open_study(workdir / study)).savefig(path, dpi=90)
    print(path)
