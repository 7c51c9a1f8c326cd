"""What an outcome says beside its decision: conditions, transfer, test metrics. And timing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from budgetflow.base.source_code import OWN, framework_source
from budgetflow.config.fields import Changes
from budgetflow.engine.training.timing import Stopwatch
from budgetflow.playbook.common import words as wording
from budgetflow.playbook.common.outcomes import Outcome, TrialsOutcome
from budgetflow.playbook.common.reasons import Sentence
from budgetflow.playbook.rounds.words import (
    could_not_be_trained,
    pitfall,
    trained_again,
    where_extra_steps_go,
)
from budgetflow.playbook.sweep.words import switched_off
from budgetflow.studies.kinds.kind import switch_off
from budgetflow.studies.run.live_trials import LiveTrials
from budgetflow.studies.store.keys import (
    code,
    dependencies,
    differing_fields,
    fields_in_words,
    of_code,
)
from budgetflow.studies.store.recorded_code import with_todays_digests
from budgetflow.studies.store.trial import TrialRecord
from budgetflow.studies.study import Study


def completed(
    study: Study, outcome: Outcome, records: Sequence[TrialRecord], live: LiveTrials
) -> Outcome:
    """An outcome with what only the study knows.

    Args:
        study: the study.
        outcome: what its policy concluded with.
        records: of its trials, by number.
        live: evaluates the best checkpoint on the test split, if the config names one.
    """
    failed = [record for record in records if record.failed]
    sound = [record for record in records if not record.failed]
    outcome = study.kind.finish(study, outcome, sound, live)
    reasons: list[Sentence] = [*study.departures]
    if changed := changed_code(study, sound):
        reasons.append(wording.gone_on(fields_in_words(changed)))
    added: dict[str, Any] = {}
    if not study.kind.regularizes:
        names = switch_off(study.config)[1]
        if study.dataset.train.is_random:
            names += (f"the randomness of data.transform = {study.config.data.transform}",)
        added["switched_off"] = names
        reasons += [switched_off(names)] if names else []
    reasons += trained_again(records)
    reasons += [could_not_be_trained(record) for record in failed]
    if isinstance(outcome, TrialsOutcome) and outcome.best_trial is not None:
        best = next(record for record in records if record.trial == outcome.best_trial)
        plan = study.kind.plan(study, best.trial, best.hyperparameters)
        if plan.transfer:
            added["transfer"] = plan.transfer.to_json()
            reasons.append(where_extra_steps_go(plan.transfer))
            least = study.config.transfer.warn_below
            if plan.transfer.is_pitfall(least):
                reasons.append(pitfall(plan.transfer, least))
        if study.dataset.test is not None:
            assert outcome.best_step is not None
            live.open(dataclasses.replace(best, step=outcome.best_step), plan, position=0)
            added["best_test"] = live.evaluate(best.trial, study.dataset.test)
    # With these, nobody who reads an outcome needs the config or the task.
    return dataclasses.replace(
        outcome,
        **added,
        failed=tuple(record.trial for record in failed) or None,
        fingerprint=study.fingerprint,
        selection_metric=study.config.evaluation.selection_metric,
        higher_is_better=study.selection.higher_is_better,
    ).with_reasons(reasons)


def changed_code(study: Study, records: Sequence[TrialRecord]) -> list[str]:
    """The code that has changed since the study, or any of its trials, was begun: its names."""
    now = dependencies(study.config, study.dataset, Changes.OUTCOME, study.kind.decide)
    names = {*differing_fields(with_todays_digests(study.found_on), now)}
    for record in records:  # who undid a change has trials that ran with it
        config = study.kind.plan(study, record.trial, record.hyperparameters).config
        now = {"code": code(config), OWN: framework_source()}
        names |= {*differing_fields({n: record.reuse_key.get(n) for n in now}, now)}
        names |= {*record.reuse_key.get("resumed_with_another", ())}
    return of_code(sorted(names))


def timing(
    steps_trained: int, examples_trained: int, seconds: float, stopwatch: Stopwatch
) -> dict[str, Any]:
    """How fast a launch trained, and what its time went to on this process; for ``timing.json``.

    Args:
        steps_trained: the updates that it made, of all trials.
        examples_trained: those of all batches.
        seconds: how long it took.
        stopwatch: what it spent on each activity.
    """
    spent = dict(stopwatch.seconds)
    spent["other"] = max(0.0, seconds - sum(spent.values()))
    # Of several processes, this one's devices may have had no trial.
    training = spent.get("training", 0.0) + spent.get("data", 0.0) or seconds
    return {
        "seconds": seconds,
        "steps_trained": steps_trained,
        "steps_per_second": steps_trained / training,
        "examples_per_second": examples_trained / training,
        "share_of_time": {name: s / seconds for name, s in spent.items()},
    }
