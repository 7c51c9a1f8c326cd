"""How curves are read where examples contradict each other, so that no training gets to zero."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_regime import EXAMPLES, FAST, SLOW, STALLED, curve, modest, power_law, read

# Examples that contradict each other: an error and a loss that no training gets below.


def with_floor(share_wrong, examples=EXAMPLES):
    """What is known of a training set of which a share must be wrong, each of ten alike."""
    errors = round(share_wrong * examples)
    # One of ten equal examples has another label; a single pair is one of two.
    wrong_of = 10 if errors > 1 else 2
    entropy = -sum(p * math.log(p) for p in (1 / wrong_of, 1 - 1 / wrong_of))
    return {
        "contradicting_examples": wrong_of * errors,
        "lowest_train_errors": errors,
        "lowest_train_loss": entropy * wrong_of * errors / examples,
        "lowest_evaluated_error_rate": errors / examples,
    }


FLOORS = [with_floor(0.1), with_floor(0.001), with_floor(1 / 60_000, 60_000)]


def above(floor, loss, error_rate, length, exponent, examples=EXAMPLES):
    """A curve that falls as a power of the step to the lowest loss and error rate possible."""
    lowest = floor["lowest_train_errors"] / examples
    excess_loss, excess_error = (power_law(e, length, exponent) for e in (loss, error_rate))
    return curve(
        length,
        lambda step: floor["lowest_train_loss"] + excess_loss(step),
        lambda step: lowest + excess_error(step),
    )


@modest
@given(
    floor=st.sampled_from(FLOORS[:2]),
    exponent=FAST,
    loss=st.floats(0.02, 1),
    error_rate=st.floats(0.002, 0.3),
)
def test_a_curve_is_continued_to_the_lowest_error_possible(floor, exponent, loss, error_rate):
    length = 10_000
    rows = above(floor, loss, error_rate, length, exponent)
    reading = read(rows, length, **floor)
    fits_at = length * (error_rate / (0.5 / EXAMPLES)) ** (1 / exponent)
    wanted = min(max(fits_at, 2 * length), 16 * length)
    assert (reading.looks_like, reading.regime) == ("n_too_small", "undecided")
    assert 0.8 * wanted <= reading.suggested_max_train_steps <= 1.4 * wanted


def test_without_knowing_the_floor_the_same_curve_would_be_read_otherwise():
    floor = FLOORS[0]
    rows = above(floor, 0.02, 0.01, 10_000, 1)
    assert read(rows, 10_000).looks_like in ("model_cannot_fit", "compute_bound")
    reading = read(rows, 10_000, **floor)
    assert reading.looks_like == "n_too_small"
    assert "above the lowest possible (0.325)" in reading.reason


@modest
@given(
    st.sampled_from(FLOORS[:2]), st.floats(0.1, 1), st.floats(0.01, 0.3), STALLED | SLOW
)  # fmt: skip
def test_a_curve_far_above_the_floor_is_read_as_one_without(floor, loss, error_rate, exponent):
    above_it = read(above(floor, loss, error_rate, 10_000, exponent), 10_000, **floor)
    plain = curve(10_000, power_law(loss, 10_000, exponent), lambda step: error_rate)
    expected = read(plain, 10_000, contradicting_examples=0)
    assert above_it.looks_like == expected.looks_like
    assert above_it.regime == expected.regime


@modest
@given(
    floor=st.sampled_from([(f, e) for f, e in zip(FLOORS, (1000, 1000, 60_000), strict=True)]),
    exponent=st.floats(-0.01, 0.4),
    with_errors=st.booleans(),
)
def test_a_curve_at_its_floor_is_neither_compute_bound_nor_one_that_cannot_fit(
    floor, exponent, with_errors
):
    known, examples = floor
    loss = known["lowest_train_loss"]
    rows = above(known, 0.01 * loss, 0.4 / examples, 10_000, exponent, examples)
    if not with_errors:
        rows = [{k: row[k] for k in ("step", "train_loss")} for row in rows]
    reading = read(rows, 10_000, examples, **known)
    assert (reading.looks_like, reading.regime) == ("n_too_small", "undecided")
    assert reading.suggested_max_train_steps >= 20_000
    assert "as well fitted as they can be" in reading.reason


def test_an_error_rate_at_its_floor_is_enough():
    # The loss of a large learning rate hovers above the lowest possible one.
    floor = with_floor(0.1)
    rows = curve(10_000, lambda step: 0.4, lambda step: 0.1)
    assert read(rows, 10_000, **floor).looks_like == "n_too_small"
    # The examples evaluated are only the first ones, and may have more errors than all do.
    rows = curve(10_000, lambda step: 0.4, lambda step: 0.13)
    assert read(rows, 10_000, **floor).looks_like == "model_cannot_fit"
    part = floor | {"lowest_evaluated_error_rate": 0.13}
    assert read(rows, 10_000, **part).looks_like == "n_too_small"


@pytest.mark.parametrize(("threshold", "possible"), [(0.3, False), (0.325, False), (0.33, True)])
def test_a_loss_that_is_lower_than_possible_is_told(threshold, possible):
    floor = with_floor(0.1)
    rows = above(floor, 0.1, 0.01, 10_000, 1)
    reading = read(rows, 10_000, **floor, fitted_train_loss=threshold)
    assert (reading.looks_like != "threshold_too_low") is possible
    if not possible:
        assert reading.reason == (
            f"A training loss under {threshold} is impossible: since examples contradict each "
            "other, the lowest is 0.3251. Raise config.sweep.fitted_train_loss above it."
        )
        assert reading.suggested_max_train_steps is None
    else:  # 0.0049 above the lowest, from 0.1 by 1 / step: 20 times the steps, but 16 at most
        assert reading.suggested_max_train_steps == 160_000


@pytest.mark.parametrize(
    ("contradicting", "told"),
    [(None, "whether equal inputs have different labels is not known"), (0, "wrong labels."),
     (200, "200 examples that contradict each other do not explain it")],
)  # fmt: skip
def test_a_stalled_curve_tells_what_labels_could_have_to_do_with_it(contradicting, told):
    rows = curve(10_000, lambda step: 0.5, lambda step: 0.3)
    reading = read(rows, 10_000, contradicting_examples=contradicting)
    assert reading.looks_like == "model_cannot_fit"
    assert reading.reason.endswith(".") and told in reading.reason
    assert ("Contradictory labels" in reading.reason) is (contradicting is None)
