"""The actor on a node: trains one trial from its folder to a step, saves it and reports.

It knows nothing of other trials and decides nothing. Another worker may be given its trial, and is
then the only one to write: before each write the worker checks whether that has happened.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import socket
import traceback
from collections.abc import Callable
from typing import Any

import jax
import ray
from etils import epath

from budgetflow.base import stopping
from budgetflow.base.errors import DamagedFileError, StoppedError, UserError
from budgetflow.cluster.queue import read_placement
from budgetflow.config import StudyConfig
from budgetflow.engine.training.timing import Stopwatch
from budgetflow.playbook.common.measurement import Advance, TrialRecord
from budgetflow.playbook.common.outcomes import Outcome
from budgetflow.studies.run.live_trials import LiveTrials
from budgetflow.studies.run.own_devices import OwnDevices
from budgetflow.studies.store.keys import differing_fields, fields_in_words, libraries
from budgetflow.studies.store.lock import Launcher, holder
from budgetflow.studies.store.trial import read_trials
from budgetflow.studies.study import Study, resolve


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The study that a worker trains trials of.

    Attributes:
        config: as its launcher read it, for one trial on all devices of a worker.
        folder, earlier: the study's folder, and that of the study it builds on, if it does.
        same_results: see :func:`budgetflow.studies.study.resolve`.
        lengths_to_come: see :class:`budgetflow.studies.study.Study`.
        found_on: the launcher's code, data and libraries, which a node's must equal.
        launcher: who holds the lock of the study's folder.
    """

    config: StudyConfig
    folder: epath.Path
    earlier: epath.Path | None
    same_results: bool
    lengths_to_come: tuple[int, ...]
    found_on: dict[str, Any]
    launcher: Launcher | None


def assignment(study: Study) -> Assignment:
    """The assignment of a study whose lock this launcher holds."""
    return Assignment(
        config=study.asked,
        folder=study.folder,
        earlier=study.earlier,
        same_results=study.same_results,
        lengths_to_come=study.lengths_to_come,
        found_on=_with_libraries(study),
        launcher=holder(study.folder),
    )


def _with_libraries(study: Study) -> dict[str, Any]:
    return {**study.found_on, "libraries": libraries()}


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A request to a worker: a trial, the step to train it to, and which attempt this is."""

    trial: int
    to_step: int
    attempt: int


@dataclasses.dataclass(frozen=True)
class WorkerReport:
    """The result of a request.

    Attributes:
        record: of the trial, as it was saved.
        outcome: completed, where that was asked for.
        steps_trained, examples_trained: by this request.
        steps_trained_twice: those of them that the trial's folder had measured before.
        stopwatch: what the time went to.
        error: an error of the trial's own, which another attempt may not meet.
        refused: why this node can train no trial of this study.
    """

    record: TrialRecord | None = None
    outcome: Outcome | None = None
    steps_trained: int = 0
    examples_trained: int = 0
    steps_trained_twice: int = 0
    stopwatch: Stopwatch = dataclasses.field(default_factory=Stopwatch)
    error: str | None = None
    refused: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the worker did what was asked for."""
        return self.record is not None or self.outcome is not None


class _ReplacedError(Exception):
    """Another worker, or another launcher, has this trial now."""


class Worker:
    """An actor on a node, with devices of its own or, of several actors, a part of the devices.

    Args:
        cpu_devices: how many virtual devices its CPU makes.
        compilation_cache: where compiled programs are kept on the node, by JAX's settings.
    """

    def __init__(self, cpu_devices: int, compilation_cache: dict[str, Any]) -> None:
        if cpu_devices > 1:
            jax.config.update("jax_num_cpu_devices", cpu_devices)
        for name, value in compilation_cache.items():
            jax.config.update(name, value)
        self._study: tuple[Assignment, Study] | None = None
        self._own: OwnDevices | None = None
        self._attempts: dict[int, int] = {}

    def address(self) -> str:
        """Where other actors can reach it, to have their devices together with its own."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def begin(self, address: str, hosts: int, number: int) -> str:
        """Joins the other actors of a trial, if there are others.

        Args:
            address: of the first of them.
            hosts: how many they are.
            number: which one this is.

        Returns:
            The name of its node.
        """
        if hosts > 1:
            jax.config.update("jax_enable_preemption_service", False)
            jax.distributed.initialize(address, hosts, number)
        return f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:8]})"

    def stop(self) -> None:
        """Asks the worker to save its trial and return; called while it trains."""
        stopping.ask()

    def advance(self, assignment: Assignment, stretch: Stretch) -> WorkerReport:
        """Trains a trial from its folder to a step, and saves it."""

        def advance(own: OwnDevices) -> WorkerReport:
            self._attempts[stretch.trial] = stretch.attempt
            before = own.take_up(stretch.trial)
            try:
                own.advance(Advance((stretch.trial,), stretch.to_step))
            except StoppedError:
                record = own.records[stretch.trial]
            else:
                record = own.hand_back(stretch.trial)
            again = own.steps_trained - (record.step - before.step)
            return WorkerReport(record, steps_trained_twice=max(0, again))

        return self._reported(assignment, advance)

    def conclude(self, assignment: Assignment, found: Outcome) -> WorkerReport:
        """Completes the outcome of a study whose trials have all ended."""

        def conclude(own: OwnDevices) -> WorkerReport:
            own.records = {record.trial: record for record in read_trials(assignment.folder)}
            return WorkerReport(outcome=own.conclude(found))

        return self._reported(assignment, conclude)

    def _reported(
        self, assignment: Assignment, do: Callable[[OwnDevices], WorkerReport]
    ) -> WorkerReport:
        """The report of a request; errors are reported, since they may not be picklable."""
        try:
            study = self._resolved(assignment)
        except (UserError, OSError) as error:
            return WorkerReport(refused=str(error))
        try:
            check_writer = functools.partial(self._check_writer, assignment)
            own = self._own = self._own or OwnDevices(
                study, LiveTrials(study, None), check_writer=check_writer
            )
            own.begin_to_count()
            return dataclasses.replace(
                do(own),
                steps_trained=own.steps_trained,
                examples_trained=own.examples_trained,
                stopwatch=copy.deepcopy(own.stopwatch),
            )
        except _ReplacedError:
            report = WorkerReport()
        except DamagedFileError as error:
            report = WorkerReport(refused=str(error))
        except OSError as error:  # a disk that is full or gone is no trial's own fault
            why = f"{error.filename or study.folder}: {error.strerror or error}"
            report = WorkerReport(refused=why)
        except Exception as error:
            message = traceback.format_exception_only(error)[-1]
            report = WorkerReport(error=" ".join(message.split()))
        self._let_go()
        return report

    def _resolved(self, assignment: Assignment) -> Study:
        """The study, with this node's data, code and devices.

        Raises:
            UserError: they are not those of the launcher.
        """
        if self._study is None or self._study[0] != assignment:
            study = resolve(
                assignment.config, assignment.folder, assignment.earlier, assignment.same_results
            )
            if names := differing_fields(assignment.found_on, _with_libraries(study)):
                raise UserError(
                    f"what is there differs from the launcher's in {fields_in_words(names)}; have "
                    "the same code, data and libraries on all nodes"
                )
            study = dataclasses.replace(study, lengths_to_come=assignment.lengths_to_come)
            self._let_go()
            self._study = assignment, study
        return self._study[1]

    def _let_go(self) -> None:
        """Frees the devices of trials that nobody goes on with, after an error or for a study."""
        if self._own is not None:
            self._own.live.release()
        self._own = None

    def _check_writer(self, assignment: Assignment, number: int) -> None:
        folder, launcher = assignment.folder, assignment.launcher
        if read_placement(folder, number).attempt != self._attempts[number]:
            raise _ReplacedError
        if launcher is not None and not launcher.is_same(holder(folder)):
            raise _ReplacedError
