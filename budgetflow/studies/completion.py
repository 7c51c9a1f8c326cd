"""What an outcome says beside its decision: conditions, transfer, test metrics. And timing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from budgetflow.studies.kind import switch_off
from budgetflow.studies.live import LiveTrials
from budgetflow.studies.reuse import reasons_to_train_again
from budgetflow.studies.study import Study
from budgetflow.studies.trial import TrialRecord
from budgetflow.training.timing import Stopwatch


def completed(
    study: Study, outcome: dict[str, Any], records: Sequence[TrialRecord], live: LiveTrials
) -> dict[str, Any]:
    """A decision's outcome as ``outcome.json`` holds it.

    Args:
        study: the study.
        outcome: what its policy concluded with.
        records: of its trials, by number.
        live: evaluates the best checkpoint on the test split, if the config names one.
    """
    # With these, nobody who reads an outcome needs the config or the task.
    outcome = {
        **outcome,
        "fingerprint": study.fingerprint,
        "selection_metric": study.config.evaluation.selection_metric,
        "higher_is_better": study.selection.higher_is_better,
    }
    if (vectorized := study.config.mesh.vmap_trials) > 1:
        outcome["vmap_trials"] = vectorized
        outcome["reasons"].append(
            f"Up to {vectorized} trials at a time were vectorized (config.mesh.vmap_trials), "
            "which rounds differently from a trial alone."
        )
    if not study.kind.regularizes:
        outcome["switched_off"] = names = list(switch_off(study.config)[1])
        if study.dataset.train.is_random:
            names.append(f"the randomness of data.transform = {study.config.data.transform}")
        if names:
            outcome["reasons"].append(
                f"Switched off for the sweep: {', '.join(names)}. They add gradient noise, so "
                "with them on more steps may be needed."
            )
    if (step := outcome.get("best_step")) is None:
        return outcome
    best = records[outcome["best_trial"]]
    plan = study.kind.plan(study, best.trial, best.hyperparameters)
    outcome["reasons"] += reasons_to_train_again(records)
    if plan.transfer:
        outcome["transfer"] = plan.transfer.to_json()
        pitfall = plan.transfer.pitfall(study.config.transfer.warn_below)
        outcome["reasons"] += [plan.transfer.summary(), *([pitfall] if pitfall else [])]
    if study.dataset.test is not None:
        live.open(dataclasses.replace(best, step=step), plan, position=0)
        outcome["best_test"] = live.evaluate(best.trial, study.dataset.test)
    return outcome


def timing(
    study: Study, steps_trained: int, seconds: float, stopwatch: Stopwatch
) -> dict[str, Any]:
    """How fast a launch trained, and what its time went to on this process; for ``timing.json``.

    Args:
        study: the study.
        steps_trained: the updates that it made, of all trials.
        seconds: how long it took.
        stopwatch: what it spent on each activity.
    """
    spent = dict(stopwatch.seconds)
    spent["other"] = max(0.0, seconds - sum(spent.values()))
    steps_per_second = steps_trained / (spent["training"] + spent["data"])
    return {
        "seconds": seconds,
        "steps_trained": steps_trained,
        "steps_per_second": steps_per_second,
        "examples_per_second": steps_per_second * study.config.data.batch_size,
        "share_of_time": {name: s / seconds for name, s in spent.items()},
    }
