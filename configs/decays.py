"""Does the result hinge on the decay? Nine decays, which share their steps up to where they begin.

    scripts/launch --config=configs/decays.py

Cost: 3,394 steps instead of 9,252, 5 seconds on 2 cores, after lr_sweep.py.
Expect: validation losses from 0.059 to 0.073, 24 % apart, so that more steps may make the choice
of the decay matter less.
"""

from pathlib import Path

from budgetflow.config import building_on, choices


def get_config():
    config = building_on(Path(__file__).with_name("lr_sweep.py"), "round")
    # Four times the sweep's answer, as in round 1.
    config.max_train_steps_factor = 4.0
    config.evaluation.selection_metric = "loss"
    config.schedule.base_learning_rate = 0.1
    config.schedule.warmup_fraction = 0.05
    config.search.method = "grid"
    config.search.space = (
        choices("schedule.decay", "linear", "cosine", "1-sqrt"),
        choices("schedule.decay_fraction", 0.1, 0.2, 0.5),
    )
    return config
