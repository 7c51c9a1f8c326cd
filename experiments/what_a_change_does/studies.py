"""The workloads and the changes whose effect on the number of steps is measured."""

from __future__ import annotations

from typing import Any

from budgetflow.config import StudyConfig, default_config
from budgetflow.studies.kinds import parse_study

BATCH, DROPOUT = "data.batch_size", "regularization.dropout_rate"
# Each beside batches of 128 without dropout.
CHANGES = ((BATCH, 32), (BATCH, 512), (DROPOUT, 0.2), (DROPOUT, 0.5))
CHARACTERS = 32


def shortened(record: dict[str, Any]) -> dict[str, Any]:
    """The first characters of a sequence, for a model that two cores train in a minute."""
    return {name: array[:CHARACTERS] for name, array in record.items()}


MLP = {
    "max_train_steps": 4000,
    "model": {"name": "budgetflow.models.MLP", "hidden_sizes": (128, 128)},
    "comparison.learning_rates": (0.03162, 0.1, 0.3162),
}
CONV = {
    "max_train_steps": 4000,
    "model": {"name": "budgetflow.models.ConvNet", "channels": (8, 16), "hidden_size": 64},
    "comparison.learning_rates": (0.03162, 0.1, 0.3162),
}
CHARACTER_LM = {
    "max_train_steps": 1000,
    "data.name": "budgetflow.data.text.pydoc_topics",
    "data.input_key": "inputs",
    "data.target_key": "targets",
    "data.transform": f"{__name__}.shortened",
    "model": {"name": "budgetflow.models.Transformer", "width": 32, "depth": 1, "heads": 4},
    "task.name": "budgetflow.tasks.LanguageModeling",
    "optimizer": {"name": "adamw", "b1": 0.9, "b2": 0.99},
    "evaluation.selection_metric": "loss",
    "evaluation.train_examples": 512,
    "evaluation.batch_size": 128,
    "comparison.train_loss": 2.4,
    "comparison.seeds": 3,
    "comparison.learning_rates": (0.0025, 0.005, 0.01, 0.02),
    "comparison.refine": None,
}
WORKLOADS: dict[str, dict[str, Any]] = {
    "digits_mlp": MLP,
    "digits_conv": CONV,
    "characters": CHARACTER_LM,
}


def comparison(workload: str, change: tuple[str, Any]) -> StudyConfig:
    """The study that compares a workload with and without a change."""
    field, value = change
    config = default_config("comparison")
    config.name = f"{workload}_{field.partition('.')[2]}_{value}"
    config.data.batch_size = 128
    config.mesh.trial = 1
    config.comparison.changes = (change,)
    config.comparison.seeds = 5
    for name, setting in WORKLOADS[workload].items():
        section, _, key = name.rpartition(".")
        with config.unlocked():
            (config[section] if section else config)[key] = setting
    return parse_study(config)
