import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetflow.data.batches import batch_indices, stream_batches, stream_in_order
from budgetflow.data.source import Split


@given(
    seed=st.integers(0, 2**31),
    num_examples=st.integers(1, 50),
    batch_size=st.integers(1, 60),
    epochs=st.integers(1, 3),
)
@settings(deadline=None)
def test_every_epoch_sees_every_example_once(seed, num_examples, batch_size, epochs):
    steps = -(-epochs * num_examples // batch_size)
    stream = np.concatenate(
        [batch_indices(seed, step, batch_size, num_examples) for step in range(steps)]
    )
    for epoch in range(epochs):
        part = stream[epoch * num_examples : (epoch + 1) * num_examples]
        assert sorted(part) == list(range(num_examples))


def test_a_batch_is_a_function_of_seed_and_step():
    later_first = batch_indices(0, 7, 8, 100), batch_indices(0, 3, 8, 100)
    assert (batch_indices(0, 3, 8, 100) == later_first[1]).all()
    assert (batch_indices(0, 7, 8, 100) == later_first[0]).all()
    assert (batch_indices(0, 3, 8, 100) != batch_indices(1, 3, 8, 100)).any()
    first_epoch, second_epoch = batch_indices(0, 0, 100, 100), batch_indices(0, 1, 100, 100)
    assert (first_epoch != second_epoch).any()


def test_streamed_batches_are_the_ones_in_memory(digits, streamed_digits):
    # 30 batches of 50 go past the end of an epoch; the stream begins in its middle.
    streamed = list(stream_batches(streamed_digits.train, 3, 10, 30, 50))
    assert len(streamed) == 20
    for step, batch in enumerate(streamed, start=10):
        indices = batch_indices(3, step, 50, digits.train.num_examples)
        assert (batch["inputs"] == digits.train.arrays["inputs"][indices]).all()
        assert (batch["targets"] == digits.train.arrays["targets"][indices]).all()


def test_reading_in_order_ends_with_a_smaller_batch():
    records = [{"x": np.float32(i), "y": i} for i in range(7)]
    batches = list(stream_in_order(Split(7, None, records, ("x", "y")), 3))
    assert [len(batch["targets"]) for batch in batches] == [3, 3, 1]
    assert np.concatenate([batch["targets"] for batch in batches]).tolist() == list(range(7))
