"""What would shorter runs have given? Decays at three lengths, from one run on the digits.

scripts/launch --config=configs/cooldowns.py

Cost: 3,958 steps instead of 7,196, 4 seconds on 2 cores, after round1.py.
Expect: validation error rates of 0.7 %, 0.7 % and 0.4 % at 1,028, 2,056 and 4,112 steps.
"""

from pathlib import Path

from budgetflow.config import building_on


def get_config():
    # The best hyperparameters of round 1, at its length, twice and four times that.
    config = building_on(Path(__file__).with_name("round1.py"), "cooldowns")
    config.max_train_steps_factor = 4.0
    config.cooldowns.length_fractions = (0.25, 0.5, 1.0)
    config.search.promote_trials = 1
    config.schedule.decay = "linear"
    config.schedule.decay_fraction = 0.2
    return config
