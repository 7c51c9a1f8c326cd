"""What bench_input.py reads; a module of its own, so that worker processes find it by its name."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


class Arrays:
    """Records in memory, one at a time."""

    num_classes, scale_uint8 = 10, True

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": index % 10}


class Pictures(tfds.core.GeneratorBasedBuilder):
    """Images that TFDS stores as tensors."""

    VERSION = tfds.core.Version("1.0.0")
    images = ()

    def _info(self):
        features = {
            "image": tfds.features.Tensor(shape=(32, 32, 3), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": ((n, {"image": i, "label": n % 10}) for n, i in enumerate(self.images))}

    def _generate_examples(self):
        raise NotImplementedError


def decode(record):
    """A record with its PNG as an array."""
    return {**record, "image": np.asarray(Image.open(io.BytesIO(record["image"])))}


def random_images(count, side):
    """Images that do not compress to nothing: noise over a gradient."""
    noise = np.random.default_rng(0).integers(0, 64, (count, side, side, 3))
    return (noise + np.arange(side)[:, None] * 128 // side).astype(np.uint8)


def encoded(image):
    """An image as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()


def make_source(name, examples, folder):
    """A source by its name, and what its records go through."""
    if name == "numpy":
        return Arrays(random_images(examples, 32)), None
    if name == "png":
        images = random_images(min(examples, 2000), 128)
        return Arrays([encoded(image) for image in images]), decode
    Pictures.images = random_images(min(examples, 10_000), 32)
    builder = Pictures(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return builder.as_data_source(split="train"), None
