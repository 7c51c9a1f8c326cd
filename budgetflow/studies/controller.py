"""The loop that carries decisions out: ask the policy, advance trials, record what they show.

All that it knows lies in the study's folder. A run that was killed reads the folder and goes on;
what it trains again is deterministic, so the outcome is the one it would have been.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from etils import epath
from jax.sharding import Mesh

from budgetflow import processes
from budgetflow.checkpoints import TrialCheckpoints, steps_to_keep
from budgetflow.config import checks_fit
from budgetflow.files import read_json, write_json
from budgetflow.playbook import wording
from budgetflow.playbook.measurement import Add, Advance, Decision, Status
from budgetflow.playbook.outcomes import Outcome, SweepOutcome
from budgetflow.playbook.sweep_wording import switched_off
from budgetflow.studies.fingerprint import differing_fields, measurement_key
from budgetflow.studies.folder import open_folder
from budgetflow.studies.plans import TrialPlan
from budgetflow.studies.reuse import (
    reasons_to_train_again,
    why_not_reused,
    with_reused_steps,
)
from budgetflow.studies.study import Study, read_outcome, switch_off
from budgetflow.studies.trial import (
    TrialRecord,
    read_trials,
    trial_folder,
    write_trial,
)
from budgetflow.training.mesh import to_all_processes
from budgetflow.training.population import Population
from budgetflow.training.strategy import Strategy, choose_strategy, hardware
from budgetflow.training.timing import Profiler, Stopwatch
from budgetflow.training.trial_run import Measurement, TrialRun, trial_program

# Told after every evaluation: all records, and the steps to train of each trial yet to be added.
OnProgress = Callable[[Iterable[TrialRecord], Sequence[int]], None]


def run_study(
    study: Study,
    on_progress: OnProgress,
    earlier: epath.Path | None = None,
    profile_steps: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Runs a study to its outcome, or reads the outcome if it is complete.

    Args:
        study: the resolved study.
        on_progress: see :data:`OnProgress`.
        earlier: the folder of the study it builds on, for continuing that one's trials.
        profile_steps: the steps of the first trial between which to write a trace.

    Returns:
        What ``outcome.json`` holds.

    Raises:
        UserError: the folder holds another config's results, or something damaged.
    """
    processes.on_main(open_folder, study)
    if (outcome := processes.on_main(read_outcome, study.folder)) is not None:
        return outcome
    return _Controller(study, on_progress, earlier, profile_steps).run()


# A running trial's record is for those who watch: resuming needs it with each save only.
WRITE_EVERY_SECONDS = 1.0


@dataclasses.dataclass
class _LiveTrial:
    """A trial whose state is on the devices; ``run`` is None where those are other processes'."""

    run: TrialRun | None
    state_shapes: Any
    checkpoints: TrialCheckpoints
    position: int
    written_at: float = 0.0

    @property
    def state(self) -> Any:
        """Its train state, or the shapes of it."""
        return self.run.state if self.run else self.state_shapes


class _Controller:
    """Runs one study. On several processes each runs this same code, in step with the others."""

    def __init__(
        self,
        study: Study,
        on_progress: OnProgress,
        earlier: epath.Path | None,
        profile_steps: tuple[int, int] | None,
    ) -> None:
        self._started_at = time.perf_counter()
        self._study = study
        self._on_progress = on_progress
        self._earlier = earlier
        self._stopwatch = Stopwatch()
        with self._stopwatch("calibration"):
            strategy = self._choose_strategy()
        self._population = Population(study.mesh, strategy.trials_at_a_time)
        self._live: dict[int, _LiveTrial] = {}
        self._records = processes.on_main(self._read_records)
        self._profiler = Profiler(str(study.folder / "profile"), profile_steps)
        self._trials_stopwatch = Stopwatch()
        self._steps_trained = 0

    def run(self) -> dict[str, Any]:
        while True:
            decision = processes.on_main(self._decide)
            if isinstance(decision, Add):
                self._records |= processes.on_main(self._add, decision.trials)
            elif isinstance(decision, Advance):
                # A wave at a time: what it shows may spare the other trials some steps.
                self._advance(self._wave(decision.trials), decision.to_step)
            else:
                return self._conclude(decision.outcome).to_json()

    def _choose_strategy(self) -> Strategy:
        """How the trials share the devices: as recorded in the folder, or picked and recorded."""
        path = self._study.folder / "strategy.json"
        asked_for = self._study.config.mesh.trial > 0
        recorded = processes.on_main(lambda: read_json(path) if path.exists() else None)
        mesh = self._study.mesh
        if recorded is not None and not asked_for and recorded["hardware"] == hardware(mesh):
            return Strategy(**recorded)
        plan = self._study.first_plan()
        # Long enough for any timing.
        schedule = dataclasses.replace(plan.schedule, constant_steps=10**5)

        def start_trial(part: Mesh) -> TrialRun:
            fit = checks_fit(self._study.config)
            program = trial_program(plan.config, self._study.dataset, plan.varied, fit, part)
            return TrialRun(plan.config, schedule, self._study.dataset, program)

        strategy = choose_strategy(mesh, asked_for, self._study.expected_steps(), start_trial)
        processes.on_main(write_json, path, dataclasses.asdict(strategy))
        return strategy

    def _plan(self, record: TrialRecord) -> TrialPlan:
        return self._study.plan(record.trial, record.hyperparameters)

    def _decide(self) -> Decision:
        return self._study.decide(self._sorted_records())

    def _sorted_records(self) -> list[TrialRecord]:
        return [self._records[number] for number in sorted(self._records)]

    def _read_records(self) -> dict[int, TrialRecord]:
        return {r.trial: self._resumable(r) for r in read_trials(self._study.folder)}

    def _resumable(self, record: TrialRecord) -> TrialRecord:
        """The record as of the latest checkpoint, if the trial was under way when it was killed."""
        if record.status != "running":
            return record
        saved = TrialCheckpoints(trial_folder(self._study.folder, record.trial)).steps()
        latest = max((step for step in saved if step <= record.step), default=0)
        return record.back_to(latest, self._study.selection)

    def _add(self, trials: dict[int, dict[str, Any]]) -> dict[int, TrialRecord]:
        records = {}
        earlier = [] if self._earlier is None else read_trials(self._earlier)
        for number, hyperparameters in trials.items():
            folder = trial_folder(self._study.folder, number)
            if folder.exists():  # left by a kill before anything was recorded
                folder.rmtree()
            plan = self._study.plan(number, hyperparameters)
            record = TrialRecord(
                trial=number,
                hyperparameters=hyperparameters,
                schedule=plan.schedule,
                seed=plan.config.seed,
                max_train_steps=plan.length_steps,
                reuse_key=plan.state_key(self._study.dataset, self._study.mesh),
                measurement_key=measurement_key(plan.config, self._study.dataset),
            )
            records[number] = with_reused_steps(
                record, self._study.folder, self._sources(plan, earlier),
                functools.partial(self._keep, record), self._study.selection,
            )  # fmt: skip
            if records[number].reused_from is None:
                records[number] = self._with_reason(record, plan)
            write_trial(self._study.folder, records[number])
        return records

    def _with_reason(self, record: TrialRecord, plan: TrialPlan) -> TrialRecord:
        """The record of a trial that was expected to continue another one, with why it does not."""
        branch = plan.branch
        expected = [plan.promoted_from, self._records[branch.trial] if branch else None]
        whys = [why_not_reused(s.reuse_key, record.reuse_key) for s in expected if s is not None]
        return dataclasses.replace(record, not_reused_because=next(filter(None, whys), None))

    def _sources(
        self, plan: TrialPlan, earlier: Iterable[TrialRecord]
    ) -> Iterator[tuple[epath.Path, TrialRecord]]:
        """The trials whose steps a planned one may take over, and their studies' folders."""
        if self._earlier is not None:
            yield from ((self._earlier, record) for record in earlier)
        if plan.branch is not None:
            yield self._study.folder, self._records[plan.branch.trial]

    def _keep(self, record: TrialRecord, rows: Iterable[dict[str, Any]], latest: int) -> set[int]:
        pinned = self._plan(record).pinned
        keep_best = self._study.config.checkpoints.keep_best
        return steps_to_keep(list(rows), self._study.selection.cost, keep_best, pinned, latest)

    def _wave(self, trials: Sequence[int]) -> dict[int, int]:
        """The first of some trials that can run at the same time: trial to slice of the mesh.

        A trial stays on its slice; a new one gets the one with the most room.
        """
        wave: dict[int, int] = {}
        most = self._study.config.mesh.vmap_trials
        room = dict.fromkeys(range(len(self._population.slices)), most)
        for number in trials:
            live = self._live.get(number)
            position = live.position if live else max(room, key=lambda position: room[position])
            if room[position]:
                wave[number] = position
                room[position] -= 1
        return wave

    def _open(self, number: int, position: int) -> None:
        """Puts a trial's state on a slice of the mesh."""
        study, record = self._study, self._records[number]
        plan = self._plan(record)
        mesh = self._population.slices[position]
        program = trial_program(
            plan.config, study.dataset, plan.varied, checks_fit(study.config), mesh
        )
        run = None
        if self._population.is_mine(position):
            run = TrialRun(plan.config, plan.schedule, study.dataset, program)
            run.profiler, self._profiler = self._profiler, Profiler()
        with self._stopwatch("checkpoints"):
            checkpoints = TrialCheckpoints(
                trial_folder(study.folder, number),
                study.config.checkpoints.every_seconds,
                lambda state: to_all_processes(state, study.mesh, position),
            )
            if record.step > 0:
                self._note_conditions(record, plan)
                state = checkpoints.restore(record.step, program.state)
                if run:
                    run.resume(state)
        self._live[number] = _LiveTrial(run, program.state, checkpoints, position)

    def _note_conditions(self, record: TrialRecord, plan: TrialPlan) -> None:
        """Notes if a trial goes on under other conditions: nobody's states are then the same."""
        before = dict(record.reuse_key)
        others = before.pop("resumed_with_another", [])
        now = plan.state_key(self._study.dataset, self._study.mesh)
        if names := sorted({*others, *differing_fields(before, now)}):
            mixed = {**now, "resumed_with_another": names}
            self._records[record.trial] = dataclasses.replace(record, reuse_key=mixed)

    def _advance(self, wave: dict[int, int], to_step: int) -> None:
        """Advances trials, each on its slice, from evaluation to evaluation up to a step."""
        for number, position in wave.items():
            if number not in self._live:
                self._open(number, position)
        trials = tuple(wave)
        self._measure_what_was_taken_over(trials)
        stops = {n: self._study.stops(self._plan(self._records[n])) for n in trials}
        start = min(self._records[number].step for number in trials)
        on_the_way = {s for own in stops.values() for s in own if start < s < to_step}
        for stop in sorted({*on_the_way, to_step}):
            runs = {
                number: self._live[number].run
                for number in trials
                if (stop in stops[number] or stop == to_step)
                and self._records[number].step < stop
                and self._records[number].status != "diverged"
            }
            for number, measurement in self._population.advance(runs, stop).items():
                self._record(number, measurement)
        for number in trials:
            if self._records[number].status != "running":
                self._close(number)

    def _measure_what_was_taken_over(self, trials: Sequence[int]) -> None:
        """Measures the states of trials that took none of their measurements over."""
        records = [self._records[number] for number in trials]
        without = {r.trial: r.step for r in records if r.step > 0 and not r.rows}
        for step in sorted({*without.values()}):
            runs = {number: self._live[number].run for number in without if without[number] == step}
            for number, measurement in self._population.advance(runs, step).items():
                self._record(number, measurement)

    def _record(self, number: int, measurement: Measurement) -> None:
        live = self._live[number]
        before = self._records[number]
        record = before.measured(measurement.row, self._study.selection)
        self._steps_trained += record.step - before.step
        status: Status = (
            "diverged" if measurement.diverged
            else "complete" if record.step == record.max_train_steps
            else "running"
        )  # fmt: skip
        bracket = record.fitted_at_step_bracket or measurement.fitted_at_step_bracket
        record = dataclasses.replace(record, status=status, fitted_at_step_bracket=bracket)
        self._records[number] = record
        is_due = time.monotonic() - live.written_at > WRITE_EVERY_SECONDS
        if status != "diverged":
            with self._stopwatch("checkpoints"):
                keep = self._keep(record, record.rows, record.step)
                is_due |= live.checkpoints.hold(record.step, live.state, keep)
        if status == "running" and is_due:
            # Final statuses are recorded once the final checkpoint is safe.
            self._write(record)
            live.written_at = time.monotonic()
        self._on_progress(self._sorted_records(), self._study.later_steps(self._records))

    def _write(self, record: TrialRecord) -> None:
        if processes.is_main():
            write_trial(self._study.folder, record)

    def _close(self, number: int) -> None:
        """Saves what a trial has to keep and takes it off the devices."""
        live, record = self._live.pop(number), self._records[number]
        with self._stopwatch("checkpoints"):
            live.checkpoints.save(self._keep(record, record.rows, record.step))
            live.checkpoints.finish()
        self._write(record)
        if live.run:
            live.run.profiler.stop()
            self._trials_stopwatch.add(live.run.stopwatch)

    def _conclude(self, outcome: Outcome) -> Outcome:
        study = self._study
        for number, record in self._records.items():
            if record.status == "running":
                self._records[number] = dataclasses.replace(record, status="stopped")
                if number in self._live:
                    self._close(number)
                else:  # resumed at the very step where the race ended
                    self._write(self._records[number])
        outcome = self._completed(outcome)
        if self._steps_trained:
            processes.on_main(self._write_timing)
        processes.on_main(write_json, study.folder / "outcome.json", outcome.to_json())
        return outcome

    def _completed(self, outcome: Outcome) -> Outcome:
        """An outcome with what only the study knows."""
        study, reasons = self._study, list(outcome.reasons)
        added: dict[str, Any] = {}
        if (vectorized := study.config.mesh.vmap_trials) > 1:
            added["vmap_trials"] = vectorized
            reasons.append(wording.vectorized(vectorized))
        if isinstance(outcome, SweepOutcome):
            names = switch_off(study.config)[1]
            if study.dataset.train.is_random:
                names += (f"the randomness of data.transform = {study.config.data.transform}",)
            added["switched_off"] = names
            reasons += [switched_off(names)] if names else []
        elif outcome.best_trial is not None and outcome.best_step is not None:
            reasons += reasons_to_train_again(self._sorted_records())
            if carried := study.round_plans[outcome.best_trial].transfer:
                added["transfer"] = carried.to_json()
                pitfall = carried.pitfall(study.config.transfer.warn_below)
                reasons += [carried.summary(), *([pitfall] if pitfall else [])]
            if study.dataset.test is not None:
                added["best_test"] = self._test(outcome.best_trial, outcome.best_step)
        # With these, nobody who reads an outcome needs the config or the task.
        return dataclasses.replace(
            outcome,
            **added,
            reasons=tuple(reasons),
            fingerprint=study.fingerprint,
            selection_metric=study.config.evaluation.selection_metric,
            higher_is_better=study.selection.higher_is_better,
        )

    def _write_timing(self) -> None:
        """Records how fast this launch trained, and what its time went to on this process."""
        seconds = time.perf_counter() - self._started_at
        side_by_side = sum(map(self._population.is_mine, range(len(self._population.slices))))
        total = Stopwatch()
        total.add(self._stopwatch)
        total.add(self._trials_stopwatch, 1 / side_by_side)
        spent = dict(total.seconds)
        spent["other"] = max(0.0, seconds - sum(spent.values()))
        steps_per_second = self._steps_trained / (spent["training"] + spent["data"])
        timing = {
            "seconds": seconds,
            "steps_trained": self._steps_trained,
            "steps_per_second": steps_per_second,
            "examples_per_second": steps_per_second * self._study.config.data.batch_size,
            "share_of_time": {name: s / seconds for name, s in spent.items()},
        }
        write_json(self._study.folder / "timing.json", timing)

    def _test(self, number: int, step: int) -> dict[str, float]:
        """The test metrics of a trial's checkpoint."""
        self._records[number] = dataclasses.replace(self._records[number], step=step)
        self._open(number, position=0)
        run = self._live[number].run
        test = self._study.dataset.test
        assert test is not None
        metrics = run.evaluate(test) if run else {}
        return processes.gather(metrics)[0]
