"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) from its four IDX files, without TensorFlow.

Debian and Ubuntu have them as a package: ``apt-get install dataset-fashion-mnist``. Elsewhere, put
the files into a folder and name it in the environment variable FASHION_MNIST_DIR.
"""

from __future__ import annotations

import functools
import gzip
import os
import re
from pathlib import Path

import numpy as np

from budgetflow.base.errors import UserError
from budgetflow.engine.data.records import Columns

DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
# Name of the IDX files, and the part of them that makes the split.
SPLITS = {
    "train": ("train", 0, 50_000),
    "validation": ("train", 50_000, 60_000),
    "test": ("t10k", 0, 10_000),
}


class LabelledImages(Columns):
    """Records with ``image``, uint8 [height, width, 1], and ``label``.

    Attributes:
        num_classes: the number of classes.
        scale_uint8: the inputs are pixels.
    """

    num_classes = 10
    scale_uint8 = True

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__({"image": images[..., None], "label": labels.astype(np.int32)})


def fashion_mnist(split: str) -> LabelledImages:
    """A split, or its first images: "train", "train[:4000]"; the last 10,000 of 60,000 validate.

    For ``config.data.name = "budgetflow.data.fashion_mnist.fashion_mnist"``.

    Raises:
        KeyError: ``split`` is none of these.
        UserError: the files are not there.
    """
    match = re.fullmatch(r"(\w+)(?:\[:(\d+)\])?", split)
    if match is None or match[1] not in SPLITS:
        raise KeyError(f"no split {split!r}; there is {', '.join(SPLITS)}, or as in train[:4000]")
    name, first, last = SPLITS[match[1]]
    if match[2]:
        last = min(last, first + int(match[2]))
    images, labels = (_read(f"{name}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    return LabelledImages(images[first:last], labels[first:last])


@functools.lru_cache(maxsize=4)  # The four files, 55 MB, however many studies read them.
def _read(name: str) -> np.ndarray:
    """An IDX file: two zeros, the type (8: uint8), the number of dimensions, their sizes, data."""
    path = Path(os.environ.get("FASHION_MNIST_DIR", DEBIAN_FOLDER)) / f"{name}.gz"
    if not path.is_file():
        raise UserError(
            f"Fashion-MNIST is not there: no file {path}. On Debian or Ubuntu, apt-get install "
            "dataset-fashion-mnist; elsewhere, name the files' folder in FASHION_MNIST_DIR"
        )
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    sizes = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)
