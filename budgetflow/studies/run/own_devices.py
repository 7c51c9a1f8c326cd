"""Carries out what a policy asks for on this run's own devices: trials join, advance, are saved.

Decisions are the controller's (:mod:`budgetflow.studies.run.controller`), which does not know who
carries them out: this, or workers of a cluster that each run this
(:mod:`budgetflow.cluster.dispatch`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any, NoReturn

from etils import epath

from budgetflow.base import processes, stopping
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.engine.training.trial_run import Measurement
from budgetflow.playbook.common.decision_words import trials_in_words
from budgetflow.playbook.common.measurement import Advance, Status
from budgetflow.playbook.common.outcomes import Outcome
from budgetflow.studies.plan.fork import origin
from budgetflow.studies.plan.reuse import joining, resumed
from budgetflow.studies.plan.trials import TrialPlan
from budgetflow.studies.run.completion import completed
from budgetflow.studies.run.live_trials import LiveTrials, noticed_between
from budgetflow.studies.store.trial import (
    TrialRecord,
    read_trial,
    read_trials,
    trial_folder,
    write_trial,
)
from budgetflow.studies.study import Study


class OwnDevices:
    """A study's trials on this run's devices.

    On several processes each runs this same code, in step with the others.

    Args:
        study: the study.
        live: the trials that are on the devices.
        on_measured: called after every measurement.
        on_phase: told what begins, in words.
        check_writer: called before anything of a trial is written; raises where another one has
            taken its place.

    Attributes:
        live: the trials that are on the devices.
        records: of the study's trials, by number; as good as what lies in its folder.
        steps_trained, examples_trained: by this launch.
        stopwatch: what the time went to.
    """

    def __init__(
        self,
        study: Study,
        live: LiveTrials,
        on_measured: Callable[[], None] = lambda: None,
        on_phase: Callable[[str], None] = lambda phase: None,
        check_writer: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._study, self.live = study, live
        self._on_measured, self._on_phase, self._check_writer = on_measured, on_phase, check_writer
        self._plans: dict[int, TrialPlan] = {}
        self._training = ""
        self.records: dict[int, TrialRecord] = {}
        self.steps_trained = self.examples_trained = 0
        self.stopwatch = live.stopwatch

    def begin_to_count(self) -> None:
        """Sets the counts of steps, examples and time back."""
        self.steps_trained = self.examples_trained = 0
        self.stopwatch.seconds.clear()

    def plan(self, number: int) -> TrialPlan:
        """The plan of a trial that has a record."""
        if number not in self._plans:
            hyperparameters = self.records[number].hyperparameters
            self._plans[number] = self._study.kind.plan(self._study, number, hyperparameters)
        return self._plans[number]

    def read(self) -> None:
        """Reads all records; those of trials that were under way, as of their checkpoints."""
        self.records = processes.on_main(self._read)

    def _read(self) -> dict[int, TrialRecord]:
        self.records = {record.trial: record for record in read_trials(self._study.folder)}
        begun = [r for r in self.records.values() if r.status == "running" or is_to_join(r)]
        return self.records | {record.trial: self._resumable(record) for record in begun}

    def _resumable(self, record: TrialRecord) -> TrialRecord:
        if is_to_join(record):
            return self._join(record.trial, record.hyperparameters)
        self._check_writer(record.trial)
        return resumable(self._study, record, self._join)

    def add(self, trials: dict[int, dict[str, Any]]) -> None:
        """Has trials join the study, by number and hyperparameters."""
        added = processes.on_main(self._add, trials)
        self.records = dict(sorted((self.records | added).items()))

    def _add(self, trials: dict[int, dict[str, Any]]) -> dict[int, TrialRecord]:
        return {number: self._join(number, values) for number, values in trials.items()}

    def _join(self, number: int, hyperparameters: dict[str, Any]) -> TrialRecord:
        """The record of a new trial, with the steps that it takes over from another one."""
        plan = self._study.kind.plan(self._study, number, hyperparameters)
        self._check_writer(number)
        # One that is added with, or before, the trial to continue trains all steps itself.
        branch = self.records.get(plan.branch.trial) if plan.branch else None
        record = joining(self._study, number, plan, self._sources, branch)
        write_trial(self._study.folder, record)
        return record

    @functools.cached_property
    def _sources(self) -> list[tuple[epath.Path, TrialRecord]]:
        """The trials of the studies that this one builds on or is forked from."""
        folders = [self._study.earlier]
        if self._study.kind.promotes:  # of what else was noticed in a race, no state knows
            folders.append(origin(self._study.folder))
        return [(folder, record) for folder in folders if folder for record in read_trials(folder)]

    def wait(self) -> bool:
        """Waits for a trial that advances meanwhile; whether there was one. Here, none does."""
        return False

    def advance(self, decision: Advance) -> None:
        """Advances trials wave by wave; one wave only, if it may spare the others some steps.

        Of an unconditional decision, those that have to go the least far are advanced, since others
        may continue them.
        """
        ends = {n: min(decision.to_step, self.records[n].max_train_steps) for n in decision.trials}
        to_step = min(ends.values())
        left = [number for number, end in ends.items() if end == to_step]
        while left:
            wave = self.live.wave(left)
            self._training = f"training {trials_in_words(wave)} to step {to_step}"
            if self.steps_trained:
                self._on_phase(self._training)
            self._advance(wave, to_step)
            for number in wave:
                if self.records[number].status != "running":
                    self.close(number)
            if not decision.unconditional:
                break
            left = [number for number in left if number not in wave]

    def _advance(self, wave: dict[int, int], to_step: int) -> None:
        """Advances trials, each on its slice, from evaluation to evaluation up to a step."""
        study = self._study
        for number, position in wave.items():
            if number not in self.live:
                # The last state of one that was stopped may not have been kept.
                record = processes.on_main(self._resumable, self.records[number])
                self.records[number] = resumed(study, record, self.plan(number))
                self.live.open(self.records[number], self.plan(number), position)
        for stop, due in self._stops(wave, to_step):
            for number, measurement in self.live.advance(due, stop).items():
                if measurement is not None:
                    self._record(number, measurement)
            if stopping.is_asked():
                self._stop()

    def _stops(self, wave: Collection[int], to_step: int) -> Iterator[tuple[int, list[int]]]:
        """The steps to measure trials of a wave at, and those of them that are due there."""
        stops: dict[int, set[int]] = {}
        for number in wave:
            record = self.records[number]
            of_kind = {*self._study.kind.stops(self._study, self.plan(number)), to_step}
            stops[number] = {stop for stop in of_kind if record.step < stop <= to_step}
            if record.step > 0 and not record.rows:  # a state taken over without measurements
                stops[number].add(record.step)
        for stop in sorted(set().union(*stops.values())):
            due = [n for n in wave if stop in stops[n] and self.records[n].status != "diverged"]
            if due:
                yield stop, due

    def _stop(self) -> NoReturn:
        """Saves every trial that is on the devices.

        Raises:
            StoppedError: always.
        """
        for number in self.records:
            self.hand_back(number)
        raise stopping.StoppedError

    def _record(self, number: int, measurement: Measurement) -> None:
        before = self.records[number]
        record = before.measured(measurement.row, self._study.selection)
        steps = record.step - before.step
        if not self.steps_trained:  # all is compiled by now
            self._on_phase(self._training)
        self.steps_trained += steps
        self.examples_trained += steps * self.plan(number).config.data.batch_size
        status: Status = "running"
        if measurement.diverged:
            status = "diverged"
        elif record.step == record.max_train_steps:
            status = "complete"
        bracket = record.fitted_at_step_bracket or measurement.fitted_at_step_bracket
        record = dataclasses.replace(record, status=status, fitted_at_step_bracket=bracket)
        self.records[number] = record
        # A final status is recorded once the final checkpoint is safe; nobody goes on from a state
        # that diverged.
        if status != "diverged":
            self._check_writer(number)
            is_due = self.live.hold(record, self.plan(number))
            if is_due and status == "running":
                self._write(record)
        self._on_measured()

    def _write(self, record: TrialRecord) -> None:
        if processes.is_main():
            self._check_writer(record.trial)
            write_trial(self._study.folder, record)

    def take_up(self, number: int) -> TrialRecord:
        """Reads the record of a trial that was handed to this run, and of the one it continues.

        It stays on the devices if it was the last one here, and has been nowhere else since.
        """
        record = self._read_one(number)
        for other in [n for n in self.records if n in self.live]:
            if other != number or self.records[other] != record:
                self.live.close(self.records[other], self.plan(other), save=False)
        self.records[number] = record
        branch = self.plan(number).branch
        if branch is not None and is_to_join(record):
            self.records[branch.trial] = self._read_one(branch.trial)
        return record

    def _read_one(self, number: int) -> TrialRecord:
        return processes.on_main(read_trial, trial_folder(self._study.folder, number))

    def hand_back(self, number: int) -> TrialRecord:
        """Saves a trial if it is on the devices, so that it can go on elsewhere."""
        if number in self.live:
            self._check_writer(number)
            self.live.save(self.records[number], self.plan(number))
            self._write(self.records[number])
        return self.records[number]

    def close(self, number: int, save: bool = True) -> None:
        """Takes a trial off the devices, and records what has become of it."""
        self._check_writer(number)
        self.live.close(self.records[number], self.plan(number), save)
        self._write(self.records[number])

    def conclude(self, outcome: Outcome) -> Outcome:
        """The outcome that a policy has found, completed; no trial is on the devices after it."""
        for number, record in self.records.items():
            if record.status == "running":
                self.records[number] = dataclasses.replace(record, status="stopped")
                if number in self.live:
                    # Nobody continues the others, and training finds their states again.
                    is_read = self._study.kind.promotes or number == outcome.best_trial
                    self.close(number, save=is_read)
                else:  # resumed at the very step where the race ended
                    self._write(self.records[number])
        self._on_phase("concluding")
        return completed(self._study, outcome, list(self.records.values()), self.live)


def resumable(
    study: Study, record: TrialRecord, join: Callable[[int, dict[str, Any]], TrialRecord]
) -> TrialRecord:
    """A trial's record as of its latest checkpoint, before the first one that is damaged.

    Args:
        study: the study.
        record: what is recorded.
        join: the record of a new trial of a number and hyperparameters, which takes this one's
            place if what it took over from another trial is damaged.
    """
    folder = trial_folder(study.folder, record.trial)
    checkpoints = TrialCheckpoints(folder)
    damaged = checkpoints.set_aside_damaged()
    words = (f"step {step} (kept as checkpoints/{step}.damaged)" for step in damaged)
    until = min([*damaged, record.step + 1])
    latest = max((step for step in checkpoints.steps() if step < until), default=0)
    if until > record.step and noticed_between(record, checkpoints):
        latest = record.step  # it goes on from a state after that one
    if latest < record.steps_reused:
        # Its own measurements are not those that it took over, at other steps.
        aside = study.folder / "damaged" / folder.name
        aside.parent.mkdir(exist_ok=True)
        if aside.exists():
            aside.rmtree()
        folder.rename(aside)
        again = join(record.trial, record.hyperparameters)
        words = (f"step {step} (kept in damaged/{folder.name})" for step in damaged)
        again = dataclasses.replace(again, damaged=(*again.damaged, *words))
        write_trial(study.folder, again)
        return again
    if latest < record.step or damaged:
        record = dataclasses.replace(record, damaged=(*record.damaged, *words))
        record = record.back_to(latest, study.selection)
        write_trial(study.folder, record, back=True)
    return record


def is_to_join(record: TrialRecord) -> bool:
    """Whether a trial is yet to be seen on the devices that it will train on."""
    return record.status == "pending" and record.step == 0 and not record.reuse_key
