"""Round 2: the two best trials of round 1, four times as long, for the final model.

scripts/launch --config=configs/round2.py
"""

from pathlib import Path

from budgetflow.config import building_on


def get_config():
    config = building_on(Path(__file__).with_name("round1.py"), "round")
    config.max_train_steps_factor = 4.0
    config.search.promote_trials = 2
    # The one study that looks at the test split: it yields the final model.
    config.data.test_split = "test"
    return config
