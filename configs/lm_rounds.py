"""Two rounds of a character-level language model, planned from a budget, with an idea.

scripts/launch --config=configs/lm_rounds.py
scripts/launch --config=configs/lm_rounds.py --dry_run

Cost: 20 trials of 80 steps and 10 of 400, 8:00 minutes on 2 cores beside other work.
Expect (on Python 3.11; the text is Python's own and differs by version): clipping is promoted by
the first round (3.4 % lower loss, p = 0.01 over 3 seeds) and not better by more than the noise in
the second (2.2 %, p = 0.15); whether the first round's choice held cannot be told from two settings
(it is still the best with a probability of 78 %); a validation loss of 1.921 nats a character. The
first round forecasts 2.25 (2.02 to 2.50) for its trial 6 at 400 steps, 0.21 (-0.04 to 0.44) less
than at 80, and 2.045 comes: inside, and 9.8 % lower; what twice the 400 steps would give cannot be
told by the second.
"""

from budgetflow.config import choices, default_config, log_uniform


def get_config():
    config = default_config("rounds")
    config.rounds.production_steps = 400
    config.rounds.first_round_fraction = 0.2
    config.rounds.budget_steps = 5600
    config.rounds.last_round_share = 0.7
    config.data.name = "budgetflow.data.text.pydoc_topics"
    config.data.input_key = "inputs"
    config.data.target_key = "targets"
    config.data.batch_size = 16
    config.model = {"name": "budgetflow.models.Transformer", "width": 64, "depth": 2, "heads": 4}
    config.task.name = "budgetflow.tasks.LanguageModeling"
    config.optimizer = {"name": "adamw", "b1": 0.9, "b2": 0.99}
    config.evaluation.selection_metric = "loss"
    config.evaluation.evaluations = 20
    config.evaluation.train_examples = 200
    config.schedule.base_learning_rate = 5e-3
    config.schedule.warmup_steps = 20
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.2
    config.search.seeds = 3
    config.search.reruns = 1
    config.search.space = (
        log_uniform("schedule.base_learning_rate", 1e-3, 2e-2),
        choices("optimizer.b2", 0.95, 0.99),
        choices("schedule.decay_fraction", 0.1, 0.2, 0.4),
    )
    config.ideas = {"clipped": {"clip_gradient_norm": 1.0}}
    return config
