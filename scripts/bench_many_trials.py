"""Times a study of thousands of trials whose losses come from a formula: all but the training.

    .venv/bin/python scripts/bench_many_trials.py [--trials N]
    .venv/bin/python scripts/bench_many_trials.py --trained [--trials N] [--evaluations M]

With --trained the trials are real ones of 20 steps, of an MLP on digits, checkpoints included.
Without it the plan, the controller, the records and the outcome are the real ones, and no
checkpoint is written. Half way the study is interrupted, and resumed in the same process.
"""

import argparse
import json
import resource
import tempfile
import time

from etils import epath
from rich.console import Console

from budgetflow.cli.launch import launch, load_chain
from budgetflow.config import default_config, log_uniform
from budgetflow.studies.kinds import parse_study
from budgetflow.studies.study import check_study, resolve
from budgetflow.testing import quadratic, run_simulated_study

# Of each real trial.
STEPS = 20


def timed(what, trials, function, *arguments):
    """Calls a function, prints what it took, and returns its result; None if interrupted."""
    start = time.perf_counter()
    try:
        result = function(*arguments)
    except KeyboardInterrupt:
        result = None
    seconds = time.perf_counter() - start
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what}: {seconds:.1f} s, {1000 * seconds / trials:.2f} ms a trial; "
        f"at most {mebibytes:.0f} MiB so far",
        flush=True,
    )
    return result


def train(trials, evaluations):
    """Times a study of real trials, everything compiled, and prints where the time went."""
    config = default_config("round")
    config.max_train_steps = STEPS
    config.model = {"name": "budgetflow.models.MLP", "hidden_sizes": (128, 128)}
    config.evaluation.evaluations = evaluations
    config.search.space = (log_uniform("schedule.base_learning_rate", 0.01, 1.0),)
    with tempfile.TemporaryDirectory() as workdir:
        for config.name, config.search.trials in (("first", 4), ("timed", trials)):
            launch(load_chain(config), workdir, False, Console(quiet=True))
        spent = json.loads((epath.Path(workdir) / "timed" / "timing.json").read_text())
    shares = ", ".join(f"{name} {share:.0%}" for name, share in spent["share_of_time"].items())
    print(f"trained: {1000 * spent['seconds'] / trials:.1f} ms a trial; {shares}")


def short_trials(trials):
    """A round of short trials of a small model, which differ in two numbers."""
    config = default_config("round")
    config.name = "simulated"
    config.max_train_steps = STEPS
    config.evaluation.evaluations = 2
    config.model.hidden_sizes = (8,)
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.5
    config.search.trials = trials
    config.search.space = (
        log_uniform("schedule.base_learning_rate", 0.01, 1.0),
        log_uniform("regularization.weight_decay", 1e-5, 1e-2),
    )
    return parse_study(config)


def main():
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, help="10,000 unless given; of real ones 200")
    parser.add_argument("--trained", action="store_true", help="train them")
    parser.add_argument("--evaluations", type=int, default=STEPS, help="of each real one")
    arguments = parser.parse_args()
    if arguments.trained:
        train(arguments.trials or 200, arguments.evaluations)
        return
    trials = arguments.trials or 10_000
    config = short_trials(trials)
    with tempfile.TemporaryDirectory() as workdir:
        timed("check", trials, check_study, config)
        folder = epath.Path(workdir) / config.name
        study = timed("plan", trials, resolve, config, folder, None)

        def run(stop_after):
            return run_simulated_study(study, quadratic, stop_after=stop_after)

        timed("first half", trials, run, trials // 2)
        timed("resumed, up to its first trial", trials, run, 1)
        timed("second half", trials, run, None)


if __name__ == "__main__":
    main()
