"""The script that judges config.sweep.stop_hopeless, on some of its races."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from racing_with_proof import FAMILIES, FOLDER, answer, recorded, simulated, steps


def test_recorded_races_have_the_answer_of_the_whole_race_in_fewer_steps():
    races = list(recorded(FOLDER / "curves.json.gz"))
    assert len(races) >= 30
    short = [curves for curves in races if curves.family == "digits_conv_adam"]
    for curves in short:
        exact, found = curves.race(stop_hopeless=False), curves.race(stop_hopeless=True)
        assert answer(found) == answer(exact)
        assert steps(found) < 0.8 * steps(exact)
        assert found.set_aside and not exact.set_aside


@pytest.mark.parametrize("family", FAMILIES)
def test_simulated_races_are_over_and_the_lag_says_where_the_answer_must_be_right(family):
    rng = np.random.default_rng(1)
    for _ in range(3):
        curves = simulated(family, rng)
        exact, found = curves.race(stop_hopeless=False), curves.race(stop_hopeless=True)
        assert exact.best and exact.best.fitted_at_step
        assert answer(found) == answer(exact) or curves.lag_overcome() >= 4
