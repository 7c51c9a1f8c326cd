"""From a data set's name to its splits: TensorFlow Datasets, or any random-access source."""

import contextlib
import dataclasses
import functools
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from budgetflow.base.errors import ConfigError, UserError, nearest
from budgetflow.base.import_path import import_object, is_import_path
from budgetflow.base.user_code import user_code
from budgetflow.engine.data.records import BadTargets, Columns, Keys, Split, nbytes


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """The splits that a study uses.

    Attributes:
        train, validation: the splits to train on and to select by.
        test: the split for the final model, or None where the config names none.
        num_classes: the number of classes, or None where the data set does not declare it.
        scale_uint8: whether uint8 inputs are pixels, or None where it does not declare that.
    """

    train: Split
    validation: Split
    test: Split | None
    num_classes: int | None
    scale_uint8: bool | None = None


# For the other studies of a chain, and the next one in a notebook: reading may take minutes.
@functools.lru_cache(maxsize=4)
def load_dataset(
    name: str,
    train_split: str,
    validation_split: str,
    test_split: str | None,
    data_dir: str | None = None,
    input_key: Keys | None = None,
    target_key: Keys | None = None,
    transform: str | None = None,
    in_memory_bytes: int = 2**30,
    at_random: bool = True,
) -> Dataset:
    """Opens a data set, preparing it first if TFDS has not done so yet.

    Args:
        name: "digits", any TFDS data set ("mnist", "my_set/config:1.0.0"), or the import path of a
            function that takes a split's name and returns a random-access source of dicts, or of
            pairs (attributes ``num_classes`` and ``scale_uint8`` on it are used if there), or one
            dict of arrays.
        train_split, validation_split, test_split: split names; TFDS takes "train[:90%]" too.
        data_dir: where TFDS keeps its data; None for its default.
        input_key, target_key: the features to use; None for TFDS's supervised keys, or "image" and
            "label". Several reach model and task as a dict by name.
        transform: the import path of a function that records go through first, as in
            ``transform(record)`` or, where it does something else in every step,
            ``transform(record, rng)``, with a NumPy generator that is a function of (seed, step,
            example), or None in evaluation.
        in_memory_bytes: a split of this size or less is held in memory, a larger one streamed.
        at_random: whether a transform that takes ``rng`` is given one in training; the training
            split is streamed then.

    Raises:
        ConfigError: the data set, a split or a feature does not exist, or some example differs in
            form from the first, or holds NaN.
        UserError: the data set cannot be prepared.
    """
    open_split, keys, num_classes, scale_uint8 = _opened(name, data_dir, input_key, target_key)
    through = None if transform is None else import_object(transform, "config.data.transform")

    def load(field: str, split_name: str) -> Split:
        where = f"config.data.{field} = {split_name!r}"
        source, size = _source(open_split, split_name, where, name)
        split = Split(where, size, source, keys, transform=through, opened_by=name)
        is_streamed = at_random and field == "train_split" and split.is_random
        return _loaded(split, -1 if is_streamed else in_memory_bytes)

    train = load("train_split", train_split)
    validation = load("validation_split", validation_split)
    test = None if test_split is None else load("test_split", test_split)
    if scale_uint8 is None:
        scale_uint8 = getattr(train.source, "scale_uint8", None)
    num_classes = num_classes or getattr(train.source, "num_classes", None)
    return Dataset(train, validation, test, num_classes, scale_uint8)


def _opened(
    name: str, data_dir: str | None, input_key: Keys | None, target_key: Keys | None
) -> tuple[Callable[[str], Any], tuple[Keys, Keys], int | None, bool | None]:
    """What opens a split, the keys of inputs and targets, and what TFDS declares of both."""
    if is_import_path(name):
        keys = (input_key or "image", target_key or "label")
        return import_object(name, "config.data.name"), keys, None, None
    import tensorflow_datasets as tfds

    builder = _prepared_builder(name, data_dir)
    inputs, targets, *_ = builder.info.supervised_keys or ("image", "label")
    keys = (input_key or inputs, target_key or targets)
    features = dict(builder.info.features.items())
    num_classes = getattr(features.get(keys[1]), "num_classes", None)
    is_image = isinstance(features.get(keys[0]), tfds.features.Image)
    scale_uint8 = True if is_image else getattr(builder, "scale_uint8", None)
    return functools.partial(_open_tfds_split, builder), keys, num_classes, scale_uint8


def _source(open_split: Callable[[str], Any], split: str, where: str, name: str) -> tuple[Any, int]:
    """The source of a split, and its size."""
    try:
        with user_code("config.data.name", name):
            source = open_split(split)
    except ConfigError as error:
        if isinstance(error.__cause__, KeyError | ValueError):  # there is no such split
            raise ConfigError(f"{where}: {error.__cause__}") from error
        raise
    if isinstance(source, dict):
        source = _columns(source, where, name)
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise ConfigError(
            f"config.data.name = {name!r} gives {type(source).__name__} for a split; it should be "
            "random-access, with len() and [index], such as a list of dicts"
        )
    with user_code("config.data.name", name):
        size = len(source)
    if size == 0:
        raise ConfigError(f"{where} holds no examples")
    return source, size


def _columns(arrays: dict[str, Any], where: str, name: str) -> Columns:
    with user_code("config.data.name", name):
        by_key = {key: np.asarray(array) for key, array in arrays.items()}
    sizes = {key: len(array) if array.ndim else 0 for key, array in by_key.items()}
    if len(set(sizes.values())) != 1:
        shown = ", ".join(f"{size} {key!r}" for key, size in sizes.items()) or "no array"
        raise ConfigError(f"{where} holds {shown}; each array should have one row for each record")
    return Columns(by_key)


def _loaded(split: Split, in_memory_bytes: int) -> Split:
    """A split with its examples in memory, and all checked; or if they do not fit, a sample."""
    if nbytes(split.example(0)) * split.num_examples > in_memory_bytes:
        split.examples(split.sample())
        return split
    return dataclasses.replace(split, arrays=split.examples(np.arange(split.num_examples)))


def with_checked_targets(dataset: Dataset, bad_targets: BadTargets) -> Dataset:
    """The data set, with its targets checked by the task.

    Of a split in memory, all are checked now; of a streamed one, a sample now, and each example
    when it is read.

    Args:
        dataset: the data set.
        bad_targets: the task's check; see :data:`budgetflow.engine.data.records.BadTargets`.

    Raises:
        ConfigError: some are not what the task takes.
    """

    def checked(split: Split) -> Split:
        with_check = dataclasses.replace(split, bad_targets=bad_targets)
        if split.arrays is not None:
            with_check.check_values(split.arrays, np.arange(split.num_examples))
        else:
            with_check.examples(split.sample())
        return with_check

    return dataclasses.replace(
        dataset,
        train=checked(dataset.train),
        validation=checked(dataset.validation),
        test=dataset.test and checked(dataset.test),
    )


def _prepared_builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    from budgetflow.engine.data import digits  # noqa: F401  (makes "digits" known to TFDS)

    tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (
        ValueError,  # a name that cannot be one
        tfds.core.DatasetNotFoundError,
        tfds.core.registered.DatasetNotFoundError,
    ) as error:
        hint = nearest(name, tfds.list_builders(with_community_datasets=False))
        raise ConfigError(f"config.data.name = {name!r} is not a TFDS data set; {hint}") from error
    if not builder.info.splits:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        print(f"Preparing the data set {name} in {builder.data_dir}, once.", file=sys.stderr)
        try:
            with _quiet():
                builder.download_and_prepare()
        except Exception as error:  # whatever a builder or a download can raise
            if (prepared := tfds.builder(name, data_dir=data_dir)).info.splits:
                return prepared  # another process did the same at the same time
            reason = (str(error).splitlines() or [type(error).__name__])[-1]
            if "tensorflow" in reason:
                reason += "; preparing it needs TensorFlow (reading it does not): pip install "
                reason += "tensorflow"
            raise UserError(f"the data set {name} could not be prepared: {reason}") from error
    return builder


def _open_tfds_split(builder: Any, split: str) -> Sequence[dict[str, Any]]:
    name = split.partition("[")[0]
    if "+" not in split and name not in builder.info.splits:
        raise ValueError(
            f"{builder.info.name} has no such split; {nearest(name, builder.info.splits)}"
        )
    return builder.as_data_source(split=split)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's account of how it shuffles and writes off the terminal."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)
