import numpy as np
import pytest

from budgetflow.engine.data.diabetes import diabetes


def test_it_is_standardised_by_the_training_split_and_splits_share_nothing():
    splits = {name: diabetes(name) for name in ("train", "validation", "test")}
    assert [len(split) for split in splits.values()] == [310, 66, 66]
    inputs = np.stack([row["inputs"] for row in splits["train"]])
    targets = np.stack([row["targets"] for row in splits["train"]])
    np.testing.assert_allclose(inputs.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(0), 1, atol=1e-5)
    assert targets.mean() == pytest.approx(0, abs=1e-5)
    assert inputs.shape == (310, 10) and inputs.dtype == targets.dtype == np.float32
    rows = {name: {row["inputs"].tobytes() for row in split} for name, split in splits.items()}
    assert not rows["train"] & (rows["validation"] | rows["test"])
    assert not rows["validation"] & rows["test"]
    with pytest.raises(KeyError, match="no split 'valid'"):
        diabetes("valid")
