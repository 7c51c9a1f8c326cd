"""Configs of small models for the chains whose outcomes are kept, and chains of one study."""

from conftest import set_fields
from simulation import run_chain

from budgetflow.config import default_config

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
    set_fields(config, fields)
    return config


def several(runs, folder):
    """Chains of one study each, by name: (config, law)."""
    return {config.name: run_chain([config], folder, law)[config.name] for config, law in runs}
