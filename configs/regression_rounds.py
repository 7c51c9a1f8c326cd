"""Two rounds of a regression, planned from a budget: any task is planned alike.

scripts/launch --config=configs/regression_rounds.py

Cost: 80 trials of 100 steps and 8 of 1,000, 20 seconds on 2 cores.
Expect: a validation error (rmse, in standard deviations of the target) of 0.675, and 0.753 on the
test split; the best step is step 75, so the longer round gains nothing here; whether the first
round's choice held cannot be told from two settings with three seeds.
"""

from budgetflow.config import choices, default_config, log_uniform


def get_config():
    config = default_config("rounds")
    config.rounds.production_steps = 1000
    config.rounds.first_round_fraction = 0.1
    config.rounds.budget_steps = 16_000
    config.data.name = "budgetflow.data.diabetes.diabetes"
    config.data.input_key = "inputs"
    config.data.target_key = "targets"
    config.data.batch_size = 31
    config.data.test_split = "test"
    config.model = {"name": "budgetflow.models.MLP", "hidden_sizes": (64,)}
    config.task.name = "budgetflow.tasks.Regression"
    config.evaluation.selection_metric = "rmse"
    config.schedule.warmup_steps = 10
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.3
    config.search.seeds = 3
    config.search.reruns = 1
    config.search.space = (
        log_uniform("schedule.base_learning_rate", 1e-3, 0.1),
        choices("schedule.decay_fraction", 0.1, 0.3, 0.6),
        choices("regularization.weight_decay", 0.0, 1e-3, 1e-2),
    )
    return config
