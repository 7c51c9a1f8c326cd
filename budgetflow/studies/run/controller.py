"""The loop that has decisions carried out: choose, advance, record, conclude.

All that it knows lies in the study's folder. A run that was killed reads the folder and goes on;
what it trains again is deterministic, so the outcome is the one it would have been.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from budgetflow.base import processes
from budgetflow.base.files import write_json
from budgetflow.engine.data.read_ahead import readings
from budgetflow.engine.training.timing import Stopwatch
from budgetflow.playbook.common.decision_words import joining_in_words
from budgetflow.playbook.common.measurement import Add, Advance
from budgetflow.playbook.common.outcomes import Outcome
from budgetflow.studies.run.completion import timing
from budgetflow.studies.run.live_trials import LiveTrials
from budgetflow.studies.run.own_devices import OwnDevices
from budgetflow.studies.store.folder import open_folder
from budgetflow.studies.store.receipts import keep_receipts
from budgetflow.studies.store.trial import TrialRecord, read_outcome, write_outcome
from budgetflow.studies.study import Study

# Told after every evaluation: all records, and the steps to train of each trial yet to be added. To
# look at thousands of them every time would take longer than short trials do.
OnProgress = Callable[[Iterable[TrialRecord], Iterable[int]], None]
# Told what begins, such as "compiling", or what was decided, in words.
OnNews = Callable[[str], None]


class TrialExecutor(Protocol):
    """Who carries decisions out; see :class:`budgetflow.studies.run.own_devices.OwnDevices`."""

    records: dict[int, TrialRecord]
    steps_trained: int
    examples_trained: int
    stopwatch: Stopwatch

    def read(self) -> None:
        """Reads all records from the study's folder."""
        ...

    def add(self, trials: dict[int, dict[str, Any]]) -> None:
        """Has trials join the study, by number and hyperparameters."""
        ...

    def advance(self, decision: Advance) -> None:
        """Advances some or all of these trials, until there is something new to decide on."""
        ...

    def wait(self) -> bool:
        """Waits for a trial that advances meanwhile; whether there was one."""
        ...

    def conclude(self, outcome: Outcome) -> Outcome:
        """The outcome that a policy has found, completed."""
        ...


# (study, called after every measurement, told what begins) -> who carries its decisions out.
ExecutorFactory = Callable[[Study, Callable[[], None], OnNews], TrialExecutor]


def run_study(
    study: Study,
    on_progress: OnProgress,
    profile_steps: tuple[int, int] | None = None,
    live: LiveTrials | None = None,
    new_executor: ExecutorFactory | None = None,
    *,
    on_phase: OnNews = lambda news: None,
    on_decision: OnNews = lambda news: None,
) -> dict[str, Any]:
    """Runs a study to its outcome, or reads the outcome if it is complete.

    Args:
        study: the resolved study.
        on_progress: see :data:`OnProgress`.
        profile_steps: the steps of the first trial between which to write a trace.
        live: what trains the trials, in place of the study's devices; its maker's to let go.
        new_executor: who carries decisions out, in place of this run.
        on_phase: told what the study begins to do, which may take long.
        on_decision: told which trials join it, and why.

    Returns:
        What ``outcome.json`` holds.

    Raises:
        UserError: the folder holds another config's results, or something damaged.
    """
    processes.on_main(open_folder, study)
    if (outcome := processes.on_main(read_outcome, study.folder)) is not None:
        return outcome
    started_at = time.perf_counter()
    on_phase("compiling")

    def on_measured() -> None:
        on_progress(executor.records.values(), study.later_steps(executor.records))

    with contextlib.ExitStack() as at_the_end:
        if new_executor is not None:
            executor = new_executor(study, on_measured, on_phase)
        else:
            live = live or at_the_end.enter_context(LiveTrials(study, profile_steps))
            executor = OwnDevices(study, live, on_measured, on_phase)
        executor.read()
        while True:
            decision = processes.on_main(study.kind.decide, study, list(executor.records.values()))
            if isinstance(decision, Add):
                if executor.records:
                    on_decision(joining_in_words(decision.trials, executor.records))
                executor.add(decision.trials)
            elif isinstance(decision, Advance):
                executor.advance(decision)
            elif not executor.wait():
                complete = executor.conclude(decision.outcome)
                break
    keep_receipts(study.folder, complete)
    if executor.steps_trained:
        _write_timing(study, executor, time.perf_counter() - started_at)
    outcome = complete.to_json()
    processes.on_main(write_outcome, study.folder, outcome, executor.records.values())
    return outcome


def _write_timing(study: Study, executor: TrialExecutor, seconds: float) -> None:
    spent = timing(executor.steps_trained, executor.examples_trained, seconds, executor.stopwatch)
    spent["reading"] = readings((study.dataset.train, study.dataset.validation))
    processes.on_main(write_json, study.folder / "timing.json", spent)
