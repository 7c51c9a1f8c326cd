"""The chains of studies whose outcomes are kept: a function each, which runs it."""

from __future__ import annotations

import pytest
import simulation
from simulation import annealed, racing, run_chain

from budgetflow.base.errors import ConfigError
from budgetflow.config import choices, default_config, log_grid, log_uniform, uniform
from budgetflow.studies.kinds import comparison

RATE, DECAY = "schedule.base_learning_rate", "schedule.decay_fraction"
WARMUP, WEIGHT_DECAY = "schedule.warmup_fraction", "regularization.weight_decay"


def config_of(kind, name, **fields):
    """A config of a small model; dotted fields with "__" for "."."""
    config = default_config(kind)
    config.name = name
    config.model.hidden_sizes = (8,)
    config.data.name = "simulation.examples"
    config.data.input_key, config.data.target_key = "inputs", "targets"
    config.task.num_classes = 3
    # Too few for a forecast, which takes long; so where it is another thing that is shown.
    config.evaluation.evaluations = 10
    for field, value in fields.items():
        *path, last = field.split("__")
        section = config
        for part in path:
            section = section[part]
        with section.unlocked():
            section[last] = value
    return config


def several(runs, folder):
    """Chains of one study each, by name: (config, law)."""
    return {config.name: run_chain([config], folder, law)[config.name] for config, law in runs}


def sweep_found(folder, monkeypatch):
    """Interior, refined, over several seeds; some diverge; regularization is switched off."""
    refined = config_of(
        "lr_sweep",
        "refined",
        max_train_steps=2000,
        sweep__learning_rates=log_grid(0.003, 3.0, 4),
        sweep__refine=1.5,
        sweep__seeds=3,
        regularization__dropout_rate=0.2,
        augmentation__shift_pixels=1.0,
    )
    # The best of the grid is its lowest, so it is extended downwards.
    extended = config_of(
        "lr_sweep",
        "extended",
        max_train_steps=1500,
        sweep__learning_rates=(0.3, 0.6),
        regime="compute_bound",
    )

    def grid(name, **fields):
        rates = {"sweep__learning_rates": (0.03, 0.1, 0.3), **fields}
        return config_of("lr_sweep", name, max_train_steps=1000, **rates)

    def one_is_lost(plan, step):
        law = racing(falls=0.3) if plan.config.seed == 2 else racing()
        return law(plan, step)

    by_loss = config_of(
        "lr_sweep",
        "by_loss",
        max_train_steps=1000,
        sweep__fitted_train_loss=0.1,
        sweep__learning_rates=(0.03, 0.1, 0.3),
    )
    return several(
        [
            (refined, racing(diverges_above=1.0)),
            (extended, racing(loses_fit=True)),
            (by_loss, racing()),
            (grid("alone"), racing(diverges_above=0.05)),
            (grid("outermost", sweep__max_extensions=0), racing(diverges_above=0.05)),
            (grid("lost", sweep__seeds=3), one_is_lost),
            (grid("equal"), racing(width=1e9, seed_noise=0.0)),
        ],
        folder,
    )


def sweep_contradictions(folder, monkeypatch):
    """Examples that contradict each other: fitted as far as possible, and not fitted."""
    data = {
        "data__name": "simulation.contradicting",
        "data__batch_size": 50,
        "sweep__learning_rates": (0.03, 0.1, 0.3),
    }
    fits = config_of("lr_sweep", "fits", max_train_steps=1000, **data)
    all_but = config_of("lr_sweep", "all_but_fitted", max_train_steps=1000, **data)
    stalled = config_of("lr_sweep", "stalled", max_train_steps=1000, **data)
    impossible = config_of(
        "lr_sweep", "impossible", max_train_steps=500, sweep__fitted_train_loss=0.01, **data
    )
    possible = config_of(
        "lr_sweep", "possible", max_train_steps=1000, sweep__fitted_train_loss=0.5, **data
    )
    return several(
        [
            (fits, racing(lowest=(0.07, 0.1))),
            (all_but, racing(falls=2.0, lowest=(0.1387, 0.1))),
            (stalled, racing(falls=0.02, lowest=(0.5, 0.2))),
            (impossible, racing(falls=1.0, lowest=(0.14, 0.1))),
            (possible, racing(lowest=(0.14, 0.1))),
        ],
        folder,
    )


def sweep_not_fitted(folder, monkeypatch):
    """At the boundary, and each reading of a curve that does not fit."""

    def config(name, steps=2000, **fields):
        rates = {"sweep__learning_rates": (0.03, 0.1, 0.3), **fields}
        return config_of("lr_sweep", name, max_train_steps=steps, **rates)

    return several(
        [
            (
                config("at_boundary", sweep__max_extensions=2),
                racing(steps=50, best_rate=5.0, width=2.0),
            ),
            (config("bad_grid", sweep__max_extensions=1), racing(best_rate=30.0, falls=0.3)),
            (config("too_few_epochs", 200), racing(falls=0.2)),
            (config("too_few_steps", 1), racing(falls=0.2)),
            (config("falling_fast"), racing(falls=0.9)),
            (config("falling_slowly"), racing(falls=0.2)),
            (config("stalled"), racing(falls=0.02)),
            (config("unknown", data__in_memory_bytes=0), racing(falls=0.02)),
            (config("all_diverged"), racing(diverges_above=0.0)),
        ],
        folder,
    )


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


def chain(folder, monkeypatch):
    """A sweep gives the length, a round searches, longer rounds continue its best trials."""
    sweep = config_of(
        "lr_sweep",
        "sweep",
        max_train_steps=1000,
        sweep__learning_rates=(0.03, 0.1, 0.3),
    )
    first = config_of(
        "round",
        "first",
        builds_on="sweep.py",
        max_train_steps_factor=2.0,
        schedule__decay="linear",
        schedule__decay_fraction=0.25,
        schedule__warmup_fraction=0.05,
        data__batch_size=256,
        augmentation__shift_pixels=1.0,
        search__trials=6,
        search__space=(
            log_uniform(RATE, 0.03, 0.3),
            log_uniform(WEIGHT_DECAY, 1e-4, 1e-2),
            choices("model.hidden_sizes", (8,), (16,)),
        ),
    )
    longer = config_of(
        "round",
        "longer",
        builds_on="first.py",
        max_train_steps_factor=2.0,
        data__batch_size=256,
        augmentation__shift_pixels=1.0,
        search__promote_trials=2,
    )
    pitfall = config_of(
        "round",
        "pitfall",
        builds_on="longer.py",
        max_train_steps_factor=2.0,
        data__batch_size=128,
        augmentation__shift_pixels=1.0,
        schedule__decay="exponential",
        schedule__final_learning_rate_fraction=0.01,
        search__promote_trials=1,
    )
    anew = config_of(
        "round",
        "measured_anew",
        builds_on="pitfall.py",
        max_train_steps_factor=2.0,
        data__batch_size=128,
        data__validation_split="test",
        augmentation__shift_pixels=1.0,
        schedule__decay="exponential",
        schedule__final_learning_rate_fraction=0.01,
        search__promote_trials=1,
    )
    law = annealed(best_rate=0.15)
    race = racing()

    def of_both(plan, step):
        return race(plan, step) if plan.config.kind == "lr_sweep" else law(plan, step)

    as_found = config_of(
        "round",
        "no_allowance",
        builds_on="sweep.py",
        regularization__dropout_rate=0.1,
        search__space=(log_uniform(RATE, 0.03, 0.3),),
        search__trials=2,
    )
    return {
        **run_chain([sweep, first, longer, pitfall, anew], folder, of_both, saves=True),
        **run_chain([sweep, as_found], folder / "as_found", of_both),
    }


def forecasts(folder, monkeypatch):
    """Receipts inside and outside of what was forecast, of a run that diverged; and an overfit."""

    def two(name, **fields):
        first = config_of(
            "round",
            f"{name}_first",
            max_train_steps=200,
            evaluation__evaluations=20,
            evaluation__selection_metric="loss",
            schedule__decay="linear",
            schedule__base_learning_rate=0.1,
            search__method="grid",
            search__space=(choices("schedule.decay_steps", 40, 80), choices("seed", 0, 1, 2)),
            **fields,
        )
        second = config_of(
            "round",
            f"{name}_second",
            builds_on="first.py",
            max_train_steps_factor=2.0,
            evaluation__evaluations=20,
            evaluation__selection_metric="loss",
            search__promote_trials=2,
            **fields,
        )
        return [first, second]

    def worse(plan):
        return 1.4 if plan.length_steps == 400 else 1.0

    return {
        "inside": run_chain(two("inside"), folder, annealed()),
        "noisy": run_chain(two("noisy"), folder, annealed(seed_noise=0.02)),
        "outside": run_chain(two("outside"), folder, annealed(factor=worse)),
        "diverged": run_chain(
            two("diverged"), folder, annealed(diverges=lambda plan: plan.length_steps == 400)
        ),
        "overfit": run_chain(two("overfit"), folder, annealed(overfits_after=60)),
    }


def derived(folder, monkeypatch):
    """A longer round derived from a shorter one: its choice held, did not, or cannot be told."""

    def two(name, seeds, reruns=3, **fields):
        ideas = {
            "clipped": {"clip_gradient_norm": 1.0},
            "decayed": {"regularization": {"weight_decay": 0.01}},
            "smoothed": {"regularization": {"label_smoothing": 0.1}},
        }
        first = config_of(
            "round",
            f"{name}_first",
            max_train_steps=100,
            evaluation__evaluations=4,
            evaluation__selection_metric="loss",
            schedule__decay="linear",
            schedule__decay_fraction=0.2,
            search__trials=10,
            search__seeds=seeds,
            search__space=(
                log_uniform(RATE, 0.01, 1.0),
                choices(DECAY, 0.1, 0.2, 0.4),
                uniform("optimizer.momentum", 0.8, 0.98, tag="might"),
                choices("optimizer.nesterov", True, False),
            ),
            ideas=ideas,
        )
        second = config_of(
            "round",
            f"{name}_second",
            builds_on="first.py",
            max_train_steps_factor=4.0,
            evaluation__evaluations=4,
            evaluation__selection_metric="loss",
            search__derive=True,
            search__reruns=reruns,
            search__seeds=seeds,
            search__trials=4,
            ideas=ideas,
            **fields,
        )
        return [first, second]

    def factor(plan):
        return {"clipped": 0.9, "decayed": 1.0, "smoothed": 1.1}.get(plan.idea, 1.0)

    def lower_when_longer(plan):
        at = plan.schedule.base_learning_rate / (0.2 if plan.length_steps == 100 else 0.02)
        return factor(plan) * (1 + 0.3 * abs(at - 1))

    def other_seeds_diverge(plan):
        return plan.length_steps == 400 and plan.role == "rerun" and plan.config.seed == 1

    return {
        "held": run_chain(two("held", 3, reruns=7), folder, annealed(factor=factor)),
        "did_not_hold": run_chain(
            two("moved", 3, 7, search__carry=((DECAY, "pinned"), ("optimizer.nesterov", "swept"))),
            folder,
            annealed(factor=lower_when_longer, width=20.0),
        ),
        "one_seed": run_chain(two("one", 1), folder, annealed(factor=factor)),
        "noisy": run_chain(
            two("noisy", 2),
            folder,
            annealed(factor=factor, seed_noise=0.2, diverges=other_seeds_diverge),
        ),
        "best_diverges": run_chain(
            two("diverging", 3),
            folder,
            annealed(
                factor=factor,
                diverges=lambda plan: plan.length_steps == 400 and plan.role == "best",
            ),
        ),
        "little_noise": run_chain(two("quiet", 2), folder, annealed(width=5.0, seed_noise=0.02)),
        "no_noise": run_chain(two("silent", 3), folder, annealed(factor=factor, seed_noise=0.0)),
        "each_diverges": run_chain(
            two("each", 2),
            folder,
            annealed(
                diverges=lambda plan: (
                    plan.length_steps == 400 and plan.config.seed == 1 and plan.role != "point"
                )
            ),
        ),
        "all_diverge": run_chain(
            two("diverged", 3)[:1], folder, annealed(diverges=lambda plan: plan.idea is not None)
        ),
    }


def derived_fields(folder, monkeypatch):
    """What becomes of fields of every tag; and of one field alone, which moves."""
    wide = config_of(
        "round",
        "wide_first",
        max_train_steps=100,
        evaluation__selection_metric="loss",
        search__trials=24,
        search__space=(
            log_uniform(RATE, 0.05, 0.2),
            choices("schedule.decay", "linear", "cosine"),
            choices(DECAY, 0.1, 0.2, 0.4),
            choices("schedule.warmup_steps", 0, 5, 10),
            choices("model.hidden_sizes", (8,), (16,)),
            uniform("optimizer.momentum", 0.8, 0.98),
            log_uniform(WEIGHT_DECAY, 1e-5, 1e-2, tag="unlikely"),
            uniform("regularization.dropout_rate", 0.0, 0.4, tag="likely"),
            choices("optimizer.nesterov", True, False, tag="very_likely"),
        ),
    )
    longer = config_of(
        "round",
        "wide_second",
        builds_on="first.py",
        max_train_steps_factor=4.0,
        evaluation__selection_metric="loss",
        search__derive=True,
        search__trials=4,
        search__carry=(("regularization.dropout_rate", "narrowed"),),
        search__space=(uniform("optimizer.momentum", 0.5, 0.9),),
    )
    one = config_of(
        "round",
        "one_first",
        max_train_steps=100,
        evaluation__evaluations=4,
        evaluation__selection_metric="loss",
        schedule__decay="linear",
        schedule__decay_fraction=0.2,
        search__trials=8,
        search__space=(log_uniform(RATE, 0.01, 1.0),),
    )
    moved = config_of(
        "round",
        "one_second",
        builds_on="first.py",
        max_train_steps_factor=4.0,
        evaluation__evaluations=4,
        evaluation__selection_metric="loss",
        search__derive=True,
        search__seeds=3,
    )

    def at_the_end(plan):
        return 1 + plan.config.regularization["dropout_rate"]

    def lower_when_longer(plan):
        return plan.schedule.base_learning_rate ** (0.5 if plan.length_steps == 400 else -0.1)

    return {
        "wide": run_chain([wide, longer], folder, annealed(factor=at_the_end)),
        "one": run_chain([one, moved], folder, annealed(factor=lower_when_longer, width=20.0)),
    }


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


def cooldowns(folder, monkeypatch):
    """What every length gives, from trunks that they share; after a round, and by itself."""
    alone = config_of(
        "cooldowns",
        "alone",
        max_train_steps=400,
        schedule__decay="linear",
        schedule__decay_fraction=0.2,
        search__trials=2,
        search__space=(log_uniform(RATE, 0.05, 0.2),),
    )
    by_loss = config_of(
        "cooldowns",
        "by_loss",
        max_train_steps=400,
        evaluation__selection_metric="loss",
        cooldowns__length_fractions=(0.1, 0.3, 1.0),
        schedule__decay="linear",
        schedule__decay_fraction=0.2,
        search__method="grid",
        search__space=(choices(RATE, 0.1), choices("seed", 0, 1, 2)),
    )
    return {
        "alone": run_chain([alone], folder, annealed(), saves=True),
        "by_loss": run_chain([by_loss], folder, annealed(overfits_after=300), saves=True),
        "all_diverged": run_chain(
            [config_of("cooldowns", "diverged", **cooldown_fields())],
            folder,
            annealed(diverges=lambda plan: True),
        ),
    }


def cooldown_fields():
    """Of the shortest cooldowns."""
    return {
        "max_train_steps": 100,
        "schedule__decay": "linear",
        "schedule__decay_fraction": 0.2,
        "search__trials": 1,
        "search__space": (log_uniform(RATE, 0.05, 0.2),),
    }


def comparisons(folder, monkeypatch):
    """A factor with the gradient noise on both sides, and each way in which there is none."""
    monkeypatch.setattr(comparison, "gradient_products", simulation.gradient_products)

    def config(name, changes=(("data.batch_size", 32),), steps=3000, **fields):
        values = {
            "data__batch_size": 128,
            "comparison__changes": changes,
            "comparison__learning_rates": (0.03, 0.1, 0.3),
            **fields,
        }
        return config_of("comparison", name, max_train_steps=steps, **values)

    return several(
        [
            (config("measured"), racing()),
            (config("against", (("regularization.dropout_rate", 0.4),)), racing(dropout=-1.0)),
            (config("larger", (("data.batch_size", 512),)), racing()),
            (
                config(
                    "no_direction",
                    (("optimizer.nesterov", True), ("regularization.dropout_rate", 0.01)),
                ),
                racing(),
            ),
            (config("one_seed", comparison__seeds=1), racing()),
            (config("not_reached", steps=300), racing()),
            (config("neither_reached", steps=100), racing()),
            (config("only_changed", (("data.batch_size", 512),), steps=200), racing()),
            (config("two_seeds", comparison__seeds=2), racing()),
            (config("at_boundary", comparison__refine=None), racing(best_rate=1e5, width=4.0)),
            (config("too_early", comparison__train_loss=2.0), racing()),
            (config("by_loss", comparison__train_loss=0.1), racing()),
        ],
        folder,
    )


NAMES = (
    "sweep_found",
    "sweep_contradictions",
    "sweep_not_fitted",
    "round_plain",
    "round_lengths",
    "round_higher_is_better",
    "chain",
    "forecasts",
    "derived",
    "derived_fields",
    "rounds_planned",
    "cooldowns",
    "comparisons",
)
