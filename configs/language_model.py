"""A small character-level language model on Python's own help topics, which is compute-bound.

scripts/launch --config=configs/language_model.py

Cost: 4 trials of 400 steps, 77 seconds on 2 cores.
Expect (on Python 3.11; the text is Python's own and differs by version): a validation loss of 1.99
nats a character at a learning rate of 0.0051, neither the highest nor the lowest of the four.
"""

from budgetflow.config import default_config, log_uniform


def get_config():
    config = default_config("round")
    config.max_train_steps = 400
    config.data.name = "budgetflow.data.text.pydoc_topics"
    config.data.input_key = "inputs"
    config.data.target_key = "targets"
    config.data.batch_size = 16
    config.model = {"name": "budgetflow.models.Transformer", "width": 64, "depth": 2, "heads": 4}
    config.task.name = "budgetflow.tasks.LanguageModeling"
    config.optimizer = {"name": "adamw", "b1": 0.9, "b2": 0.99}
    config.evaluation.selection_metric = "loss"
    config.evaluation.train_examples = 200
    config.schedule.warmup_fraction = 0.05
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.25
    config.search.trials = 4
    config.search.space = (log_uniform("schedule.base_learning_rate", 1e-3, 1e-2),)
    return config
