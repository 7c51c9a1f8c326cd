"""How long reading a study of thousands of trials takes: a generated folder, read back.

.venv/bin/python scripts/bench_reading.py --trials=5000
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import budgetflow
from budgetflow.engine.schedules import Schedule
from budgetflow.studies.store.trial import TrialRecord, write_trial

EVALUATIONS = 40


def write_study(folder: Path, trials: int) -> None:
    """A folder like that of a round under way, of ``trials`` trials that are complete."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"config": {"kind": "round"}}))
    for number in range(trials):
        rows = [
            {"step": 10 * n, "learning_rate": 0.1, "train_loss": 1 / n, "validation_loss": 1 / n}
            for n in range(1, EVALUATIONS + 1)
        ]
        record = TrialRecord(
            trial=number,
            hyperparameters={"optimizer.momentum": number / trials},
            schedule=Schedule(0.1, constant_steps=10 * EVALUATIONS),
            seed=0,
            max_train_steps=10 * EVALUATIONS,
            status="complete",
            step=10 * EVALUATIONS,
            best_step=10 * EVALUATIONS,
            rows=tuple(rows),
        )
        write_trial(folder, record)


def main() -> None:
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=5000)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "study"
        write_study(folder, trials)
        start = time.perf_counter()
        study = budgetflow.open_study(folder)
        num_trials = len(study.trials)
        read = time.perf_counter()
        rows = len(study.to_pandas()), len(study.measurements())
        end = time.perf_counter()
    print(f"{num_trials} trials read in {read - start:.2f} s, {rows} rows in {end - read:.2f} s")


if __name__ == "__main__":
    main()
