import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.engine.data.batches import batch_indices, stream_batches, stream_in_order
from budgetflow.engine.data.records import Split


@given(
    seed=st.integers(0, 2**31),
    num_examples=st.integers(1, 50),
    batch_size=st.integers(1, 60),
    epochs=st.integers(1, 3),
)
@settings(deadline=None)
def test_every_epoch_sees_every_example_once(seed, num_examples, batch_size, epochs):
    steps = -(-epochs * num_examples // batch_size)
    stream = batch_indices(seed, 0, steps, batch_size, num_examples).reshape(-1)
    for epoch in range(epochs):
        part = stream[epoch * num_examples : (epoch + 1) * num_examples]
        assert sorted(part) == list(range(num_examples))


def test_a_batch_is_a_function_of_seed_and_step():
    later_first = batch_indices(0, 7, 8, 8, 100), batch_indices(0, 3, 4, 8, 100)
    assert (batch_indices(0, 3, 4, 8, 100) == later_first[1]).all()
    assert (batch_indices(0, 7, 8, 8, 100) == later_first[0]).all()
    # Alone or in a row with others.
    assert (batch_indices(0, 3, 20, 8, 100)[4] == later_first[0]).all()
    assert (batch_indices(0, 3, 4, 8, 100) != batch_indices(1, 3, 4, 8, 100)).any()
    first_epoch, second_epoch = batch_indices(0, 0, 2, 100, 100)
    assert (first_epoch != second_epoch).any()


@pytest.mark.parametrize("rows", [np.arange(50), np.arange(10, 30), np.asarray([0, 1, 48])])
def test_streamed_batches_are_the_ones_in_memory(digits, streamed_digits, rows):
    # 30 batches of 50 go past the end of an epoch; the stream begins in its middle.
    streamed = list(stream_batches(streamed_digits.train, 3, 10, 30, 50, rows))
    assert len(streamed) == 20
    indices = batch_indices(3, 10, 30, 50, digits.train.num_examples)
    for batch, chosen in zip(streamed, indices, strict=True):
        assert (batch["inputs"] == digits.train.arrays["inputs"][chosen[rows]]).all()
        assert (batch["targets"] == digits.train.arrays["targets"][chosen[rows]]).all()


def test_reading_in_order_fills_the_last_batch_from_the_start():
    source = [{"x": np.float32(i), "y": i} for i in range(7)]
    split = Split("numbers", 7, source, ("x", "y"))
    batches = list(stream_in_order(split, 3, 7, np.arange(3)))
    assert [batch["targets"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    # Another host's share, and only the first five examples.
    batches = list(stream_in_order(split, 4, 5, np.asarray([2, 3])))
    assert [batch["targets"].tolist() for batch in batches] == [[2, 3], [1, 2]]
