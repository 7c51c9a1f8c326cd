"""The loop that carries decisions out: ask the policy, advance trials, record what they show.

All that it knows lies in the study's folder. A run that was killed reads the folder and goes on;
what it trains again is deterministic, so the outcome is the one it would have been.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from etils import epath

from budgetflow.checkpoints import TrialCheckpoints, steps_to_keep
from budgetflow.files import write_json
from budgetflow.playbook.measurement import Add, Advance, Status
from budgetflow.schedules import common_prefix_steps
from budgetflow.studies.study import Study, open_folder, read_outcome, switch_off
from budgetflow.studies.trial import (
    TrialRecord,
    read_trials,
    trial_folder,
    write_trial,
)
from budgetflow.training.trial_run import Measurement, TrialRun

# Told after every evaluation: all records of the study, and the step that training heads for.
OnProgress = Callable[[Iterable[TrialRecord], int], None]


def run_study(
    study: Study, on_progress: OnProgress, earlier: epath.Path | None = None
) -> dict[str, Any]:
    """Runs a study to its outcome, or reads the outcome if it is complete.

    Args:
        study: the resolved study.
        on_progress: see :data:`OnProgress`.
        earlier: the folder of the study it builds on, for continuing that one's trials.

    Returns:
        What ``outcome.json`` holds.

    Raises:
        UserError: the folder holds another config's results, or something damaged.
    """
    open_folder(study)
    if (outcome := read_outcome(study.folder)) is not None:
        return outcome
    return _Controller(study, on_progress, earlier).run()


@dataclasses.dataclass
class _LiveTrial:
    """A trial whose state is on the device."""

    run: TrialRun
    checkpoints: TrialCheckpoints


class _Controller:
    def __init__(self, study: Study, on_progress: OnProgress, earlier: epath.Path | None) -> None:
        self._study = study
        self._on_progress = on_progress
        self._earlier = earlier
        self._live: dict[int, _LiveTrial] = {}
        self._records = {r.trial: self._resumable(r) for r in read_trials(study.folder)}

    def run(self) -> dict[str, Any]:
        while True:
            decision = self._study.decide([r.view() for r in self._sorted_records()])
            if isinstance(decision, Add):
                for number, hyperparameters in decision.trials.items():
                    self._add(number, hyperparameters)
            elif isinstance(decision, Advance):
                for number in decision.trials:
                    self._advance(number, decision.to_step)
            else:
                return self._conclude(decision.outcome)

    def _sorted_records(self) -> list[TrialRecord]:
        return [self._records[number] for number in sorted(self._records)]

    def _resumable(self, record: TrialRecord) -> TrialRecord:
        """The record as of the latest checkpoint, if the trial was under way when it was killed."""
        if record.status != "running":
            return record
        saved = TrialCheckpoints(trial_folder(self._study.folder, record.trial)).steps()
        latest = max((step for step in saved if step <= record.step), default=0)
        record = record.back_to(latest, self._study.selection_key)
        return dataclasses.replace(record, fitted_at_step_bracket=None)

    def _add(self, number: int, hyperparameters: dict[str, Any]) -> None:
        folder = trial_folder(self._study.folder, number)
        if folder.exists():  # left by a kill before anything was recorded
            folder.rmtree()
        plan = self._study.plan(number, hyperparameters)
        record = TrialRecord(
            trial=number,
            hyperparameters=hyperparameters,
            schedule=plan.schedule,
            seed=plan.config.seed,
            max_train_steps=self._study.max_train_steps,
            trajectory=plan.trajectory(),
        )
        if plan.continues is not None and self._earlier is not None:
            record = self._reuse(record, plan.continues, self._earlier)
        self._records[number] = record
        write_trial(self._study.folder, record)

    def _reuse(self, record: TrialRecord, source: TrialRecord, earlier: epath.Path) -> TrialRecord:
        """Takes over the states that an earlier trial went through and this one would repeat.

        That is every state up to the last checkpoint before the schedules part, if nothing
        but the schedule differs between the two trials.
        """
        if source.trajectory != record.trajectory:
            return record
        shared = common_prefix_steps(source.schedule, record.schedule)
        theirs = trial_folder(earlier, source.trial)
        saved = [step for step in TrialCheckpoints(theirs).steps() if step <= shared]
        if not saved:
            return record
        step = max(saved)
        rows = tuple(row for row in source.rows if row["step"] <= step)
        keep = self._keep(record, rows, step) & set(saved)
        TrialCheckpoints(trial_folder(self._study.folder, record.trial)).adopt(theirs, sorted(keep))
        reused_from = {"study": earlier.name, "trial": source.trial, "step": step}
        record = dataclasses.replace(record, rows=rows, status="running", reused_from=reused_from)
        return record.back_to(step, self._study.selection_key)

    def _keep(self, record: TrialRecord, rows: Iterable[dict[str, Any]], latest: int) -> set[int]:
        pinned = self._study.pinned(record.schedule)
        keep_best = self._study.config.checkpoints.keep_best
        return steps_to_keep(list(rows), self._study.selection_key, keep_best, pinned, latest)

    def _open(self, record: TrialRecord) -> _LiveTrial:
        study, plan = self._study, self._study.plan(record.trial, record.hyperparameters)
        checks_fit = study.config.kind == "lr_sweep"
        run = TrialRun(plan.config, plan.schedule, study.dataset, plan.varied, checks_fit)
        checkpoints = TrialCheckpoints(
            trial_folder(study.folder, record.trial), study.config.checkpoints.every_seconds
        )
        if record.step > 0:
            run.resume(checkpoints.restore(record.step, run.state))
        return _LiveTrial(run, checkpoints)

    def _advance(self, number: int, to_step: int) -> None:
        record = self._records[number]
        if number not in self._live:
            self._live[number] = self._open(record)
        live = self._live[number]
        for stop in self._study.stops(record.schedule):
            record = self._records[number]
            if record.status != "diverged" and record.step < stop <= to_step:
                self._record(number, live, live.run.advance(stop))
        if self._records[number].status != "running":
            self._close(number)

    def _record(self, number: int, live: _LiveTrial, measurement: Measurement) -> None:
        record = self._records[number].measured(measurement.row, self._study.selection_key)
        status: Status = (
            "diverged" if measurement.diverged
            else "complete" if record.step == record.max_train_steps
            else "running"
        )  # fmt: skip
        bracket = record.fitted_at_step_bracket or measurement.fitted_at_step_bracket
        record = dataclasses.replace(record, status=status, fitted_at_step_bracket=bracket)
        self._records[number] = record
        if status == "running":
            # Final statuses are recorded once the final checkpoint is safe.
            write_trial(self._study.folder, record)
        if status != "diverged":
            keep = self._keep(record, record.rows, record.step)
            live.checkpoints.hold(record.step, live.run.state, keep)
        self._on_progress(self._sorted_records(), record.max_train_steps)

    def _close(self, number: int) -> None:
        """Saves what a trial has to keep and takes it off the device."""
        live, record = self._live.pop(number), self._records[number]
        live.checkpoints.save(self._keep(record, record.rows, record.step))
        live.checkpoints.finish()
        write_trial(self._study.folder, record)

    def _conclude(self, outcome: dict[str, Any]) -> dict[str, Any]:
        study = self._study
        for number, record in self._records.items():
            if record.status == "running":
                self._records[number] = dataclasses.replace(record, status="stopped")
                if number in self._live:
                    self._close(number)
                else:  # resumed at the very step where the race ended
                    write_trial(study.folder, self._records[number])
        outcome = {**outcome, "fingerprint": study.fingerprint}
        if study.config.kind == "lr_sweep":
            outcome["switched_off"] = names = list(switch_off(study.config)[1])
            if names:
                outcome["reasons"].append(
                    f"Switched off for the sweep: {', '.join(names)}. They add gradient noise, so "
                    "with them on more steps may be needed."
                )
        elif (best := outcome["best_trial"]) is not None:
            carried = study.round_plans[best].transfer
            outcome["transfer"] = carried.to_json() if carried else None
            if study.dataset.test is not None:
                outcome["best_test"] = self._test(best, outcome["best_step"])
        write_json(study.folder / "outcome.json", outcome)
        return outcome

    def _test(self, number: int, step: int) -> dict[str, float]:
        """The test metrics of a trial's checkpoint."""
        record = dataclasses.replace(self._records[number], step=step)
        assert self._study.dataset.test is not None
        return self._open(record).run.evaluate(self._study.dataset.test)
