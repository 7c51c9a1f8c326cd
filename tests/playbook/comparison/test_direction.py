import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetflow.playbook.comparison.direction import NOT_RANDOM, RANDOM, Varied, directions


def way(field, before, after):
    (row,) = directions({field: (before, after)})
    change = row.change
    assert (change.field, change.before, change.after) == (field, before, after) and row.reason
    return change.expected


@pytest.mark.parametrize(
    ("field", "before", "after", "expected"),
    [
        # More gradient noise, and less.
        ("data.batch_size", 256, 64, "more"),
        ("data.batch_size", 64, 256, "fewer"),
        ("regularization.dropout_rate", 0.0, 0.1, "more"),
        ("regularization.dropout_rate", 0.5, 0.1, "fewer"),
        ("augmentation.shift_pixels", 0, 1, "more"),
        ("data.transform", NOT_RANDOM, RANDOM, "more"),
        # Better or worse, or simply another.
        ("optimizer.name", "sgd", "adamw", "either"),
        ("schedule.decay", "none", Varied(("linear",)), "either"),
        ("model.hidden_sizes", [128], [256], "either"),
        ("data.name", "digits", "mnist", "either"),
        ("data.transform", None, "my.flip", "either"),
        ("augmentation.name", "a.b", "c.d", "either"),
        ("precision", "float32", "bfloat16", "either"),
        # No matter.
        ("seed", 0, 1, "none"),
        ("gradient_accumulation", 1, 4, "none"),
        # What a study varies: all of its values lie on one side, or not.
        ("regularization.dropout_rate", 0.0, Varied((0.0, 0.4)), "more"),
        ("regularization.dropout_rate", 0.2, Varied((0.0, 0.4)), "either"),
    ],
)
def test_the_direction_of_a_change(field, before, after, expected):
    assert way(field, before, after) == expected


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_the_way_back_is_the_other_direction(a, b):
    for field in ("data.batch_size", "regularization.dropout_rate", "augmentation.noise_std"):
        if a != b:
            assert {way(field, a, b), way(field, b, a)} == {"more", "fewer"}


def test_what_stays_the_same_is_no_departure():
    assert directions({"data.batch_size": (64, 64), "seed": (0, Varied((0,)))}) == ()
