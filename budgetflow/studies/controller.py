"""The loop that carries decisions out: choose, advance, record, conclude.

All that it knows lies in the study's folder. A run that was killed reads the folder and goes on;
what it trains again is deterministic, so the outcome is the one it would have been.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from etils import epath

from budgetflow import processes, stopping
from budgetflow.checkpoints import TrialCheckpoints
from budgetflow.data.read_ahead import readings
from budgetflow.files import write_json
from budgetflow.playbook.decision_wording import joining_in_words, trials_in_words
from budgetflow.playbook.measurement import Add, Advance, Decision, Status
from budgetflow.playbook.outcomes import Outcome
from budgetflow.studies.completion import completed, timing
from budgetflow.studies.folder import open_folder
from budgetflow.studies.live import LiveTrials
from budgetflow.studies.plans import TrialPlan
from budgetflow.studies.receipts import keep_receipts
from budgetflow.studies.reuse import joining, resumed
from budgetflow.studies.study import Study, read_outcome
from budgetflow.studies.trial import (
    TrialRecord,
    read_trials,
    trial_folder,
    write_outcome,
    write_trial,
)
from budgetflow.training.trial_run import Measurement

# Told after every evaluation: all records, and the steps to train of each trial yet to be added. To
# look at thousands of them every time would take longer than short trials do.
OnProgress = Callable[[Iterable[TrialRecord], Iterable[int]], None]
# Told what begins, such as "compiling", or what was decided, in words.
OnNews = Callable[[str], None]


def _ignore(news: str) -> None:
    pass


def run_study(
    study: Study,
    on_progress: OnProgress,
    profile_steps: tuple[int, int] | None = None,
    live: LiveTrials | None = None,
    *,
    on_phase: OnNews = _ignore,
    on_decision: OnNews = _ignore,
) -> dict[str, Any]:
    """Runs a study to its outcome, or reads the outcome if it is complete.

    Args:
        study: the resolved study.
        on_progress: see :data:`OnProgress`.
        profile_steps: the steps of the first trial between which to write a trace.
        live: what trains the trials, in place of the study's devices.
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
    live = live or LiveTrials(study, profile_steps)
    return _Controller(study, live, started_at, on_progress, on_phase, on_decision).run()


class _Controller:
    """Runs one study. On several processes each runs this same code, in step with the others."""

    def __init__(
        self,
        study: Study,
        live: LiveTrials,
        started_at: float,
        on_progress: OnProgress,
        on_phase: OnNews,
        on_decision: OnNews,
    ) -> None:
        self._started_at = started_at
        self._study = study
        self._on_progress, self._on_phase, self._on_decision = on_progress, on_phase, on_decision
        self._live = live
        self._records: dict[int, TrialRecord] = {}
        self._plans: dict[int, TrialPlan] = {}
        self._records = processes.on_main(self._read_records)
        self._steps_trained = self._examples_trained = 0
        self._training = ""

    def run(self) -> dict[str, Any]:
        while True:
            decision = processes.on_main(self._decide)
            if isinstance(decision, Add):
                if self._records:
                    self._on_decision(joining_in_words(decision.trials, self._records))
                added = processes.on_main(self._add, decision.trials)
                self._records = dict(sorted((self._records | added).items()))
            elif isinstance(decision, Advance):
                self._carry_out(decision)
            else:
                return self._conclude(decision.outcome)

    def _carry_out(self, decision: Advance) -> None:
        """Advances trials wave by wave; one wave only, if it may spare the others some steps."""
        left = dict.fromkeys(decision.trials)
        while left:
            wave = self._live.wave(left)
            self._training = f"training {trials_in_words(wave)} to step {decision.to_step}"
            if self._steps_trained:
                self._on_phase(self._training)
            self._advance(wave, decision.to_step)
            if not decision.unconditional:
                break
            for number in wave:
                del left[number]

    def _plan(self, number: int) -> TrialPlan:
        if number not in self._plans:
            hyperparameters = self._records[number].hyperparameters
            self._plans[number] = self._study.kind.plan(self._study, number, hyperparameters)
        return self._plans[number]

    def _decide(self) -> Decision:
        return self._study.kind.decide(self._study, list(self._records.values()))

    def _read_records(self) -> dict[int, TrialRecord]:
        self._records = {record.trial: record for record in read_trials(self._study.folder)}
        # Those that were under way when the study was killed.
        running = [record for record in self._records.values() if record.status == "running"]
        return self._records | {record.trial: self._resumable(record) for record in running}

    def _resumable(self, record: TrialRecord) -> TrialRecord:
        """The record as of the latest checkpoint, before the first one that is damaged."""
        folder = trial_folder(self._study.folder, record.trial)
        checkpoints = TrialCheckpoints(folder)
        damaged = checkpoints.set_aside_damaged()
        words = (f"step {step} (kept as checkpoints/{step}.damaged)" for step in damaged)
        until = min([*damaged, record.step + 1])
        latest = max((step for step in checkpoints.steps() if step < until), default=0)
        if latest < record.steps_reused:
            # Its own measurements are not those that it took over, at other steps.
            aside = self._study.folder / "damaged" / folder.name
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():
                aside.rmtree()
            folder.rename(aside)
            again = self._join(record.trial, record.hyperparameters)
            words = (f"step {step} (kept in damaged/{folder.name})" for step in damaged)
            again = dataclasses.replace(again, damaged=(*again.damaged, *words))
            write_trial(self._study.folder, again)
            return again
        if latest < record.step or damaged:
            record = dataclasses.replace(record, damaged=(*record.damaged, *words))
            record = record.back_to(latest, self._study.selection)
            write_trial(self._study.folder, record, back=True)
        return record

    def _add(self, trials: dict[int, dict[str, Any]]) -> dict[int, TrialRecord]:
        return {number: self._join(number, values) for number, values in trials.items()}

    def _join(self, number: int, hyperparameters: dict[str, Any]) -> TrialRecord:
        plan = self._study.kind.plan(self._study, number, hyperparameters)
        # One that is added with, or before, the trial to continue trains all steps itself.
        branch = self._records.get(plan.branch.trial) if plan.branch else None
        record = joining(self._study, number, plan, self._sources, branch)
        write_trial(self._study.folder, record)
        return record

    @functools.cached_property
    def _sources(self) -> list[tuple[epath.Path, TrialRecord]]:
        """The trials of the study that this one builds on, which can be continued."""
        folder = self._study.earlier
        return [(folder, record) for record in read_trials(folder)] if folder else []

    def _advance(self, wave: dict[int, int], to_step: int) -> None:
        """Advances trials, each on its slice, from evaluation to evaluation up to a step."""
        study = self._study
        plans = {number: self._plan(number) for number in wave}
        for number, position in wave.items():
            if number not in self._live:
                # The last state of one that was stopped may not have been kept.
                record = processes.on_main(self._resumable, self._records[number])
                self._records[number] = resumed(study, record, plans[number])
                self._live.open(self._records[number], plans[number], position)
        records = [self._records[number] for number in wave]
        # States that were taken over without their measurements.
        unmeasured = {r.trial: r.step for r in records if r.step > 0 and not r.rows}
        for step in sorted({*unmeasured.values()}):
            self._advance_to(step, {n for n in unmeasured if unmeasured[n] == step})
        stops = {number: study.kind.stops(study, plan) for number, plan in plans.items()}
        start = min(record.step for record in records)
        on_the_way = {s for own in stops.values() for s in own if start < s < to_step}
        for stop in sorted({*on_the_way, to_step}):
            due = [
                number
                for number in wave
                if (stop in stops[number] or stop == to_step)
                and self._records[number].step < stop
                and self._records[number].status != "diverged"
            ]
            self._advance_to(stop, due)
        for number in wave:
            if self._records[number].status != "running":
                self._close(number)

    def _advance_to(self, stop: int, trials: Iterable[int]) -> None:
        measured = self._live.advance(list(trials), stop)
        for number, measurement in measured.items():
            if measurement is not None:
                self._record(number, measurement)
        if stopping.is_asked():
            self._stop()

    def _stop(self) -> NoReturn:
        """Saves every trial that is on the devices.

        Raises:
            StoppedError: always.
        """
        for number, record in self._records.items():
            if number in self._live:
                self._live.save_where_it_stands(record, self._plan(number))
                self._write(record)
        raise stopping.StoppedError

    def _record(self, number: int, measurement: Measurement) -> None:
        before = self._records[number]
        record = before.measured(measurement.row, self._study.selection)
        steps = record.step - before.step
        if not self._steps_trained:  # all is compiled by now
            self._on_phase(self._training)
        self._steps_trained += steps
        self._examples_trained += steps * self._plan(number).config.data.batch_size
        status: Status = "running"
        if measurement.diverged:
            status = "diverged"
        elif record.step == record.max_train_steps:
            status = "complete"
        bracket = record.fitted_at_step_bracket or measurement.fitted_at_step_bracket
        record = dataclasses.replace(record, status=status, fitted_at_step_bracket=bracket)
        self._records[number] = record
        # A final status is recorded once the final checkpoint is safe; nobody goes on from a state
        # that diverged.
        if status != "diverged":
            is_due = self._live.hold(record, self._plan(number))
            if is_due and status == "running":
                self._write(record)
        self._on_progress(self._records.values(), self._study.later_steps(self._records))

    def _write(self, record: TrialRecord) -> None:
        if processes.is_main():
            write_trial(self._study.folder, record)

    def _close(self, number: int, save: bool = True) -> None:
        self._live.close(self._records[number], self._plan(number), save)
        self._write(self._records[number])

    def _conclude(self, found: Outcome) -> dict[str, Any]:
        study = self._study
        for number, record in self._records.items():
            if record.status == "running":
                self._records[number] = dataclasses.replace(record, status="stopped")
                if number in self._live:
                    # Nobody continues the others, and training finds their states again.
                    self._close(number, save=study.kind.promotes or number == found.best_trial)
                else:  # resumed at the very step where the race ended
                    self._write(self._records[number])
        self._on_phase("concluding")
        complete = completed(study, found, list(self._records.values()), self._live)
        processes.on_main(keep_receipts, study.folder, complete)
        outcome = complete.to_json()
        if self._steps_trained:
            seconds = time.perf_counter() - self._started_at
            trained = self._steps_trained, self._examples_trained
            spent = timing(*trained, seconds, self._live.stopwatch)
            spent["reading"] = readings((study.dataset.train, study.dataset.validation))
            processes.on_main(write_json, study.folder / "timing.json", spent)
        processes.on_main(write_outcome, study.folder, outcome, self._records.values())
        return outcome
