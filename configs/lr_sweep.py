"""How many steps does it take to fit the digits perfectly? A learning-rate sweep.

    scripts/launch --config=configs/lr_sweep.py

Cost: 2,343 steps of a small MLP, 4 seconds on 2 cores, most of them for starting and compiling; 3
when launched again elsewhere, since compiled programs are kept.
Expect: max_train_steps = 257 at a learning rate of 0.178. It is one seed's number: with
--config.sweep.seeds=5 the answers are 218 to 257, and their median is 239.
"""

from budgetflow.config import default_config, log_grid


def get_config():
    config = default_config("lr_sweep")
    # The most steps a trial may take; time to the answer hardly depends on it.
    config.max_train_steps = 2000
    config.sweep.learning_rates = log_grid(0.01, 1.0, 9)

    # The workload. The studies that build on this one start from it.
    config.data.name = "digits"
    config.data.batch_size = 64
    config.model.name = "budgetflow.models.MLP"
    config.model.hidden_sizes = (128, 128)
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    # The sweep itself switches these off, and says so.
    config.regularization.dropout_rate = 0.1
    config.augmentation.shift_pixels = 1.0
    return config
