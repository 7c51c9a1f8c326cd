"""A learning-rate sweep of a residual network with batch normalisation, on the digits.

scripts/launch --config=configs/resnet_lr_sweep.py

Cost: 625 steps in all, 8 seconds on 2 cores.
Expect: max_train_steps = 121 at a learning rate of 0.316.
"""

from budgetflow.config import default_config, log_grid


def get_config():
    config = default_config("lr_sweep")
    config.max_train_steps = 1000
    config.sweep.learning_rates = log_grid(0.01, 1.0, 5)
    config.model = {"name": "budgetflow.models.ResNet", "channels": (16, 32), "blocks": 1}
    return config
