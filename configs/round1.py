"""Round 1: many short trials on the digits, to find good hyperparameters.

    scripts/launch --config=configs/round1.py

Cost: 16 trials of 1,028 steps, 13 seconds on 2 cores, after lr_sweep.py.
Expect: the best trial (12) at a validation error rate of 0.7 %; the best step in the last 25 % of
training, as in all of the 13 trials that compete with it.
"""

from pathlib import Path

from budgetflow.config import building_on, log_uniform, uniform


def get_config():
    # The workload of lr_sweep.py, which is launched first if it is not complete.
    config = building_on(Path(__file__).with_name("lr_sweep.py"), "round")
    # Augmentation and dropout add gradient noise, which takes more steps than the sweep's answer:
    # 16 times as many to a perfect fit (experiments/what_a_change_does). This costs a quarter.
    config.max_train_steps_factor = 4.0
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.25
    config.schedule.warmup_fraction = 0.05
    config.search.trials = 16
    config.search.space = (
        log_uniform("schedule.base_learning_rate", 0.01, 1.0),
        uniform("optimizer.momentum", 0.8, 0.98),
        log_uniform("regularization.weight_decay", 1e-5, 1e-2),
        uniform("regularization.dropout_rate", 0.0, 0.4),
    )
    return config
