"""The trials whose states are on the devices: opened, advanced side by side, saved, closed again.

Each is on a slice of the study's mesh, and bit for bit the one that it would be alone.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
from jax.sharding import Mesh

from budgetflow.base import processes, stopping
from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import read_json, write_json
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.engine.data.records import Split
from budgetflow.engine.training.device_data import DeviceData
from budgetflow.engine.training.mesh import is_local, to_all_processes, trial_slices
from budgetflow.engine.training.timing import Profiler, Stopwatch
from budgetflow.engine.training.trial_run import Measurement, TrialRun, trial_program
from budgetflow.studies.plan.reuse import kept_steps
from budgetflow.studies.plan.trials import TrialPlan
from budgetflow.studies.run.strategy import Strategy, choose_strategy, hardware
from budgetflow.studies.store.trial import TrialRecord, trial_folder
from budgetflow.studies.study import Study

# A running trial's record is for those who watch: resuming needs it with each save only.
WRITE_EVERY_SECONDS = 2.0
# How soon several processes know that one of them was asked to stop.
STRETCH_SECONDS = 1.0
# In a trial's folder: what it had noticed where it was asked to stop.
STOPPED_AT = "stopped_at.json"


class LiveTrials:
    """The trials that are on the devices, each on a slice of the study's mesh.

    They and the study's data are there until :meth:`release`, or the end of a ``with`` block.

    Args:
        study: the study.
        profile_steps: the steps of the first trial between which to write a trace, or None.

    Attributes:
        stopwatch: what the time went to on this process.
    """

    def __init__(self, study: Study, profile_steps: tuple[int, int] | None) -> None:
        self._study = study
        self._runs: dict[int, TrialRun] = {}
        self._written_at: dict[int, float] = {}
        self._data = DeviceData(study.dataset)
        self._profiler = Profiler(str(study.folder / "profile"), profile_steps)
        self.stopwatch = Stopwatch()
        with self.stopwatch("calibration"):
            strategy = _strategy(study)
        self._slices = trial_slices(study.mesh)[: strategy.trials_at_a_time]
        self._threads = ThreadPoolExecutor(len(self._slices))
        self._stretch_steps = 1

    def __contains__(self, number: int) -> bool:
        """Whether a trial is on the devices."""
        return number in self._runs

    def __enter__(self) -> LiveTrials:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Frees the devices of all states and data; what was not saved is lost."""
        for run in self._runs.values():
            run.checkpoints.end_writing()
            run.release()
        self._runs.clear()
        self._data.release()
        self._threads.shutdown(wait=False)

    def wave(self, trials: Iterable[int]) -> dict[int, int]:
        """The first of some trials that can run at the same time: trial to slice of the mesh.

        A trial stays on its slice; a new one gets the first that is free.
        """
        wave: dict[int, int] = {}
        free = [*range(len(self._slices))]
        for number in trials:
            if not free:
                break
            run = self._runs.get(number)
            usable = [at for at in free if run is None or self._slices[at] == run.program.mesh]
            if usable:
                wave[number] = usable[0]
                free.remove(usable[0])
        return wave

    def open(self, record: TrialRecord, plan: TrialPlan, position: int) -> None:
        """Puts a trial's state on a slice of the mesh: its first one, or that of its step."""
        study = self._study
        run = self.start(plan, position)
        if run.is_local:
            run.profiler, self._profiler = self._profiler, Profiler()
        with self.stopwatch("checkpoints"):
            run.checkpoints = TrialCheckpoints(
                trial_folder(study.folder, record.trial),
                study.config.checkpoints.every_seconds,
                lambda state: to_all_processes(state, study.mesh, position),
            )
            noticed = processes.on_main(noticed_between, record, run.checkpoints)
            if (step := noticed["step"] if noticed else record.step) > 0:
                state = run.checkpoints.restore(step, run.program.state)
                run.resume(state, record.fitted_at_step is not None, noticed)
        self._runs[record.trial], self._written_at[record.trial] = run, time.monotonic()

    def start(self, plan: TrialPlan, position: int) -> TrialRun:
        """A run at step 0 on a slice of the mesh, whose devices may be other processes'."""
        return _run_of(plan, self._data, self._slices[position])

    def advance(self, trials: Collection[int], to_step: int) -> dict[int, Measurement | None]:
        """Advances trials to a step, at the same time, and measures them there.

        Returns:
            All trials' measurements, on every process; None for one that was asked to stop before.
        """
        here = {n: run for n in trials if (run := self._runs[n]).is_local}
        # A single one on this thread, so that an interrupt reaches it.
        on_threads = map if len(here) == 1 else self._threads.map
        measured: dict[int, Measurement | None] = {}
        for step in self._stretches(here, to_step):
            ends = [max(step, run.step) for run in here.values()]
            is_last = itertools.repeat(step == to_step)
            results = on_threads(TrialRun.advance, here.values(), ends, is_last)
            measured = dict(zip(here, results, strict=True))
        everyone = collections.ChainMap(*processes.gather(measured))
        return {number: everyone.get(number) for number in trials}

    def _stretches(self, runs: Mapping[int, TrialRun], to_step: int) -> Iterator[int]:
        """The steps to go to, one after the other: ``to_step`` at once on a single process.

        On several, in stretches of a second or so, between which they agree to stop if one of them
        was asked to.
        """
        if jax.process_count() == 1:
            yield to_step
            return
        step = min(itertools.chain(*processes.gather([run.step for run in runs.values()])))
        while not stopping.agree():
            step = min(step + self._stretch_steps, to_step)
            started_at = time.monotonic()
            yield step
            # The same on every process, since all of them have to look at the same step.
            if max(processes.gather(time.monotonic() - started_at)) < STRETCH_SECONDS:
                self._stretch_steps *= 2
            if step == to_step:
                return

    def hold(self, record: TrialRecord, plan: TrialPlan) -> bool:
        """Keeps a trial's state, to be saved when it is time.

        Returns:
            Whether the record should be written too: with every save, and now and then.
        """
        run = self._runs[record.trial]
        keep = kept_steps(self._study, plan, record)
        with self.stopwatch("checkpoints"):
            is_saved = run.checkpoints.hold(record.step, run.state, keep)
        now = time.monotonic()
        if is_due := is_saved or now - self._written_at[record.trial] > WRITE_EVERY_SECONDS:
            self._written_at[record.trial] = now
        return is_due

    def close(self, record: TrialRecord, plan: TrialPlan, save: bool = True) -> None:
        """Takes a trial off the devices; first saves what it has to keep, unless told not to."""
        run = self._runs.pop(record.trial)
        with self.stopwatch("checkpoints"):
            if save:
                keep = kept_steps(self._study, plan, record)
                state = None if record.status == "diverged" else run.state
                run.checkpoints.save(keep, record.step, state)
            run.checkpoints.finish()
        run.profiler.stop()
        self._add_time(run)

    def _add_time(self, run: TrialRun) -> None:
        # Those that run at the same time share the time.
        self.stopwatch.add(run.stopwatch, 1 / max(1, sum(map(is_local, self._slices))))

    def save(self, record: TrialRecord, plan: TrialPlan) -> None:
        """Saves a trial, which stays on the devices; where it stands, if it was asked to stop."""
        run = self._runs[record.trial]
        checkpoints = run.checkpoints
        keep = {record.step, *kept_steps(self._study, plan, record)}
        is_further = run.is_local and run.step > record.step
        noticed = next(filter(None, processes.gather(run.noticed() if is_further else None)), None)
        if noticed:
            # Where a kill comes before what was noticed is written, it goes on from there again.
            keep.add(checkpoints.latest_on_disk)
        with self.stopwatch("checkpoints"):
            checkpoints.save(keep, noticed["step"] if noticed else record.step, run.state)
            checkpoints.finish()
        if noticed:
            content = {"trial": record.trial, **noticed}
            processes.on_main(write_json, checkpoints.folder / STOPPED_AT, content)
        self._add_time(run)
        run.stopwatch = Stopwatch()

    def evaluate(self, number: int, split: Split) -> dict[str, float]:
        """The metrics of a trial on a split, on every process."""
        run = self._runs[number]
        return processes.gather(run.evaluate(split) if run.is_local else {})[0]


def _run_of(plan: TrialPlan, data: DeviceData, mesh: Mesh) -> TrialRun:
    program = trial_program(plan.config, data.dataset, plan.varied, plan.checks_fit, mesh)
    return TrialRun(plan.config, plan.schedule, data, program, plan.whole_at)


def noticed_between(record: TrialRecord, checkpoints: TrialCheckpoints) -> dict[str, int] | None:
    """What is known of a state after the record's step, where one was saved in between."""
    path = checkpoints.folder / STOPPED_AT
    try:
        content = read_json(path)
    except (FileNotFoundError, DamagedFileError):  # then it goes on from the record's step
        return None
    is_its_own = content.pop("trial") == record.trial
    is_next = content["checked_step"] == record.step and content["step"] in checkpoints.steps()
    return content if is_its_own and is_next else None


def _strategy(study: Study) -> Strategy:
    """How the trials share the devices: as recorded in the folder, or picked and recorded."""
    path = study.folder / "strategy.json"
    asked_for = study.config.mesh.trial > 0
    recorded = processes.on_main(lambda: read_json(path) if path.exists() else None)
    if recorded is not None and not asked_for and recorded["hardware"] == hardware(study.mesh):
        return Strategy(**recorded)
    # One like the others; long enough for any timing.
    plan = study.plans[len(study.plans) // 2]
    schedule = dataclasses.replace(plan.schedule, constant_steps=10**5)
    data = DeviceData(study.dataset)
    start = functools.partial(_run_of, dataclasses.replace(plan, schedule=schedule), data)
    expected_steps = study.kind.expected_steps(study)
    try:
        strategy = choose_strategy(study.mesh, asked_for, expected_steps, start)
    finally:
        data.release()
    processes.on_main(write_json, path, dataclasses.asdict(strategy))
    return strategy
