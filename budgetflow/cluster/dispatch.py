"""Carries out what a policy asks for on the nodes of a cluster: hands trials out, takes them back.

A trial whose node dies is resumed elsewhere from its last save. Decisions are the controller's, and
it gets the answer of one machine, in whatever order results arrive: rounds train every trial to its
end, and in a race no trial goes further than the fit that decides it, as far as that is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from budgetflow.base import stopping
from budgetflow.base.errors import DamagedFileError, UserError
from budgetflow.cluster.queue import Placement, queue_of, read_placement, write_placement
from budgetflow.cluster.worker import Report, Stretch, assignment
from budgetflow.cluster.workers import Hired, Lost, Workers
from budgetflow.engine.training.timing import Stopwatch
from budgetflow.playbook.common.decision_words import trials_in_words, where_trials_ran
from budgetflow.playbook.common.measurement import Advance, TrialRecord
from budgetflow.playbook.common.outcomes import Outcome
from budgetflow.playbook.common.words import counted
from budgetflow.studies.plan.reuse import announced
from budgetflow.studies.run.own_devices import is_to_join, resumable
from budgetflow.studies.store.trial import read_trial, read_trials, trial_folder, write_trial
from budgetflow.studies.study import Study

# How often the records of trials under way are looked at, for those who watch.
LOOK_SECONDS = 1.0
# A trial that met so many errors of its own has failed.
MOST_ERRORS = 3


class ClusterCrew:
    """The workers of a cluster, as who carries out what a study's policy asks for.

    Args:
        study: the study.
        workers: those of the launch.
        on_measured: called when something is known of a trial that was not.
        on_phase: told what happens, in words.

    Attributes:
        records: of the study's trials, by number.
        steps_trained, examples_trained: by this launch.
        stopwatch: what the time went to, of the workers on the average.
    """

    def __init__(
        self,
        study: Study,
        workers: Workers,
        on_measured: Callable[[], None],
        on_phase: Callable[[str], None],
    ) -> None:
        self._study, self._assignment, self._workers = study, assignment(study), workers
        self._on_measured, self._on_phase = on_measured, on_phase
        self._under_way: dict[Hired, Stretch] = {}
        self._placements: dict[int, Placement] = {}
        self._wanted = 0
        self.records: dict[int, TrialRecord] = {}
        self.steps_trained = self.examples_trained = 0
        self.stopwatch = Stopwatch()

    def read(self) -> None:
        """Reads all records; those of trials that were under way, as of their checkpoints."""
        folder = self._study.folder
        self.records = {record.trial: record for record in read_trials(folder)}
        self._placements = {trial: read_placement(folder, trial) for trial in self.records}
        begun = [record.trial for record in self.records.values() if record.status == "running"]
        self.records |= {trial: self._as_saved(trial) for trial in begun}

    def add(self, trials: dict[int, dict[str, Any]]) -> None:
        """Has trials join the study; what they take over is known once they are on a node."""
        for number, hyperparameters in trials.items():
            record = self._announce(number, hyperparameters)
            write_trial(self._study.folder, record)
            self.records[number], self._placements[number] = record, Placement()
        self.records = dict(sorted(self.records.items()))

    def _announce(self, number: int, hyperparameters: dict[str, Any]) -> TrialRecord:
        return announced(number, self._study.kind.plan(self._study, number, hyperparameters))

    def advance(self, decision: Advance) -> None:
        """Hands trials to idle workers, and waits until one comes back or another is free."""
        ends = self._ends(decision)
        self._hand_out(ends)
        if not decision.unconditional and not ends.keys() - self._in_hand and self._workers.idle():
            self._hand_out(self._foreseen())
        self._wait()

    def wait(self) -> bool:
        """Waits until a trial under way comes back; whether there was one."""
        if is_any := bool(self._under_way):
            self._wait()
        return is_any

    @property
    def _in_hand(self) -> dict[int, Stretch]:
        """The trials under way."""
        return {stretch.trial: stretch for stretch in self._under_way.values()}

    def _ends(self, decision: Advance) -> dict[int, int]:
        lengths = {number: self.records[number].max_train_steps for number in decision.trials}
        return {number: min(decision.to_step, length) for number, length in lengths.items()}

    def _foreseen(self) -> dict[int, int]:
        """The next stretches of a race if those under way end without a fit.

        All trials have to be trained up to the fit that decides, so they are of use unless it comes
        in the stretches under way; then they went a stage too far, and the answer is the same.
        """
        study, records = self._study, dict(self.records)
        if study.kind.promotes or any(r.fitted_at_step is not None for r in records.values()):
            return {}
        for number, stretch in self._in_hand.items():
            if stretch.to_step == records[number].max_train_steps:
                return {}
            records[number] = dataclasses.replace(records[number], step=stretch.to_step)
        decision = study.kind.decide(study, list(records.values()))
        return self._ends(decision) if isinstance(decision, Advance) else {}

    def _hand_out(self, ends: Mapping[int, int]) -> None:
        waiting = {n: end for n, end in ends.items() if n not in self._in_hand}
        self._wanted = len(self._under_way) + len(waiting)
        self._workers.tend(self._wanted)
        for number, to_step in waiting.items():
            worker = self._workers.idle(number)
            if worker is None or worker.node is None:
                break
            placement = self._placements[number]
            if worker.node not in placement.nodes:
                nodes = (*placement.nodes, worker.node)
                self._place(number, dataclasses.replace(placement, nodes=nodes))
            stretch = Stretch(number, to_step, placement.attempt)
            worker.ask("advance", self._assignment, stretch)
            worker.last_trial = number
            self._under_way[worker] = stretch
        self._tell()

    def _tell(self) -> None:
        """Says what happens, and where."""
        if not self._workers.begun:
            self._on_phase(f"waiting for {self._workers.needs}")
            return
        nodes = {worker.node for worker in self._workers.begun}
        restarts = sum(placement.attempt - 1 for placement in self._placements.values())
        said = f"training {trials_in_words(sorted(self._in_hand))} on {counted(len(nodes), 'node')}"
        again = f", {counted(restarts, 'restart')}" if restarts else ""
        self._on_phase(said + again)

    def _wait(self) -> None:
        """Waits until there is something new to decide on, or to hand out."""
        while True:
            came = self._workers.wait(LOOK_SECONDS)
            for worker, found in came:
                self._take_back(worker, found)
            if stopping.is_asked():
                self._stop()
            if came:
                return
            self._workers.tend(self._wanted)
            self._look()

    def _look(self) -> None:
        """Reads how far the trials under way are."""
        for number in self._in_hand:
            try:
                record = read_trial(trial_folder(self._study.folder, number))
            except (DamagedFileError, FileNotFoundError):  # it is being written, or joins
                continue
            if not is_to_join(record):
                self.records[number] = record
        self._on_measured()

    def _take_back(self, worker: Hired, found: Report | Lost | None) -> None:
        """Learns what came of a stretch."""
        stretch = self._under_way.pop(worker, None)
        if isinstance(found, Report) and found.refused:
            raise UserError(f"on {worker.node}: {found.refused}")
        if stretch is None:
            return
        number = stretch.trial
        if isinstance(found, Lost):
            self._take_up_anew(number, found.because, is_its_own=found.alone)
        elif found is not None and found.error is not None:
            self._take_up_anew(number, found.error, is_its_own=True)
        elif found is not None and found.record is not None:
            self.records[number] = found.record
            self._count(found)
            self._twice(number, found.steps_trained_twice)
        self._on_measured()

    def _count(self, report: Report) -> None:
        self.steps_trained += report.steps_trained
        self.examples_trained += report.examples_trained
        spent = Stopwatch()
        spent.seconds.update(report.seconds)
        # Those that work at the same time share the time.
        self.stopwatch.add(spent, 1 / max(1, len(self._workers.begun)))

    def _take_up_anew(self, number: int, because: str, is_its_own: bool) -> None:
        """Takes a trial from a worker, which writes nothing of it from now on."""
        before = self._placements[number]
        errors = (*before.errors, because) if is_its_own else before.errors
        placement = dataclasses.replace(before, attempt=before.attempt + 1, errors=errors)
        self._place(number, placement)
        self.records[number] = self._as_saved(number)
        if len(errors) < MOST_ERRORS:
            return
        said = "; then ".join(dict.fromkeys(errors))
        failed = dataclasses.replace(self.records[number], status="failed", failed_because=said)
        write_trial(self._study.folder, failed)
        self.records[number] = failed
        if all(record.failed for record in self.records.values()):
            folder = self._study.folder
            raise UserError(
                f"every trial of {folder.name} failed, trial {number} because of: {said}; once "
                f"that is mended, delete {folder} and launch again"
            )

    def _as_saved(self, number: int) -> TrialRecord:
        """The record of a trial that nobody trains, as of its latest checkpoint."""
        try:
            record = read_trial(trial_folder(self._study.folder, number))
        except FileNotFoundError:  # it was about to join
            record = self._announce(number, self.records[number].hyperparameters)
            write_trial(self._study.folder, record)
        if record.status != "running":
            return record
        saved = resumable(self._study, record, self._announce)
        self._twice(number, record.step - saved.step)
        return saved

    def _twice(self, number: int, steps: int) -> None:
        if steps > 0:
            known = self._placements[number]
            total = known.steps_trained_twice + steps
            self._place(number, dataclasses.replace(known, steps_trained_twice=total))

    def _place(self, number: int, placement: Placement) -> None:
        write_placement(self._study.folder, number, placement)
        self._placements[number] = placement

    def _stop(self) -> NoReturn:
        """Has every worker save its trial.

        Raises:
            StoppedError: always.
        """
        for worker in self._under_way:
            worker.tell_to_stop()
        while self._under_way:
            for worker, found in self._workers.wait(LOOK_SECONDS):
                self._take_back(worker, found)
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
            self._workers.tend(self._wanted)
            if (worker := self._workers.idle()) is None:
                self._wait()
                continue
            worker.ask("conclude", self._assignment, found)
            report = self._result_of(worker)
            if isinstance(report, Report) and report.outcome is not None:
                queue = queue_of(self._study.folder, list(self.records))
                outcome = dataclasses.replace(report.outcome, queue=queue)
                return outcome.with_reasons([where_trials_ran(queue)])
            if isinstance(report, Lost) and not report.alone:
                continue
            errors.append(report.because if isinstance(report, Lost) else str(report.error))
        raise UserError(f"{self._study.folder.name} cannot be concluded: {'; then '.join(errors)}")

    def _result_of(self, worker: Hired) -> Report | Lost:
        """What comes of what a worker does; meanwhile others may begin or die."""
        while True:
            for other, came in self._workers.wait(LOOK_SECONDS):
                self._take_back(other, came)
                if other is worker and came is not None:
                    return came
            if stopping.is_asked():
                raise stopping.StoppedError
