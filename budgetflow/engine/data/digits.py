"""scikit-learn's digits as a TensorFlow Datasets builder: 1,797 real images, no download."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SPLIT_SIZES = {"train": 1257, "validation": 270, "test": 270}


class Digits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits, 8x8 pixels, in a fixed stratified train/validation/test split.

    Importing this module makes the data set known to TFDS as ``digits``. Pixels, 0 to 16 in
    scikit-learn, are stored as 0 to 255 like other image data sets'.
    """

    VERSION = tfds.core.Version("1.0.0")
    scale_uint8 = True  # pixels

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of the UCI repository, as scikit-learn ships them.",
            # Not tfds.features.Image, which needs TensorFlow to encode a NumPy array.
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        from sklearn.datasets import load_digits  # scikit-learn takes seconds to import
        from sklearn.model_selection import train_test_split

        labels = load_digits().target
        train, rest = train_test_split(
            np.arange(len(labels)), train_size=SPLIT_SIZES["train"], stratify=labels, random_state=0
        )
        validation, test = train_test_split(
            rest, train_size=SPLIT_SIZES["validation"], stratify=labels[rest], random_state=0
        )
        return {
            name: self._generate_examples(np.sort(indices))
            for name, indices in (("train", train), ("validation", validation), ("test", test))
        }

    def _generate_examples(self, indices: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        for index in indices:
            image = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
            yield int(index), {"image": image[..., None], "label": int(digits.target[index])}
