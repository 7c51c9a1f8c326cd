"""A sweep and longer and longer rounds, forecasts with their receipts, and cooldowns."""

from scenario_configs import RATE, WEIGHT_DECAY, config_of
from simulation import annealed, racing, run_chain

from budgetflow.config import choices, log_uniform


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
