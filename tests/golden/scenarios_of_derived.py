"""Longer rounds whose search spaces are derived from those of shorter ones."""

from scenario_configs import DECAY, RATE, WEIGHT_DECAY, config_of
from simulation import annealed, run_chain

from budgetflow.config import choices, log_uniform, uniform


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
