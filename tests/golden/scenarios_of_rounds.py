"""Rounds by themselves, and as planned by a budget."""

import pytest
from scenario_configs import DECAY, RATE, WARMUP, WEIGHT_DECAY, config_of, several
from simulation import annealed, run_chain

from budgetflow.base.errors import ConfigError
from budgetflow.config import choices, log_uniform, uniform


def round_plain(folder, monkeypatch):
    """Points of a search space; the best at an end; about the right length; a test split."""
    config = config_of(
        "round",
        "plain",
        max_train_steps=300,
        data__test_split="test",
        schedule__decay="cosine",
        schedule__final_learning_rate_fraction=0.1,
        search__trials=12,
        search__space=(
            log_uniform(RATE, 0.003, 0.1),
            choices(WARMUP, 0.0, 0.05, 0.1),
            uniform("regularization.dropout_rate", 0.0, 0.4),
        ),
    )
    law = annealed(
        best_rate=0.3,
        overfits_after=180,
        diverges=lambda plan: plan.schedule.base_learning_rate > 0.08,
    )
    return run_chain([config], folder, law)


def round_lengths(folder, monkeypatch):
    """Too long, too short, undecided, and every trial diverged."""

    def config(name, steps=200, **fields):
        space = {
            "search__space": (log_uniform(RATE, 0.02, 0.5), log_uniform(WEIGHT_DECAY, 1e-5, 1e-2)),
            "schedule__decay": "linear",
            "schedule__decay_fraction": 0.2,
            "search__trials": 8,
            **fields,
        }
        return config_of("round", name, max_train_steps=steps, **space)

    own = config("hinges_on_decay", schedule__base_learning_rate=0.1, search__method="grid")
    own.search.trials = own.schedule.decay_fraction = None
    own.search.space = (choices("schedule.decay", "linear", "cosine", "1-sqrt", "none"),)
    same = config("same_decays", search__method="grid", evaluation__selection_metric="loss")
    same.search.trials = None
    same.search.space = (choices(DECAY, 0.1, 0.2, 0.3), choices(RATE, 0.1, 0.2))
    return several(
        [
            (
                config("too_long", 4000, evaluation__evaluations=40),
                annealed(overfits_after=150),
            ),
            (config("too_short"), annealed()),
            (config("undecided"), annealed(width=0.3)),
            (config("all_diverged"), annealed(diverges=lambda plan: True)),
            (own, annealed(anneals=8.0)),
            (same, annealed(anneals=0.0)),
        ],
        folder,
    )


def round_higher_is_better(folder, monkeypatch):
    """Selected by the accuracy; with ideas, then derived from, then promoted."""
    accuracy = {
        "task__name": "simulation.WithAccuracy",
        "evaluation__selection_metric": "accuracy",
        "search__seeds": 3,
        "ideas": {
            "clipped": {"clip_gradient_norm": 1.0},
            "nesterov": {"optimizer": {"nesterov": True}},
        },
    }
    first = config_of(
        "round",
        "first",
        max_train_steps=150,
        schedule__decay="linear",
        schedule__decay_fraction=0.2,
        search__trials=8,
        search__space=(log_uniform(RATE, 0.02, 0.5), choices("optimizer.momentum", 0.8, 0.9)),
        **accuracy,
    )
    second = config_of(
        "round",
        "second",
        builds_on="first.py",
        max_train_steps_factor=3.0,
        search__derive=True,
        search__reruns=2,
        search__trials=3,
        **accuracy,
    )

    def factor(plan):
        better = {"clipped": 0.9, "nesterov": 1.1}.get(plan.idea, 1.0)
        return better * (1 + 2 * abs(plan.config.optimizer["momentum"] - 0.9))

    return run_chain([first, second], folder, annealed(factor=factor))


def rounds_planned(folder, monkeypatch):
    """Rounds of growing length by a budget, and what the first one shows."""

    def config(name, budget=8000, **fields):
        values = {
            "rounds__production_steps": 500,
            "rounds__budget_steps": budget,
            "evaluation__evaluations": 4,
            "evaluation__selection_metric": "loss",
            "schedule__decay": "linear",
            "schedule__decay_fraction": 0.2,
            "search__space": (
                log_uniform(RATE, 0.01, 1.0),
                log_uniform(WEIGHT_DECAY, 1e-5, 1e-2),
            ),
            **fields,
        }
        return config_of("rounds", name, **values)

    warmed = config("warmed", 20_000, rounds__num_rounds=3, rounds__first_round_fraction=0.2)
    warmed.evaluation.evaluations = 10
    warmed.search.space = (
        log_uniform(RATE, 0.01, 0.12),
        choices(DECAY, 0.1, 0.2, 0.4),
        uniform(WARMUP, 0.0, 0.2),
        log_uniform(WEIGHT_DECAY, 1e-5, 1e-2),
    )
    warmed.ideas = {"clipped": {"clip_gradient_norm": 1.0}}
    with pytest.raises(ConfigError) as too_small:
        run_chain([config("too_small", 700)], folder, annealed())
    unstable = config("cold", 3000)
    unstable.search.space = (log_uniform(RATE, 0.05, 0.2), uniform(WARMUP, 0.0, 0.2))
    by_value = config("unstable", 3000)
    by_value.search.space = (
        log_uniform(RATE, 0.05, 0.2),
        choices("optimizer.nesterov", True, False, tag="very_likely"),
    )
    undecayed = config(
        "undecayed",
        regime="compute_bound",
        rounds__budget_steps=None,
        rounds__budget_examples=10**6,
    )
    undecayed.schedule.decay = "none"
    undecayed.schedule.decay_fraction = None
    undecayed.search.space = (
        log_uniform(RATE, 0.1, 1.0),
        choices("optimizer.nesterov", True, False),
        choices("regularization.dropout_rate", 0.0, 0.2),
    )

    def cold(plan):
        return plan.schedule.warmup_steps < 0.05 * plan.length_steps

    return {
        "two": run_chain(
            [config("two", 3000, rounds__first_round_fraction=0.04)],
            folder,
            annealed(best_rate=0.003, diverges=lambda plan: plan.schedule.base_learning_rate > 0.5),
        ),
        "one": run_chain([config("one", 4000, rounds__num_rounds=1)], folder, annealed()),
        "warmed": run_chain([warmed], folder, annealed(spikes=cold)),
        "cold": run_chain([unstable], folder, annealed(diverges=cold)),
        "unstable": run_chain(
            [by_value], folder, annealed(diverges=lambda plan: plan.config.optimizer["nesterov"])
        ),
        "undecayed": run_chain([undecayed], folder, annealed(best_rate=5.0)),
        "too_small": str(too_small.value),
    }
