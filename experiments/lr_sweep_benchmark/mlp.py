"""The benchmark's MLP on digits; run by scripts/bench_lr_sweep.py.

scripts/launch --config=experiments/lr_sweep_benchmark/mlp.py

Cost and result: see the README beside this file.
"""

from budgetflow.config import default_config, log_grid


def get_config():
    config = default_config("lr_sweep")
    config.max_train_steps = 5000
    config.sweep.learning_rates = log_grid(0.003, 3.0, 16)
    config.data.name = "digits"
    config.data.batch_size = 64
    config.model.name = "budgetflow.models.MLP"
    config.model.hidden_sizes = (128, 128)
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    return config
