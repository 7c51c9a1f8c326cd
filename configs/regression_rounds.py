"""Two rounds of a regression, planned from a budget: any task is planned alike.

scripts/launch --config=configs/regression_rounds.py

Cost: see below.
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
        choices("regularization.weight_decay", 0.0, 1e-3, 1e-2),
    )
    return config
