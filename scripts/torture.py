"""Kills launches at random moments, again and again, and compares what comes of it.

    .venv/bin/python scripts/torture.py [--kills 200] [--configs configs/round2.py …]

Each config's chain is run once undisturbed, then in a fresh folder by launches that are ended with
SIGKILL or SIGTERM at moments drawn at random (while importing, compiling, training, saving…), until
it is complete; that is repeated until the kills are used up. Outcomes, records and measurements
must be the undisturbed ones, character for character, and so must the best parameters. Printed are
the steps that were trained twice for a kill, by signal.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import numpy as np

import budgetflow

ROOT = Path(__file__).parents[1]
CONFIGS = ("configs/round2.py", "configs/cooldowns.py", "configs/regression_rounds.py")
# Files that hold times, or how trials shared the devices.
NOT_COMPARED = ("checksums.json", "timing.json", "strategy.json", "stopped_at.json", "begun.json")
COUNTS = "STEPS_TRAINED_FILE"
# On more than one, timing says how many trials to train at a time, in every study of the chain, and
# so how far those that lose a race go.
ONE_DEVICE = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}


def launch_and_count() -> None:
    """A launch that writes down every call's updates, so that they are known after a kill."""
    from budgetflow.cli.launch import run
    from budgetflow.engine.training.trial_run import TrialRun

    calls, advance = TrialRun._calls, TrialRun.advance
    file = os.open(os.environ[COUNTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def counted(self, to_step):
        for batches, rates, count in calls(self, to_step):
            if self in advancing:  # rather than timed, to see how trials share the devices
                os.write(file, f"{count}\n".encode())
            yield batches, rates, count

    def advanced(self, to_step, measures=True):
        advancing.add(self)
        return advance(self, to_step, measures)

    advancing: weakref.WeakSet[TrialRun] = weakref.WeakSet()
    TrialRun._calls, TrialRun.advance = counted, advanced
    run()


def command(config: str, workdir: Path) -> list[str]:
    """A launch of a config that counts its steps."""
    return [sys.executable, __file__, "--child", f"--config={config}", f"--workdir={workdir}"]


def recorded(workdir: Path) -> dict[str, str]:
    """All that is compared, by file, and the best parameters of each study."""
    paths = (path for path in workdir.rglob("*.json*") if "checkpoints" not in path.parts)
    found = {
        str(path.relative_to(workdir)): path.read_text()
        for path in paths
        if path.name not in NOT_COMPARED
    }
    for name, study in budgetflow.open_studies(workdir).items():
        params = study.best_trial.restore_params()
        with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
            found[f"{name}: best parameters"] = repr(params)
    return found


def steps_in(file: Path) -> int:
    """The updates that were written down."""
    return sum(map(int, file.read_text().split())) if file.exists() else 0


def tortured(
    config: str, workdir: Path, seconds: float, kills: int, generator: random.Random
) -> dict[str, list[int]]:
    """Runs a chain to its end through at most so many kills; the steps up to each, by signal."""
    counts = workdir.parent / "steps"
    counts.parent.mkdir(exist_ok=True)
    counts.unlink(missing_ok=True)
    environment = {**os.environ, **ONE_DEVICE, COUNTS: str(counts)}
    launches: dict[str, list[int]] = {"SIGKILL": [], "SIGTERM": [], "to the end": []}
    before = 0
    while True:
        with subprocess.Popen(
            command(config, workdir),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            how = "to the end"
            if sum(map(len, launches.values())) < kills:
                try:
                    process.wait(generator.uniform(0, seconds))
                except subprocess.TimeoutExpired:
                    how = generator.choice(("SIGKILL", "SIGTERM"))
                    process.send_signal(signal.Signals[how])
            _, error = process.communicate(timeout=600)
        launches[how].append(steps_in(counts) - before)
        before = steps_in(counts)
        if how == "to the end":
            assert process.returncode == 0, error
            return launches
        if how == "SIGTERM" and process.returncode not in (75, -signal.SIGTERM, 0):
            raise AssertionError(f"status {process.returncode} after SIGTERM: {error}")


def main() -> None:
    """Parses the command line, and exits with status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="how many in all")
    parser.add_argument("--configs", nargs="+", default=CONFIGS, help="files to launch")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    different = killed = twice = 0
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = {}
        for number, config in enumerate(options.configs):
            for again in range(2):  # the second has everything compiled, as those below
                start = time.monotonic()
                workdir = Path(folder) / f"undisturbed{again}" / str(number)
                (launched,) = tortured(config, workdir, 0.0, 0, generator)["to the end"]
            undisturbed[config] = recorded(workdir), launched, time.monotonic() - start
        turn = 0
        while killed < options.kills:
            config = options.configs[turn % len(options.configs)]
            expected, steps, seconds = undisturbed[config]
            workdir = Path(folder) / "tortured" / str(turn)
            left = options.kills - killed
            launches = tortured(config, workdir, seconds, min(left, 25), generator)
            found = recorded(workdir)
            differing = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
            different += bool(differing)
            kills = len(launches["SIGKILL"]) + len(launches["SIGTERM"])
            again = sum(map(sum, launches.values())) - steps
            killed, twice, turn = killed + kills, twice + again, turn + 1
            ended = f"{len(launches['SIGKILL'])} SIGKILL, {len(launches['SIGTERM'])} SIGTERM"
            result = f"differs in {', '.join(differing)}" if differing else "identical"
            print(f"{config}: {ended}; {again} of {steps} steps twice; {result}", flush=True)
    print(
        f"{killed} kills: {different} of {turn} runs differ; {twice / max(1, killed):.0f} steps "
        "trained twice for each"
    )
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    if "--child" in sys.argv:
        sys.argv.remove("--child")
        launch_and_count()
    else:
        main()
