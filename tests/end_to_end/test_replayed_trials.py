"""The command of experiments/replayed_trials, run on made-up trials whose answers are known."""

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "replayed_trials" / "replay.py"
LENGTH, EVALUATIONS = 1000, 40
# Workload to whether lower values are better.
WORKLOADS = {"criteo1tb": True, "fastmri": False, "ogbg": False, "librispeech": True}
TURN_AROUND = {"ogbg", "librispeech"}


def curve(error, crossing, rng):
    """Errors that fall to ``error``; until 60 % of the run, the best at the end are the worst."""
    rows = []
    for i in range(1, EVALUATIONS + 1):
        share = i / EVALUATIONS
        ahead = 0.6 - error if crossing and share <= 0.6 else error
        value = ahead * (2 - share) * math.exp(rng.normal() * 1e-3)
        rows.append([i * LENGTH // EVALUATIONS, value, None, None])
    return rows


def made_up_trials():
    """On half of the workloads the order holds from the start; on the others it turns around."""
    rng = np.random.default_rng(0)
    for workload, lower_is_better in WORKLOADS.items():
        for study in range(5):
            for trial in range(1, 6):
                rows = curve(0.2 + 0.04 * trial, workload in TURN_AROUND, rng)
                rows[10][1] = None  # not logged
                if trial == 5:
                    rows = rows[:20]  # ended early: censored
                if not lower_is_better:
                    rows = [[s, v if v is None else 1 - v, a, b] for s, v, a, b in rows]
                yield {
                    "submission": "adam",
                    "study": study,
                    "workload": workload,
                    "framework": "jax",
                    "trial": trial,
                    "metric": "loss",
                    "lower_is_better": lower_is_better,
                    "hyperparameters": {"learning_rate": trial / 10, "warmup_factor": 0.1},
                    "curve": rows,
                }


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The rows of the tables that the command writes, by heading."""
    folder = tmp_path_factory.mktemp("replayed")
    with gzip.open(folder / "trials.jsonl.gz", "wt") as lines:
        lines.writelines(json.dumps(trial) + "\n" for trial in made_up_trials())
    arguments = [f"--curves={folder / 'trials.jsonl.gz'}", f"--output={folder / 'table.md'}"]
    subprocess.run([sys.executable, SCRIPT, *arguments], check=True)
    found, heading = {}, "data"
    for line in (folder / "table.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        found.setdefault(heading, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def rows_of(tables, heading):
    """The rows of a table without its head, by its first cells."""
    (name,) = (name for name in tables if name.startswith(heading))
    return [row for row in tables[name] if len(row) > 1][2:]


def test_censored_trials_are_left_out(tables):
    assert tables["data"][1][0] == (
        "20 studies in 4 pools of repetitions; 80 complete trials, 20 censored ones left out."
    )


def test_the_best_steps_are_late(tables):
    assert rows_of(tables, "The best-step")[-1] == ["**all**", "20", "0", "20", "0", "0"]


def test_the_leader_ends_first_on_half_of_the_workloads(tables):
    rows = rows_of(tables, "How often")
    assert [row[0] for row in rows] == ["10%", "25%", "50%"] * 2
    for row in rows:
        assert row[1].startswith("10/20 = 50%")
        assert (row[2], row[3][:3], row[4]) == (
            "25%",
            "4.0",
            "0.00",
        )  # tau is 1 on the one half and -1 on the other


def test_what_is_said_of_one_workload_comes_from_the_others(tables):
    rows = {(row[0], row[1]): row for row in rows_of(tables, "Is the stated")}
    # Seeds agree to 0.1 %, so all is said to be certain, and half of it is wrong.
    said, came, brier, of_share, *bins = rows["25%", "seeds"][2:]
    assert (said, came, of_share) == ("100%", "50%", "0.250")
    assert float(brier) == pytest.approx(0.5, abs=0.01)
    assert bins[-1].startswith("100%: 10/20 = 50%")
    assert ("25%", "recalibrated") in rows


def test_held_is_confirmed_by_the_other_repetitions(tables):
    for row in rows_of(tables, "What `held` says"):
        assert row[2] == "4"
        assert row[3].startswith("2/2") and row[4].startswith("2/2") and row[5] == "0"


def test_preferred_values_move_where_the_order_turns(tables):
    rows = {row[0]: row[1:] for row in rows_of(tables, "Which preferred")}
    assert rows["learning_rate"][0] == "1"
    assert rows["learning_rate"][1].startswith("2/4")
    assert rows["learning_rate"][2:] == ["25%", "0", "2"]
    assert rows["the whole setting"][1].startswith("2/4")
    assert "warmup" not in rows  # it has one value
