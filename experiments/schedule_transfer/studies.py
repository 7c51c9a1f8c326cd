"""The studies of the experiment: two workloads, and six ways to a longer schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from budgetflow.config import StudyConfig, choices, default_config, parse_config

SEEDS = (0, 1, 2)
# The lengths, in units of round 1; each later round builds on the one before.
FACTORS = (1, 2, 4, 8)
WARMUP = 0.05  # of round 1
LINEAR = {"decay": "linear", "decay_fraction": 0.25, "final_learning_rate_fraction": 0.01}
COSINE = {"decay": "cosine", "final_learning_rate_fraction": 0.01}
RSQRT = {"decay": "inverse_sqrt"}


class Workload(NamedTuple):
    """A title, the steps of round 1, settings by dotted name, and round 1's learning rates.

    The first learning rates are for linear and cosine, the others for rsqrt.
    """

    title: str
    unit: int
    settings: dict[str, Any]
    rates: tuple[float, ...]
    rsqrt_rates: tuple[float, ...]


class Arm(NamedTuple):
    """A title, round 1's schedule, and (unit, factor) -> what a longer round sets of it.

    Where that is nothing, budgetflow's rule carries the schedule over.
    """

    title: str
    round1: dict[str, Any]
    later: Callable[[int, int], dict[str, Any]] = lambda unit, factor: {}


WORKLOADS = {
    "fashion_mnist": Workload(
        "Fashion-MNIST, convolutional network",
        300,
        {
            "data.name": "budgetflow.data.fashion_mnist.fashion_mnist",
            "data.validation_split": "validation[:4000]",
            "data.batch_size": 64,
            "model": {"name": "budgetflow.models.ConvNet", "channels": (8, 16), "hidden_size": 32},
            "optimizer": {"name": "sgd", "momentum": 0.9},
        },
        (0.02, 0.04, 0.08, 0.16),
        (0.04, 0.08, 0.16, 0.32),
    ),
    "characters": Workload(
        "Characters of Python's help topics, transformer",
        400,
        {
            "data.name": "budgetflow.data.text.pydoc_topics",
            "data.input_key": "inputs",
            "data.target_key": "targets",
            "data.batch_size": 16,
            "model": {"name": "budgetflow.models.Transformer", "width": 32, "depth": 2, "heads": 2},
            "task.name": "budgetflow.tasks.LanguageModeling",
            "optimizer": {"name": "adamw", "b1": 0.9, "b2": 0.99},
            "evaluation.batch_size": 64,
        },
        (0.005, 0.01, 0.02, 0.04),
        (0.01, 0.02, 0.04, 0.08),
    ),
}
ARMS = {
    "transferred": Arm("linear, transferred by the rule", LINEAR),
    "proportional": Arm(
        "linear, warmup kept, decay in proportion", LINEAR, lambda unit, factor: LINEAR
    ),
    "stretched": Arm(
        "linear, stretched in proportion",
        LINEAR,
        lambda unit, factor: {**LINEAR, "warmup_fraction": WARMUP},
    ),
    "held": Arm(
        "linear, extra steps at the final rate",
        LINEAR,
        lambda unit, factor: {
            "decay": "linear",
            "decay_steps": round(LINEAR["decay_fraction"] * unit),
            "final_learning_rate_fraction": LINEAR["final_learning_rate_fraction"],
            "final_steps": (factor - 1) * unit,
        },
    ),
    "cosine": Arm("cosine, base kept by the rule", COSINE),
    "rsqrt": Arm("rsqrt, continued", RSQRT, lambda unit, factor: RSQRT),
}


def chain(workload: Workload, name: str, seed: int) -> list[StudyConfig]:
    """Round 1 of an arm and the longer rounds, each of which builds on the one before."""
    arm = ARMS[name]
    configs: list[StudyConfig] = []
    for factor in FACTORS:
        config = default_config("round")
        config.seed = seed
        config.max_train_steps = factor * workload.unit
        config.mesh.trial = 1
        config.evaluation.selection_metric = "loss"
        config.evaluation.train_examples = 16
        with config.unlocked():
            config.update_from_flattened_dict(workload.settings)
        if factor == 1:
            # The arms with a linear decay share their round 1.
            config.name = f"{arm.round1['decay']}_x1"
            config.schedule.update(arm.round1, warmup_steps=round(WARMUP * workload.unit))
            rates = workload.rsqrt_rates if arm.round1 is RSQRT else workload.rates
            config.search.method = "grid"
            config.search.space = (choices("schedule.base_learning_rate", *rates),)
        else:
            config.name = f"{name}_x{factor}"
            config.builds_on = configs[-1].name
            config.search.promote_trials = 1
            config.schedule.update(arm.later(workload.unit, factor))
        configs.append(parse_config(config))
    return configs
