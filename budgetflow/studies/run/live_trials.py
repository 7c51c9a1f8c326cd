"""The trials whose states are on the devices: opened, advanced, saved, and closed again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterable
from typing import Any

from jax.sharding import Mesh

from budgetflow.base import processes
from budgetflow.base.errors import DamagedFileError
from budgetflow.base.files import read_json, write_json
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.engine.data.records import Split
from budgetflow.engine.training.device_data import DeviceData
from budgetflow.engine.training.mesh import to_all_processes
from budgetflow.engine.training.step import Program
from budgetflow.engine.training.timing import Profiler, Stopwatch
from budgetflow.engine.training.trial_run import Measurement, Noticed, TrialRun, trial_program
from budgetflow.studies.plan.reuse import kept_steps
from budgetflow.studies.plan.trials import TrialPlan
from budgetflow.studies.run.side_by_side import Population
from budgetflow.studies.run.strategy import Strategy, choose_strategy, hardware
from budgetflow.studies.store.trial import TrialRecord, trial_folder
from budgetflow.studies.study import Study

# A running trial's record is for those who watch: resuming needs it with each save only.
WRITE_EVERY_SECONDS = 2.0
# In a trial's folder: what it had noticed where it was asked to stop.
STOPPED_AT = "stopped_at.json"


@dataclasses.dataclass
class _Live:
    """A trial on a slice of the mesh; ``run`` is None where its devices are other processes'."""

    run: TrialRun | None
    state_shapes: Any
    checkpoints: TrialCheckpoints
    position: int
    written_at: float

    @property
    def state(self) -> Any:
        """Its train state, or the shapes of it."""
        return self.run.state if self.run else self.state_shapes


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
        self._live: dict[int, _Live] = {}
        self._data = DeviceData(study.dataset)
        self._profiler = Profiler(str(study.folder / "profile"), profile_steps)
        self.stopwatch = Stopwatch()
        with self.stopwatch("calibration"):
            strategy = _strategy(study)
        self._population = Population(study.mesh, strategy.trials_at_a_time)
        mine = map(self._population.is_mine, range(len(self._population.slices)))
        self._side_by_side = sum(mine)

    def __contains__(self, number: int) -> bool:
        """Whether a trial is on the devices."""
        return number in self._live

    def __enter__(self) -> LiveTrials:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Frees the devices of all states and data; what was not saved is lost."""
        for live in self._live.values():
            if live.run:
                live.run.release()
        self._live.clear()
        self._data.release()

    def wave(self, trials: Iterable[int]) -> dict[int, int]:
        """The first of some trials that can run at the same time: trial to slice of the mesh.

        A trial stays on its slice; a new one gets the first that is free.
        """
        wave: dict[int, int] = {}
        free = [*range(len(self._population.slices))]
        for number in trials:
            if not free:
                break
            live = self._live.get(number)
            usable = [position for position in free if live is None or live.position == position]
            if usable:
                wave[number] = usable[0]
                free.remove(usable[0])
        return wave

    def open(self, record: TrialRecord, plan: TrialPlan, position: int) -> None:
        """Puts a trial's state on a slice of the mesh: its first one, or that of its step."""
        study = self._study
        program, run = self.start(plan, position)
        if run:
            run.profiler, self._profiler = self._profiler, Profiler()
        with self.stopwatch("checkpoints"):
            checkpoints = TrialCheckpoints(
                trial_folder(study.folder, record.trial),
                study.config.checkpoints.every_seconds,
                lambda state: to_all_processes(state, study.mesh, position),
            )
            noticed = processes.on_main(noticed_between, record, checkpoints)
            if (step := noticed.step if noticed else record.step) > 0:
                state = checkpoints.restore(step, program.state)
                if run:
                    run.resume(state, record.fitted_at_step is not None, noticed)
        self._live[record.trial] = _Live(
            run, program.state, checkpoints, position, written_at=time.monotonic()
        )

    def start(self, plan: TrialPlan, position: int) -> tuple[Program, TrialRun | None]:
        """A run at step 0 on a slice of the mesh; None where its devices are other processes'."""
        data, mesh = self._data, self._population.slices[position]
        program = trial_program(plan.config, data.dataset, plan.varied, plan.checks_fit, mesh)
        if not self._population.is_mine(position):
            return program, None
        return program, TrialRun(plan.config, plan.schedule, data, program, plan.whole_at)

    def advance(self, trials: Collection[int], to_step: int) -> dict[int, Measurement | None]:
        """Advances trials to a step, at the same time, and measures them there.

        None for one that was asked to stop before it was there.
        """
        return self._population.advance({n: self._live[n].run for n in trials}, to_step)

    def hold(self, record: TrialRecord, plan: TrialPlan) -> bool:
        """Keeps a trial's state, to be saved when it is time.

        Returns:
            Whether the record should be written too: with every save, and now and then.
        """
        live = self._live[record.trial]
        keep = kept_steps(self._study, plan, record.rows, record.step)
        with self.stopwatch("checkpoints"):
            is_saved = live.checkpoints.hold(record.step, live.state, keep)
        now = time.monotonic()
        if is_due := is_saved or now - live.written_at > WRITE_EVERY_SECONDS:
            live.written_at = now
        return is_due

    def close(self, record: TrialRecord, plan: TrialPlan, save: bool = True) -> None:
        """Takes a trial off the devices; first saves what it has to keep, unless told not to."""
        live = self._live.pop(record.trial)
        with self.stopwatch("checkpoints"):
            if save:
                keep = kept_steps(self._study, plan, record.rows, record.step)
                state = None if record.status == "diverged" else live.state
                live.checkpoints.save(keep, record.step, state)
            live.checkpoints.finish()
        if live.run:
            live.run.profiler.stop()
            # Those that run at the same time share the time.
            self.stopwatch.add(live.run.stopwatch, 1 / self._side_by_side)

    def save(self, record: TrialRecord, plan: TrialPlan) -> None:
        """Saves a trial, which stays on the devices."""
        with self.stopwatch("checkpoints"):
            self.save_where_it_stands(record, plan)
        if run := self._live[record.trial].run:
            self.stopwatch.add(run.stopwatch, 1 / self._side_by_side)
            run.stopwatch = Stopwatch()

    def save_where_it_stands(self, record: TrialRecord, plan: TrialPlan) -> None:
        """Saves a trial that was asked to stop, between two evaluations perhaps."""
        live = self._live[record.trial]
        keep = {record.step, *kept_steps(self._study, plan, record.rows, record.step)}
        is_further = live.run is not None and live.run.step > record.step
        found = processes.gather(live.run.noticed if live.run and is_further else None)
        noticed = next(filter(None, found), None)
        if noticed:
            # Where a kill comes before what was noticed is written, it goes on from there again.
            keep.add(live.checkpoints.latest_on_disk)
        live.checkpoints.save(keep, noticed.step if noticed else record.step, live.state)
        live.checkpoints.finish()
        if noticed:
            content = {"trial": record.trial, **dataclasses.asdict(noticed)}
            processes.on_main(write_json, live.checkpoints.folder / STOPPED_AT, content)

    def evaluate(self, number: int, split: Split) -> dict[str, float]:
        """The metrics of a trial on a split, on every process."""
        run = self._live[number].run
        return processes.gather(run.evaluate(split) if run else {})[0]


def noticed_between(record: TrialRecord, checkpoints: TrialCheckpoints) -> Noticed | None:
    """What is known of a state after the record's step, where one was saved in between."""
    path = checkpoints.folder / STOPPED_AT
    try:
        content = read_json(path)
    except (FileNotFoundError, DamagedFileError):  # then it goes on from the record's step
        return None
    is_its_own = content.pop("trial") == record.trial
    noticed = Noticed(**content)
    is_next = noticed.checked_step == record.step and noticed.step in checkpoints.steps()
    return noticed if is_its_own and is_next else None


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

    def start_trial(part: Mesh) -> TrialRun:
        program = trial_program(plan.config, study.dataset, plan.varied, plan.checks_fit, part)
        return TrialRun(plan.config, schedule, data, program)

    expected_steps = study.kind.expected_steps(study)
    try:
        strategy = choose_strategy(study.mesh, asked_for, expected_steps, start_trial)
    finally:
        data.release()
    processes.on_main(write_json, path, dataclasses.asdict(strategy))
    return strategy
