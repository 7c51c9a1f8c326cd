"""Times what checkpoints take of a round at the default cadence, and what of that checksums take.

    .venv/bin/python scripts/bench_checkpoints.py [--steps N] [--trials K] [--digits]

The convolutional network of experiments/lr_sweep_benchmark on Fashion-MNIST, or with --digits on
the data that need not be fetched; 40 evaluations a trial, one trial at a time. Checkpoint time is
the time that training stands still for it: to restore, to copy, to wait for what is written in the
background, to write and to record. Everything is compiled before.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from etils import epath
from rich.console import Console

from budgetflow.base.files import read_json
from budgetflow.cli.launch import launch, load_chain
from budgetflow.config import default_config, log_uniform
from budgetflow.engine import checkpoints

# The model is of this repository, from wherever this script is run.
sys.path.insert(0, str(Path(__file__).parents[1]))


def timed_checksums():
    """Has the time of checksums added up, in the list that comes back."""
    spent, checksums = [], checkpoints._file_checksums

    def timed(path):
        start = time.perf_counter()
        found = checksums(path)
        spent.append(time.perf_counter() - start)
        return found

    checkpoints._file_checksums = timed
    return spent


def main():
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000, help="of each trial")
    parser.add_argument("--trials", type=int, default=1, help="how many")
    parser.add_argument("--digits", action="store_true", help="train on digits")
    arguments = parser.parse_args()
    config = default_config("round")
    config.search.space = (log_uniform("schedule.base_learning_rate", 0.0003, 0.003),)
    config.model = {"name": "experiments.lr_sweep_benchmark.model.StridedConvNet"}
    config.optimizer = {"name": "adam"}
    config.data.batch_size = 128
    config.mesh.trial = 1
    if not arguments.digits:
        config.data.name = "budgetflow.data.fashion_mnist.fashion_mnist"
    spent = timed_checksums()
    with tempfile.TemporaryDirectory() as workdir:
        for config.name, config.max_train_steps, config.search.trials in (
            ("first", 80, 1),
            ("timed", arguments.steps, arguments.trials),
        ):
            spent.clear()
            launch(load_chain(config), workdir, False, Console(quiet=True))
        timing = read_json(epath.Path(workdir) / "timed" / "timing.json")
    shares = timing["share_of_time"]
    training, saving = (timing["seconds"] * shares[name] for name in ("training", "checkpoints"))
    print(
        f"{timing['steps_trained']} steps: training {training:.1f} s; checkpoints {saving:.2f} s, "
        f"{saving / training:.2%} of it; {len(spent)} checksums {sum(spent):.3f} s, "
        f"{sum(spent) / saving:.2%} of that"
    )


if __name__ == "__main__":
    main()
