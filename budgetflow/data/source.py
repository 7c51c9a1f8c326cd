"""From a data set's name to its splits: TensorFlow Datasets, or any random-access source."""

import contextlib
import dataclasses
import functools
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, SupportsIndex

import numpy as np
from absl import logging

from budgetflow.errors import ConfigError, UserError, nearest
from budgetflow.import_path import import_object, is_import_path


class RandomAccess(Protocol):
    """What a source of records must offer; a list of dicts of arrays is one."""

    def __len__(self) -> int:
        """How many records there are."""
        ...

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """One record: arrays or numbers by feature name."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split: examples as dicts of ``inputs`` and ``targets``, in memory or read one by one.

    Attributes:
        num_examples: how many there are.
        arrays: the whole split stacked, {"inputs": [num_examples, ...], "targets": ...}, or None
            where it is too large for memory and is streamed.
        source: the records as they are stored.
        keys: the records' feature names for inputs and targets.
    """

    num_examples: int
    arrays: dict[str, np.ndarray] | None
    source: RandomAccess
    keys: tuple[str, str]

    def example(self, index: int) -> dict[str, np.ndarray]:
        """One example, read from the source; 64-bit numbers become 32-bit ones, as JAX has them."""
        record = self.source[index]
        example = {
            name: np.asarray(record[key])
            for name, key in zip(("inputs", "targets"), self.keys, strict=True)
        }
        narrower = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}
        return {k: a.astype(narrower.get(a.dtype, a.dtype), copy=False) for k, a in example.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """The splits that a study uses.

    Attributes:
        train, validation: the splits to train on and to select by.
        test: the split for the final model, or None where the config names none.
        num_classes: the number of classes, or None where the data set does not declare it.
    """

    train: Split
    validation: Split
    test: Split | None
    num_classes: int | None


@functools.lru_cache(maxsize=8)
def load_dataset(
    name: str,
    train_split: str,
    validation_split: str,
    test_split: str | None,
    data_dir: str | None = None,
    input_key: str | None = None,
    target_key: str | None = None,
    in_memory_bytes: int = 2**30,
) -> Dataset:
    """Opens a data set, preparing it first if TFDS has not done so yet.

    Args:
        name: "digits", any TFDS data set ("mnist", "my_set/config:1.0.0"), or the import path of a
            function that takes a split's name and returns a random-access source of dicts (an
            attribute ``num_classes`` on it is used if there).
        train_split, validation_split, test_split: split names; TFDS takes "train[:90%]" too.
        data_dir: where TFDS keeps its data; None for its default.
        input_key, target_key: the features to use; None for TFDS's supervised keys, or "image" and
            "label".
        in_memory_bytes: a split of this size or less is held in memory, a larger one streamed.

    Raises:
        ConfigError: the data set, a split or a feature does not exist.
        UserError: the data set cannot be prepared.
    """
    keys = (input_key or "image", target_key or "label")
    num_classes = None
    if is_import_path(name):
        open_split = import_object(name, "config.data.name")
    else:
        builder = _prepared_builder(name, data_dir)
        supervised = builder.info.supervised_keys or keys
        keys = (input_key or supervised[0], target_key or supervised[1])
        num_classes = getattr(dict(builder.info.features.items()).get(keys[1]), "num_classes", None)
        open_split = functools.partial(_open_tfds_split, builder)
    splits = {
        field: _load_split(open_split, split, field, keys, in_memory_bytes)
        for field, split in (
            ("train_split", train_split),
            ("validation_split", validation_split),
            ("test_split", test_split),
        )
        if split is not None
    }
    return Dataset(
        train=splits["train_split"],
        validation=splits["validation_split"],
        test=splits.get("test_split"),
        num_classes=num_classes or getattr(splits["train_split"].source, "num_classes", None),
    )


def _load_split(
    open_split: Any, split: str, field: str, keys: tuple[str, str], in_memory_bytes: int
) -> Split:
    try:
        source = open_split(split)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"config.data.{field} = {split!r}: {error}") from error
    if len(source) == 0:
        raise ConfigError(f"config.data.{field} = {split!r} holds no examples")
    first = source[0]
    for key in keys:
        if key not in first:
            raise ConfigError(f"config.data has no feature {key!r}; {nearest(key, first)}")
    streamed = Split(len(source), None, source, keys)
    size = sum(array.nbytes for array in streamed.example(0).values()) * len(source)
    if size > in_memory_bytes:
        return streamed
    examples = [streamed.example(index) for index in range(len(source))]
    arrays = {name: np.stack([e[name] for e in examples]) for name in ("inputs", "targets")}
    return dataclasses.replace(streamed, arrays=arrays)


def _prepared_builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    from budgetflow.data import digits  # noqa: F401  (makes "digits" known to TFDS)

    tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, tfds.core.registered.DatasetNotFoundError) as error:
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
            hint = (
                "; preparing it needs TensorFlow (reading it does not): pip install tensorflow"
                if "tensorflow" in reason
                else ""
            )
            raise UserError(f"the data set {name} could not be prepared: {reason}{hint}") from error
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
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
