import gzip

import numpy as np
import pytest

from budgetflow.base.errors import UserError
from budgetflow.engine.data import fashion_mnist as module


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Files of the real format and sizes, with 2x3 pixels an image."""
    module._read.cache_clear()
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.repeat(labels, 6).reshape(count, 2, 3)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (tmp_path / f"{name}-{kind}-ubyte.gz").write_bytes(
                gzip.compress(header + array.tobytes(), compresslevel=1)
            )
    yield tmp_path
    module._read.cache_clear()


def test_splits_do_not_overlap_and_images_keep_their_labels(files):
    sizes = {split: len(module.fashion_mnist(split)) for split in module.SPLITS}
    assert sizes == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert len(module.fashion_mnist("train[:4000]")) == 4000
    for split in ("train[:13]", "validation", "test"):
        for index in (0, 7, 12):
            record = module.fashion_mnist(split)[index]
            assert record["image"].shape == (2, 3, 1)
            assert (record["image"] == record["label"]).all() and record["label"] == index % 10


@pytest.mark.parametrize("split", ["rest", "train[5:10]", "train[:]"])
def test_a_split_that_does_not_exist_is_refused(split):
    with pytest.raises(KeyError, match="train, validation, test"):
        module.fashion_mnist(split)


def test_missing_files_are_named_with_where_to_get_them(files):
    (files / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"train-labels.*dataset-fashion-mnist"):
        module.fashion_mnist("train")
