"""Trains the trials that a policy asks for on the nodes of a cluster.

A trial whose node dies is resumed elsewhere from its last save. The outcome is the one of a single
machine, in whatever order results arrive: a round trains every trial to its end, and in a race no
trial goes further than the fit that decides it, as far as that fit is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from budgetflow.base import stopping
from budgetflow.base.errors import DamagedFileError, UserError
from budgetflow.cluster.queue import Placement, queue_of, read_placement, write_placement
from budgetflow.cluster.worker import Stretch, WorkerReport, assignment
from budgetflow.cluster.workers import LostWorker, WorkerHandle, WorkerPool
from budgetflow.engine.training.timing import Stopwatch
from budgetflow.playbook.common.decision_words import trials_in_words, where_trials_ran
from budgetflow.playbook.common.measurement import Advance, TrialRecord
from budgetflow.playbook.common.outcomes import Outcome
from budgetflow.playbook.common.words import counted
from budgetflow.studies.plan.reuse import announced
from budgetflow.studies.run.own_devices import is_to_join, resumable
from budgetflow.studies.store.trial import read_trial, read_trials, trial_folder, write_trial
from budgetflow.studies.study import Study

# How often the records of running trials are read, to show progress.
POLL_SECONDS = 1.0
# A trial that met so many errors of its own has failed.
MOST_ERRORS = 3


class ClusterExecutor:
    """Trains a study's trials on the workers of a cluster.

    Args:
        study: the study.
        workers: the workers of the launch.
        on_measured: called when a trial has a new measurement or status.
        on_phase: told in words what the workers do.

    Attributes:
        records: of the study's trials, by number.
        steps_trained, examples_trained: by this launch.
        stopwatch: what the time went to, averaged over the workers.
    """

    def __init__(
        self,
        study: Study,
        workers: WorkerPool,
        on_measured: Callable[[], None],
        on_phase: Callable[[str], None],
    ) -> None:
        self._study, self._assignment, self._workers = study, assignment(study), workers
        self._on_measured, self._on_phase = on_measured, on_phase
        self._under_way: dict[WorkerHandle, Stretch] = {}
        self._placements: dict[int, Placement] = {}
        self._wanted = 0
        self.records: dict[int, TrialRecord] = {}
        self.steps_trained = self.examples_trained = 0
        self.stopwatch = Stopwatch()

    def read(self) -> None:
        """Reads all records; those of running trials as of their latest checkpoints."""
        folder = self._study.folder
        self.records = {record.trial: record for record in read_trials(folder)}
        self._placements = {trial: read_placement(folder, trial) for trial in self.records}
        started = [record.trial for record in self.records.values() if record.status == "running"]
        self.records |= {trial: self._as_saved(trial) for trial in started}

    def add(self, trials: dict[int, dict[str, Any]]) -> None:
        """Adds trials to the study; a worker finds out which steps they can reuse."""
        for number, hyperparameters in trials.items():
            record = self._announced(number, hyperparameters)
            write_trial(self._study.folder, record)
            self.records[number], self._placements[number] = record, Placement()
        self.records = dict(sorted(self.records.items()))

    def _announced(self, number: int, hyperparameters: dict[str, Any]) -> TrialRecord:
        return announced(number, self._study.kind.plan(self._study, number, hyperparameters))

    def advance(self, decision: Advance) -> None:
        """Hands trials to idle workers, and waits until a result arrives or a worker starts."""
        ends = self._ends(decision)
        self._hand_out(ends)
        if (
            not decision.unconditional
            and not ends.keys() - self._running_trials
            and self._workers.idle()
        ):
            self._hand_out(self._speculative_ends())
        self._wait()

    def wait(self) -> bool:
        """Waits for a running trial; returns whether there was one."""
        if is_any := bool(self._under_way):
            self._wait()
        return is_any

    @property
    def _running_trials(self) -> dict[int, Stretch]:
        return {stretch.trial: stretch for stretch in self._under_way.values()}

    def _ends(self, decision: Advance) -> dict[int, int]:
        lengths = {number: self.records[number].max_train_steps for number in decision.trials}
        return {number: min(decision.to_step, length) for number, length in lengths.items()}

    def _speculative_ends(self) -> dict[int, int]:
        """What a race would ask for next if no running trial fits: work for idle workers.

        All trials have to be trained up to the fit that decides, so this is wasted only if a
        running trial fits now; then some went one stage too far, and the answer is the same.
        """
        study, records = self._study, dict(self.records)
        if study.kind.promotes or any(r.fitted_at_step is not None for r in records.values()):
            return {}
        for number, stretch in self._running_trials.items():
            if stretch.to_step == records[number].max_train_steps:
                return {}
            records[number] = dataclasses.replace(records[number], step=stretch.to_step)
        decision = study.kind.decide(study, list(records.values()))
        return self._ends(decision) if isinstance(decision, Advance) else {}

    def _hand_out(self, ends: Mapping[int, int]) -> None:
        waiting = {n: end for n, end in ends.items() if n not in self._running_trials}
        self._wanted = len(self._under_way) + len(waiting)
        self._workers.grow(self._wanted)
        for number, to_step in waiting.items():
            worker = self._workers.idle(number)
            if worker is None or worker.node is None:
                break
            placement = self._placements[number]
            if worker.node not in placement.nodes:
                self._place(number, nodes=(*placement.nodes, worker.node))
            stretch = Stretch(number, to_step, placement.attempt)
            worker.ask("advance", self._assignment, stretch)
            worker.last_trial = number
            self._under_way[worker] = stretch
        self._announce_phase()

    def _announce_phase(self) -> None:
        """Tells ``on_phase`` which trials run, and on how many nodes."""
        if not self._workers.started:
            self._on_phase(f"waiting for {self._workers.needs}")
            return
        nodes = {worker.node for worker in self._workers.started}
        restarts = sum(placement.attempt - 1 for placement in self._placements.values())
        trials = trials_in_words(sorted(self._running_trials))
        again = f", {counted(restarts, 'restart')}" if restarts else ""
        self._on_phase(f"training {trials} on {counted(len(nodes), 'node')}{again}")

    def _wait(self) -> None:
        """Waits until a result arrives or a worker starts."""
        while True:
            results = self._workers.wait(POLL_SECONDS)
            for worker, result in results:
                self._receive(worker, result)
            if stopping.is_asked():
                self._stop()
            if results:
                return
            self._workers.grow(self._wanted)
            self._read_progress()

    def _read_progress(self) -> None:
        """Reads from the folder how far the running trials are."""
        for number in self._running_trials:
            try:
                record = read_trial(trial_folder(self._study.folder, number))
            except (DamagedFileError, FileNotFoundError):  # it is being written, or joins
                continue
            if not is_to_join(record):
                self.records[number] = record
        self._on_measured()

    def _receive(self, worker: WorkerHandle, result: WorkerReport | LostWorker | None) -> None:
        """Records the result of a worker.

        Raises:
            UserError: its node can train no trial of this study.
        """
        stretch = self._under_way.pop(worker, None)
        if isinstance(result, WorkerReport) and result.refused:
            raise UserError(f"on {worker.node}: {result.refused}")
        if stretch is None:
            return
        number = stretch.trial
        if isinstance(result, LostWorker):
            self._restart(number, result.because, is_its_own=result.process_only)
        elif result is not None and result.error is not None:
            self._restart(number, result.error, is_its_own=True)
        elif result is not None and result.record is not None:
            self.records[number] = result.record
            self.steps_trained += result.steps_trained
            self.examples_trained += result.examples_trained
            # Workers that run at the same time share the time.
            self.stopwatch.add(result.stopwatch, 1 / max(1, len(self._workers.started)))
            self._count_trained_twice(number, result.steps_trained_twice)
        self._on_measured()

    def _restart(self, number: int, because: str, is_its_own: bool) -> None:
        """Takes a trial from its worker, which may not write anything of it from now on.

        Args:
            number: the trial.
            because: what happened.
            is_its_own: whether it may be the trial's own fault; with :data:`MOST_ERRORS` of those
                the trial has failed.

        Raises:
            UserError: all trials of the study have failed.
        """
        before = self._placements[number]
        errors = (*before.errors, because) if is_its_own else before.errors
        self._place(number, attempt=before.attempt + 1, errors=errors)
        self.records[number] = self._as_saved(number)
        if len(errors) < MOST_ERRORS:
            return
        reason = "; then ".join(dict.fromkeys(errors))
        failed = dataclasses.replace(self.records[number], status="failed", failed_because=reason)
        write_trial(self._study.folder, failed)
        self.records[number] = failed
        if all(record.failed for record in self.records.values()):
            folder = self._study.folder
            raise UserError(
                f"every trial of {folder.name} failed, trial {number} because of: {reason}; once "
                f"that is mended, delete {folder} and launch again"
            )

    def _as_saved(self, number: int) -> TrialRecord:
        """The record of a trial that no worker trains, as of its latest checkpoint."""
        try:
            record = read_trial(trial_folder(self._study.folder, number))
        except FileNotFoundError:  # it was about to join
            record = self._announced(number, self.records[number].hyperparameters)
            write_trial(self._study.folder, record)
        if record.status != "running":
            return record
        saved = resumable(self._study, record, self._announced)
        self._count_trained_twice(number, record.step - saved.step)
        return saved

    def _count_trained_twice(self, number: int, steps: int) -> None:
        if steps > 0:
            before = self._placements[number].steps_trained_twice
            self._place(number, steps_trained_twice=before + steps)

    def _place(self, number: int, **changes: Any) -> None:
        """Records what has changed of where a trial ran."""
        self._placements[number] = dataclasses.replace(self._placements[number], **changes)
        write_placement(self._study.folder, number, self._placements[number])

    def _stop(self) -> NoReturn:
        """Has every worker save its trial.

        Raises:
            StoppedError: always.
        """
        for worker in self._under_way:
            worker.tell_to_stop()
        while self._under_way:
            for worker, result in self._workers.wait(POLL_SECONDS):
                self._receive(worker, result)
        raise stopping.StoppedError

    def conclude(self, found: Outcome) -> Outcome:
        """The outcome that a policy has found, completed by a worker."""
        for number, record in self.records.items():
            if record.status == "running":
                self.records[number] = dataclasses.replace(record, status="stopped")
                write_trial(self._study.folder, self.records[number])
        self._on_phase("concluding")
        errors: list[str] = []
        self._wanted = 1
        while len(errors) < MOST_ERRORS:
            self._workers.grow(self._wanted)
            if (worker := self._workers.idle()) is None:
                self._wait()
                continue
            worker.ask("conclude", self._assignment, found)
            report = self._result_of(worker)
            if isinstance(report, WorkerReport) and report.outcome is not None:
                queue = queue_of(self._placements)
                outcome = dataclasses.replace(report.outcome, queue=queue)
                return outcome.with_reasons([where_trials_ran(queue)])
            if isinstance(report, LostWorker) and not report.process_only:
                continue
            errors.append(report.because if isinstance(report, LostWorker) else str(report.error))
        raise UserError(f"{self._study.folder.name} cannot be concluded: {'; then '.join(errors)}")

    def _result_of(self, worker: WorkerHandle) -> WorkerReport | LostWorker:
        """Waits for the result of one worker; meanwhile others may start or die."""
        while True:
            for other, result in self._workers.wait(POLL_SECONDS):
                self._receive(other, result)
                if other is worker and result is not None:
                    return result
            if stopping.is_asked():
                raise stopping.StoppedError
