"""The real controller over simulated trials: their number, a kill, what a trial costs."""

import dataclasses
import math

import pytest
from conftest import small_config
from etils import epath

from budgetflow.base.files import read_json
from budgetflow.config import log_uniform
from budgetflow.studies.run.controller import run_study
from budgetflow.studies.store.trial import read_trials
from budgetflow.studies.study import Study, resolve
from budgetflow.testing import SimulatedTrials, quadratic, run_simulated_study

# The learning rate with the lowest loss.
BEST_RATE = 0.1


def study_of(trials, folder):
    config = small_config(
        max_train_steps=20,
        evaluation__evaluations=2,
        schedule__decay="linear",
        schedule__decay_fraction=0.5,
        search__trials=trials,
        search__space=(
            log_uniform("schedule.base_learning_rate", BEST_RATE / 10, BEST_RATE * 10),
            log_uniform("regularization.weight_decay", 1e-5, 1e-2),
        ),
    )
    return resolve(config, epath.Path(folder) / config.name, None)


def nearest_rate(study):
    """The trial whose learning rate is the nearest to the best one."""
    rates = {n: p.schedule.base_learning_rate for n, p in enumerate(study.plans)}
    return min(rates, key=lambda n: abs(math.log(rates[n] / BEST_RATE)))


@pytest.mark.parametrize("trials", [60, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_killed_study_goes_on_to_the_outcome_of_one_that_was_not(trials, tmp_path):
    study = study_of(trials, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        run_simulated_study(study, quadratic, stop_after=trials // 2)
    statuses = [record.status for record in read_trials(study.folder)]
    assert statuses.count("complete") == trials // 2
    outcome = run_simulated_study(study, quadratic)
    assert outcome["best_trial"] == nearest_rate(study)
    assert outcome["steps_trained"] == 20 * trials
    whole = study_of(trials, tmp_path / "whole")
    assert run_simulated_study(whole, quadratic) == outcome
    assert read_trials(whole.folder) == read_trials(study.folder)
    assert read_json(study.folder / "outcome.json") == outcome


def decisions(study, monkeypatch):
    """How many decisions a study takes."""
    taken, kind = [], study.kind

    def decide(study, records):
        taken.append(kind.decide(study, records))
        return taken[-1]

    monkeypatch.setattr(Study, "kind", dataclasses.replace(kind, decide=decide))
    run_simulated_study(study, quadratic)
    monkeypatch.undo()
    return len(taken)


def test_the_trials_of_a_round_run_without_a_decision_before_each(tmp_path, monkeypatch):
    few, many = study_of(5, tmp_path / "few"), study_of(50, tmp_path / "many")
    assert decisions(few, monkeypatch) == decisions(many, monkeypatch) == 3


def test_what_a_study_does_is_told(tmp_path):
    """Phases by name; a decision only where trials join others."""
    study, phases, decisions = study_of(3, tmp_path), [], []
    run_study(
        study,
        lambda *_: None,
        live=SimulatedTrials(study, quadratic),
        on_phase=phases.append,
        on_decision=decisions.append,
    )
    assert phases[0] == "compiling" and phases[-1] == "concluding"
    assert phases[1].startswith("training ") and "compiling" not in phases[1:]
    assert set(phases[1:-1]) == {f"training trial {n} to step 20" for n in range(3)}
    assert decisions == []
