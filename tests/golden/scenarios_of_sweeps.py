"""Sweeps of every outcome, and comparisons, which are made of sweeps."""

import simulation
from scenario_configs import config_of, several
from simulation import racing

from budgetflow.config import log_grid
from budgetflow.studies.kinds import comparison


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
