"""How many more steps do batches of 32 need than batches of 128, on the digits? Measured.

scripts/launch --config=configs/comparison.py
"""

from budgetflow.config import default_config


def get_config():
    config = default_config("comparison")
    # The most steps that a trial may take.
    config.max_train_steps = 3000
    config.data.name = "digits"
    config.data.batch_size = 128
    config.model.name = "budgetflow.models.MLP"
    config.model.hidden_sizes = (128, 128)
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.comparison.changes = (("data.batch_size", 32),)
    config.comparison.learning_rates = (0.01, 0.03162, 0.1, 0.3162, 1.0)
    return config
