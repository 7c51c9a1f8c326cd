import io
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import run
from PIL import Image
from sklearn.datasets import load_digits

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.config import default_config, parse_config
from budgetflow.engine.data.digits import SPLIT_SIZES
from budgetflow.engine.data.source import load_dataset
from budgetflow.studies.study import study_dataset


class TinySource:
    """A random-access source of a user's own."""

    num_classes = 3

    def __init__(self, split):
        if split not in ("train", "validation"):
            raise KeyError(f"no split {split!r}")
        self._size = 12 if split == "train" else 5

    def __len__(self):
        return self._size

    def __getitem__(self, index):
        return {"image": np.full((2, 2, 1), index, np.float32), "label": index % 3}


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """A TFDS data set that is not budgetflow's."""

    VERSION = tfds.core.Version("2.0.0")

    def _info(self):
        features = {
            "picture": tfds.features.Tensor(shape=(3, 3, 1), dtype=np.float32),
            "kind": tfds.features.ClassLabel(names=["cat", "dog"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("picture", "kind"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

    def _generate_examples(self, count):
        for index in range(count):
            picture = np.full((3, 3, 1), index, np.float32)
            yield index, {"picture": picture, "kind": index % 2}


def test_any_tfds_data_set_by_name_with_its_own_keys_and_splits(tmp_path):
    dataset = load_dataset("tiny_pictures", "train[:80%]", "train[80%:]", "test", str(tmp_path))
    assert [s.num_examples for s in (dataset.train, dataset.validation, dataset.test)] == [16, 4, 6]
    assert dataset.num_classes == 2
    arrays = [split.arrays for split in (dataset.train, dataset.validation)]
    seen = np.concatenate([a["inputs"][:, 0, 0, 0] for a in arrays])
    assert sorted(seen) == list(range(20))
    for part in arrays:
        assert (part["inputs"][:, 0, 0, 0] % 2 == part["targets"]).all()


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    """A TFDS data set of image files, or of arrays, which TFDS encodes by TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="files", version="1.0.0"),
        tfds.core.BuilderConfig(name="arrays", version="1.0.0"),
    ]

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "validation": self._generate_examples()}

    def _generate_examples(self):
        for index in range(6):
            image = np.full((4, 4, 3), 40 * index, np.uint8)
            if self.builder_config.name == "files":
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, format="png")
                image = io.BytesIO(buffer.getvalue())
            yield index, {"image": image, "label": index % 2}


def test_encoded_images_are_read_without_tensorflow(tmp_path):
    dataset = load_dataset("tiny_photos/files", "train", "validation", None, str(tmp_path))
    pixels = sorted(dataset.train.arrays["inputs"][:, 0, 0, 0].tolist())
    assert pixels == [0, 40, 80, 120, 160, 200]
    assert "tensorflow" not in sys.modules


class VaryingPhotos(TinyPhotos):
    """Photos of any size."""

    BUILDER_CONFIGS: ClassVar = []

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _generate_examples(self):
        for index in range(12):
            image = np.full((3 + index, 5, 3), 20 * index, np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="png")
            yield index, {"image": io.BytesIO(buffer.getvalue()), "label": index % 2}


def resized(record):
    image = Image.fromarray(record["image"]).resize((4, 4))
    return {**record, "image": np.asarray(image)}


def test_photos_of_varying_size_are_trained_on_through_a_transform(tmp_path):
    with pytest.raises(ConfigError, match=r"holds inputs uint8.*config\.data\.transform can"):
        load_dataset("varying_photos", "train", "validation", None, str(tmp_path))
    config = default_config("round")
    config.name, config.max_train_steps = "photos", 10
    config.data.name, config.data.data_dir = "varying_photos", str(tmp_path / "data")
    config.data.transform = f"{__name__}.resized"
    config.data.batch_size = 4
    config.evaluation.evaluations = 2
    dataset = study_dataset(parse_config(config))
    assert dataset.train.arrays["inputs"].shape == (12, 4, 4, 3) and dataset.scale_uint8
    outcome, _ = run(config, tmp_path / "runs")
    assert outcome["diverged"] == 0


def test_a_data_set_that_needs_tensorflow_to_be_prepared_says_so(tmp_path):
    with pytest.raises(UserError, match=r"tiny_photos/arrays could .*pip install tensorflow"):
        load_dataset("tiny_photos/arrays", "train", "validation", None, str(tmp_path))


def test_digits_are_all_of_scikit_learns_in_stratified_splits(digits):
    splits = {"train": digits.train, "validation": digits.validation, "test": digits.test}
    assert {name: split.num_examples for name, split in splits.items()} == SPLIT_SIZES
    images = np.concatenate([split.arrays["inputs"] for split in splits.values()])
    original = load_digits()
    expected = np.round(original.images * (255 / 16)).astype(np.uint8)
    assert sorted(x.tobytes() for x in images) == sorted(x.tobytes() for x in expected)
    assert digits.num_classes == 10
    for split in splits.values():
        shares = np.bincount(split.arrays["targets"]) / split.num_examples
        assert np.abs(shares - np.bincount(original.target) / 1797).max() < 0.01


def test_labels_belong_to_their_images(digits):
    original = load_digits()
    labels = {
        np.round(image * (255 / 16)).astype(np.uint8).tobytes(): label
        for image, label in zip(original.images, original.target, strict=True)
    }
    arrays = digits.train.arrays
    for image, label in zip(arrays["inputs"], arrays["targets"], strict=True):
        assert labels[image.tobytes()] == label


def test_preparing_needs_no_tensorflow(tmp_path):
    program = (
        "import sys\n"
        "from budgetflow.engine.data.source import load_dataset\n"
        f"d = load_dataset('digits', 'train[:50%]', 'validation', None, {str(tmp_path)!r})\n"
        "print(d.train.num_examples, d.test, 'tensorflow' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["628", "None", "False"]
    assert "once" in result.stderr and str(tmp_path) in result.stderr


def test_a_large_split_is_streamed(digits, streamed_digits):
    assert streamed_digits.train.arrays is None
    example = streamed_digits.train.example(17)
    assert (example["inputs"] == digits.train.arrays["inputs"][17]).all()


def test_a_users_own_source_by_import_path():
    dataset = load_dataset(f"{__name__}.TinySource", "train", "validation", None)
    assert dataset.num_classes == 3
    assert dataset.train.arrays["inputs"].shape == (12, 2, 2, 1)
    assert dataset.validation.num_examples == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digitss", "train", "validation", None), "did you mean 'digits'"),
        (("digits", "trian", "validation", None), "did you mean 'train'"),
        (("digits", "train", "validation[:0]", None), "validation_split = 'validation"),
        (("digits", "train", "validation", None, None, "imagee"), "did you mean 'image'"),
        ((f"{__name__}.TinySource", "train", "test", None), "validation_split = 'test'"),
        ((f"{__name__}.Missing", "train", "test", None), "has no 'Missing'"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(arguments, message):
    with pytest.raises(ConfigError, match=message):
        load_dataset(*arguments)
