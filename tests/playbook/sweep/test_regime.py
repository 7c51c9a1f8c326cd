"""What a training curve that does not fit is read as, and how many steps it suggests."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.playbook.sweep import regime
from budgetflow.playbook.sweep.race import SweepSettings, lockstep_grid
from budgetflow.playbook.sweep.regime import MIN_EPOCHS, steps_read
from budgetflow.playbook.sweep.words import curve_reading

modest = settings(max_examples=100, deadline=None)

EXAMPLES = 1000
LENGTHS = st.integers(100, 10**6)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a curve is read as, and the sentence about it."""

    looks_like: str
    regime: str
    suggested_max_train_steps: int | None
    reason: str


def read_training_curve(rows, settings):
    found = regime.read_training_curve(rows, settings)
    reason = curve_reading(found, settings)
    return Reading(found.looks_like, found.regime, found.suggested_max_train_steps, reason)


def read(rows, max_train_steps, num_train_examples=EXAMPLES, epochs=50, **known):
    """The reading of a curve; of 50 epochs, unless told otherwise."""
    steps_per_epoch = max(1, math.floor(max_train_steps / epochs))
    settings = SweepSettings(
        (0.1,), max_train_steps, 8, num_train_examples, steps_per_epoch, **known
    )  # fmt: skip
    return read_training_curve(rows, settings)


def curve(max_train_steps, loss, error_rate=None, evaluations=40):
    steps = sorted(
        {math.ceil(max_train_steps * i / evaluations) for i in range(1, evaluations + 1)}
    )
    return [
        {"step": step, "train_loss": loss(step)}
        | ({} if error_rate is None else {"train_error_rate": error_rate(step)})
        for step in steps
    ]


def power_law(end, max_train_steps, exponent):
    return lambda step: end * (step / max_train_steps) ** -exponent


# A loss that goes as step ** -exponent falls by 1 - 2 ** -exponent while the steps double.
STALLED = st.floats(0, 0.025)  # by less than 2 %
SLOW = st.floats(0.04, 0.4)  # by 3 % to 24 %
FAST = st.floats(0.5, 4)  # by 29 % and more


@modest
@given(LENGTHS, st.floats(1e-3, 10), STALLED, st.floats(0.001, 0.5))
def test_a_stalled_loss_is_a_model_that_cannot_fit(length, loss, exponent, error_rate):
    rows = curve(length, power_law(loss, length, exponent), lambda step: error_rate)
    reading = read(rows, length, EXAMPLES)
    assert reading.looks_like == "model_cannot_fit"
    assert reading.regime == "undecided"
    assert reading.suggested_max_train_steps is None
    assert "stalled" in reading.reason


@modest
@given(LENGTHS, st.floats(1e-3, 10), FAST)
def test_a_rising_loss_is_not_called_falling(length, loss, exponent):
    rows = curve(length, power_law(loss, length, -exponent))
    reading = read(rows, length, EXAMPLES)
    assert reading.looks_like == "model_cannot_fit"
    assert reading.suggested_max_train_steps is None
    assert "still falling" not in reading.reason


@modest
@given(LENGTHS, st.floats(1e-3, 10), SLOW, st.none() | st.floats(0.001, 0.5))
def test_a_loss_that_falls_slowly_is_compute_bound_and_gets_no_number(
    length, loss, exponent, error_rate
):
    law = None if error_rate is None else power_law(error_rate, length, exponent)
    rows = curve(length, power_law(loss, length, exponent), law)
    reading = read(rows, length, EXAMPLES)
    assert reading.looks_like == "compute_bound"
    assert reading.regime == "compute_bound"
    assert reading.suggested_max_train_steps is None
    assert "compute-bound" in reading.reason
    assert "still falling" in reading.reason


@modest
@given(
    length=LENGTHS,
    exponent=FAST,
    error_rate=st.floats(0.002, 0.5),
    examples=st.integers(10**3, 10**7),
)
def test_a_loss_that_falls_fast_is_continued_to_where_it_fits(
    length, exponent, error_rate, examples
):
    law = power_law(error_rate, length, exponent)
    rows = curve(length, power_law(0.1, length, exponent), law)
    reading = read(rows, length, examples)
    fits_at = length * (error_rate / (0.5 / examples)) ** (1 / exponent)
    wanted = min(max(fits_at, 2 * length), 16 * length)
    assert reading.looks_like == "n_too_small"
    assert reading.regime == "undecided"
    assert 0.8 * wanted <= reading.suggested_max_train_steps <= 1.4 * wanted
    assert str(reading.suggested_max_train_steps) in reading.reason


def test_a_loss_that_falls_fast_without_fewer_errors_gets_the_longest_next_run():
    rows = curve(1000, power_law(0.5, 1000, 1), lambda step: 0.3)
    reading = read(rows, 1000, EXAMPLES)
    assert reading.looks_like == "n_too_small"
    assert reading.suggested_max_train_steps == 16_000


@modest
@given(length=LENGTHS, exponent=FAST, loss=st.floats(1e-3, 10))
def test_a_task_without_errors_is_continued_by_its_loss(length, exponent, loss):
    rows = curve(length, power_law(loss, length, exponent))
    reading = read(rows, length, EXAMPLES)
    wanted = min(max(length * 100 ** (1 / exponent), 2 * length), 16 * length)
    assert reading.looks_like == "n_too_small"
    assert 0.8 * wanted <= reading.suggested_max_train_steps <= 1.4 * wanted


@pytest.mark.parametrize("length", [1, 2, 50])
def test_a_single_measurement_is_too_little_to_read(length):
    rows = [{"step": length, "train_loss": 2.3, "train_error_rate": 0.9}]
    reading = read(rows, length, EXAMPLES)
    assert reading.looks_like == "n_too_small"
    assert reading.regime == "undecided"
    assert reading.suggested_max_train_steps > length


def test_no_error_among_the_examples_looked_at_is_not_a_reason_to_give_up():
    # Errors may be counted over a part of a large training set.
    rows = curve(1000, power_law(0.1, 1000, 1), lambda step: 0.1 if step < 900 else 0.0)
    reading = read(rows, 1000, EXAMPLES)
    assert reading.looks_like == "n_too_small"
    assert reading.suggested_max_train_steps >= 2000


@st.composite
def any_rows(draw):
    length = draw(st.integers(1, 10**5))
    count = draw(st.integers(1, 40))
    losses = st.floats(0, 1e6) | st.sampled_from([0.0, 1e-30, 1.0])
    with_errors = draw(st.booleans())
    rows = []
    for i in range(1, count + 1):
        row = {"step": max(1, length * i // count), "train_loss": draw(losses)}
        if with_errors:
            row["train_error_rate"] = draw(st.integers(0, EXAMPLES)) / EXAMPLES
        if not rows or row["step"] > rows[-1]["step"]:
            rows.append(row)
    return length, rows


@modest
@given(
    any_rows(),
    st.floats(0.01, 1000),
    st.sampled_from(
        [
            {},
            {
                "contradicting_examples": 4,
                "lowest_train_errors": 2,
                "lowest_train_loss": 0.5,
                "lowest_evaluated_error_rate": 0.004,
            },
        ]
    ),
)
def test_every_curve_gets_one_consistent_reading(length_and_rows, epochs, known):
    length, rows = length_and_rows
    steps_per_epoch = max(1, math.floor(length / epochs))
    reading = read(rows, length, EXAMPLES, epochs, **known)
    assert reading.looks_like in ("n_too_small", "model_cannot_fit", "compute_bound")
    assert (reading.regime == "compute_bound") == (reading.looks_like == "compute_bound")
    suggested = reading.suggested_max_train_steps
    assert (suggested is not None) == (reading.looks_like == "n_too_small")
    if suggested is not None:
        assert isinstance(suggested, int)
        # To two digits, rounded up.
        at_least = MIN_EPOCHS * steps_per_epoch
        assert max(2 * length, at_least) <= suggested <= 1.1 * max(16 * length, at_least)
    if length < MIN_EPOCHS * steps_per_epoch:
        assert reading.looks_like == "n_too_small"
    assert reading.reason.endswith(".")


@modest
@given(any_rows(), st.sampled_from([2.0**-10, 2.0**10]))
def test_the_unit_of_the_loss_does_not_matter(length_and_rows, factor):
    length, rows = length_and_rows
    scaled = [{**row, "train_loss": row["train_loss"] * factor} for row in rows]
    readings = [read(r, length, EXAMPLES) for r in (rows, scaled)]
    one, other = (dataclasses.replace(reading, reason="") for reading in readings)
    assert one == other


def test_an_error_rate_that_rises_from_zero_has_no_power_law():
    losses, errors = (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.001)
    rows = [
        {"step": step, "train_loss": loss, "train_error_rate": error}
        for step, (loss, error) in enumerate(zip(losses, errors, strict=True), start=1)
    ]
    assert read(rows, 4, EXAMPLES).suggested_max_train_steps == 4 * 16


def test_a_loss_that_counts_as_fitted_is_what_a_curve_is_continued_to():
    # Loss 1 / step, so 0.0005 is reached at step 2000.
    rows = [{"step": s, "train_loss": 1 / s, "train_error_rate": 0.5} for s in range(1, 1001)]
    suggestions = [
        read(rows, 1000, EXAMPLES, fitted_train_loss=threshold).suggested_max_train_steps
        for threshold in (0.0005, 0.0002, 1e-9)
    ]
    assert suggestions[0] == pytest.approx(2000, rel=0.1)
    assert suggestions[1] == pytest.approx(5000, rel=0.1)
    assert suggestions[2] == 16_000


# Short curves.


@modest
@given(
    steps_per_epoch=st.integers(1, 10**5),
    epochs=st.floats(0.01, MIN_EPOCHS - 0.01),
    exponent=st.floats(-1, 0.4),  # rising, stalled, slow
    error_rate=st.floats(0.001, 0.9),
)
def test_a_few_epochs_are_no_sign_of_anything(steps_per_epoch, epochs, exponent, error_rate):
    length = max(1, math.floor(epochs * steps_per_epoch))
    rows = curve(length, power_law(2.0, length, exponent), lambda step: error_rate)
    settings = SweepSettings((0.1,), length, 8, EXAMPLES, steps_per_epoch)
    reading = read_training_curve(rows, settings)
    assert (reading.looks_like, reading.regime) == ("n_too_small", "undecided")
    # Long enough to be read, and never less than twice as long.
    suggested = reading.suggested_max_train_steps
    least = max(MIN_EPOCHS * steps_per_epoch, 2 * length)
    assert least <= suggested <= 1.2 * least + 1
    for told in (
        f"N = {length} ({length / steps_per_epoch:.2g} epoch", str(suggested),
        f"{MIN_EPOCHS} epochs", "compute-bound by choice", "tune in rounds",
    ):  # fmt: skip
        assert told in reading.reason


def test_the_number_of_epochs_decides_whether_a_slow_curve_is_read():
    rows = curve(4000, power_law(2.0, 4000, 0.2), lambda step: 0.3)
    readings = {
        steps: read_training_curve(rows, SweepSettings((0.1,), 4000, 8, EXAMPLES, steps)).regime
        for steps in (4000, 1000, 101, 100, 50)
    }
    assert readings == {
        4000: "undecided", 1000: "undecided", 101: "undecided", 100: "compute_bound",
        50: "compute_bound",
    }  # fmt: skip


@pytest.mark.parametrize("length", [40, 1000, 12345])
@pytest.mark.parametrize("exponent", [0.0, 0.1, 0.3, 2.0])
def test_nothing_is_read_but_at_the_steps_that_are_said_to_be(length, exponent):
    rows = [{"step": step, "train_loss": step**-exponent} for step in lockstep_grid(length)]
    read_at = steps_read(length)
    assert {row["step"] for row in rows} > read_at
    spoilt = [row if row["step"] in read_at else row | {"train_loss": 1e9} for row in rows]
    assert read(spoilt, length) == read(rows, length)
