"""Selection by a part of the validation split, as ``experiments/partial_validation`` repeats it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from budgetflow.engine.data.fashion_mnist import DEBIAN_FOLDER

SCRIPT = REPOSITORY / "experiments" / "partial_validation" / "partial_validation.py"
sys.path.insert(0, str(SCRIPT.parent))
from partial_validation import best_few, not_clearly_worse, selected  # noqa: E402

WHOLE = np.array([[0.4, 0.9], [0.2, 0.5], [0.3, np.inf]])


def test_all_candidates_select_as_the_whole_split_does():
    exact, best, regret, evaluated = selected(WHOLE, np.ones((3, 2), bool))
    assert (exact, best, regret, evaluated) == (1, True, 0, 1)


def test_a_missed_best_cost_is_noticed():
    candidates = np.array([[True, False], [False, True], [True, False]])
    exact, best, regret, evaluated = selected(WHOLE, candidates)
    assert (exact, best, evaluated) == (0.5, False, 0.5)
    assert regret == 0  # the best cost of trial 0 is missed, and yet it is the best trial
    candidates = np.array([[True, False], [False, True], [False, False]])
    worse = WHOLE + np.array([[0.2, 0], [0, 0], [0, 0]])
    assert selected(worse, candidates)[2] == pytest.approx((0.5 - 0.2) / 0.2)


def test_candidates_are_the_best_of_each_trial_or_those_that_chance_leaves():
    rng = np.random.default_rng(0)
    cost = rng.random((6, 3, 400)) + np.arange(6)[:, None, None] * 0.01
    cost[4:] += 1
    few = best_few(cost, 2)
    assert (few.sum(0) == 2).all()
    ranked = cost.mean(-1)
    assert (ranked[few].reshape(-1) <= np.sort(ranked, 0)[1].max()).all()
    near = not_clearly_worse(cost, 4, share=0.1)
    assert near[:4].all() and not near[4:].any()
    assert not_clearly_worse(cost, 0, share=1.0).sum() == 3  # the best one of each trial


def test_the_page_shows_what_the_table_holds():
    folder = REPOSITORY / "experiments" / "partial_validation"
    table = (folder / "table.md").read_text()
    page = (folder / "README.md").read_text()
    names = {"Fashion-MNIST": "fashion", "digits": "digits", "characters": "characters"}
    row = r"^\| (\d+) %, (?:all )?(.*?)(?: of the best)? \| (.*?) \|" + 4 * r" ([\d.]+) % \|"
    shown = re.findall(row, page, re.M)
    assert len(shown) == 9
    for part, rule, workload, *figures in shown:
        cells = [f"{figure}%" for figure in figures]
        assert " | ".join([f"| {names[workload]}", f"{part}%", rule, *cells]) in table


@pytest.mark.skipif(not Path(DEBIAN_FOLDER).exists(), reason="Fashion-MNIST is not there")
@pytest.mark.slow
def test_the_command_runs():
    command = [sys.executable, SCRIPT, "--searches", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    rows = [[c.strip() for c in r.split("|")[1:-1]] for r in done.stdout.splitlines() if "%" in r]
    assert [row[0] for row in rows].count("digits") == 24 and len(rows) == 72
    # The more candidates, the less is missed.
    exact = {tuple(row[:3]): float(row[4].rstrip("%")) for row in rows}
    for workload, part in {(row[0], row[1]) for row in rows}:
        found = [exact[workload, part, f"the {few} best"] for few in (1, 3, 5, 10)]
        assert found == sorted(found)
    assert min(exact.values()) < 100
