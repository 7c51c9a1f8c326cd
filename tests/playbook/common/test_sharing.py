import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.schedules import Schedule, common_prefix_steps
from budgetflow.playbook.common.shared_steps import (
    WORTH_SHARING,
    Branch,
    branch_steps,
    branches,
    shared_steps,
)

modest = settings(max_examples=80, deadline=None)


@st.composite
def schedules(draw):
    length = draw(st.sampled_from([40, 80, 160]))
    warmup = draw(st.sampled_from([0, 5]))
    decay = draw(st.sampled_from(["linear", "cosine", "1-sqrt"]))
    decay_steps = draw(st.integers(1, length - warmup))
    base = draw(st.sampled_from([0.1, 0.2]))
    return Schedule(base, warmup, length - warmup - decay_steps, decay_steps, decay)


def tree_size(all_schedules, others):
    """How many different (all else, learning rates so far) there are: the steps to train."""
    seen = set()
    for schedule, other in zip(all_schedules, others, strict=True):
        rates = schedule.learning_rates()
        seen |= {(other, rates[: n + 1].tobytes()) for n in range(len(rates))}
    return len(seen)


@modest
@given(st.lists(st.tuples(schedules(), st.sampled_from("ab")), min_size=1, max_size=7))
def test_what_is_trained_is_a_prefix_tree(trials):
    runs, others = zip(*trials, strict=True)
    found = branches(runs, others)
    trained = 0
    for number, branch in enumerate(found):
        trained += runs[number].total_steps
        if branch is None:
            continue
        # What is shared is the same, and the one it is taken from comes before.
        assert branch.trial < number
        assert others[branch.trial] == others[number]
        mine, theirs = (runs[n].learning_rates()[: branch.step] for n in (number, branch.trial))
        np.testing.assert_array_equal(mine, theirs)
        assert branch.step >= WORTH_SHARING * runs[number].total_steps
        assert branch.step in branch_steps(found)[branch.trial]
        trained -= branch.step
    # But for the first update of a decay, and for beginnings too short to wait for.
    least = tree_size(runs, others)
    too_short = sum(
        WORTH_SHARING * r.total_steps for r, b in zip(runs, found, strict=True) if not b
    )
    assert least <= trained <= least + len(runs) + too_short


def test_decay_lengths_share_their_trunk_whatever_the_order():
    lengths = (100, 200, 500)
    for order in (lengths, lengths[::-1]):
        runs = [Schedule(0.1, 0, 1000 - decay, decay, "linear") for decay in order]
        found = branches(runs, ["same"] * 3)
        assert found[0] is None
        trained = 3000 - sum(branch.step for branch in found[1:])
        assert trained == 1000 + 200 + 500
    assert found == [None, Branch(0, 500), Branch(1, 800)]


def test_nothing_is_shared_where_more_than_the_schedule_differs():
    schedule = Schedule(0.1, 0, 100)
    assert branches([schedule] * 2, ["a", "b"]) == [None, None]


def test_a_short_beginning_is_not_worth_waiting_for():
    # Both warm up over 5 of 100 steps, and part there.
    runs = [Schedule(0.1, 5, 0, 95, "cosine"), Schedule(0.1, 5, 0, 95, "linear")]
    assert common_prefix_steps(*runs) > 0
    assert branches(runs, ["same"] * 2) == [None, None]


def test_the_checkpoint_at_the_start_of_the_decay_serves():
    short = Schedule(0.1, 10, 60, 30, "linear")
    long = dataclasses.replace(short, constant_steps=160)
    # The first update of the decay is at the base learning rate, too.
    assert common_prefix_steps(short, long) == 71
    assert shared_steps(short, long) == short.decay_start_step == 70
    constant = Schedule(0.1, 10, 60)
    assert shared_steps(constant, Schedule(0.1, 10, 200)) == 70
