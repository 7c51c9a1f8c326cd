"""Times a study of thousands of trials whose losses come from a formula: all but the training.

    .venv/bin/python scripts/bench_many_trials.py [--trials N]

The plan, the controller, the records and the outcome are the real ones; no checkpoint is written.
Half way the study is interrupted, and resumed in the same process.
"""

import argparse
import resource
import tempfile
import time

from etils import epath
from simulated_training import SimulatedTrials, simulated_config

from budgetflow.studies.controller import run_study
from budgetflow.studies.study import check_study, resolve


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


def main():
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    trials = parser.parse_args().trials
    config = simulated_config(trials)
    with tempfile.TemporaryDirectory() as workdir:
        timed("check", trials, check_study, config)
        folder = epath.Path(workdir) / config.name
        study = timed("plan", trials, resolve, config, folder, None)

        def run(stop_after):
            live = SimulatedTrials(study, stop_after)
            return run_study(study, lambda records, later: None, live=live)

        timed("first half", trials, run, trials // 2)
        timed("resumed, up to its first trial", trials, run, 1)
        timed("second half", trials, run, None)


if __name__ == "__main__":
    main()
