import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.playbook.sweep.race import lockstep_grid


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 10**7))
def test_lockstep_grid_ends_at_n_and_is_fine_enough_everywhere(steps):
    grid = lockstep_grid(steps)
    assert grid[0] == math.ceil(min(10, steps / 40))
    assert grid[-1] == steps
    assert len(grid) >= min(40, steps)
    for before, after in itertools.pairwise(grid):
        assert before < after <= math.ceil(1.15 * before) + 1
        assert after - before <= math.ceil(steps / 40)
