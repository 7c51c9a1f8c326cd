"""From a stored record to an example: named arrays, held to the form of the split's first one."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, SupportsIndex

import jax
import numpy as np

from budgetflow.base.errors import ConfigError, nearest
from budgetflow.base.import_path import keyword_names
from budgetflow.base.user_code import user_code

# "inputs" and "targets", each an array, or a dict of arrays where the config names several.
Example = dict[str, Any]
# Names of features: one, or several that reach model and task as a dict.
Keys = str | tuple[str, ...]
# A task's check: from targets [examples, ...], which of them it cannot use, bool [examples], and
# what they should be, in words.
BadTargets = Callable[[Any], tuple[np.ndarray, str]]
# JAX computes in 32 bits.
_NARROWER = {"int64": np.int32, "uint64": np.uint32, "float64": np.float32}
# Examples of a streamed split that are looked at when it is opened.
SAMPLE_EXAMPLES = 64


class RandomAccess(Protocol):
    """What a source of records must offer; a list of dicts of arrays is one.

    Where it has ``__getitems__(indices)``, as those of TFDS have, batches are read by that: it
    takes a list of indices and returns a sequence of as many records, or one dict of new arrays
    [records, ...].
    """

    def __len__(self) -> int:
        """How many records there are."""
        ...

    def __getitem__(self, index: SupportsIndex) -> Any:
        """One record: arrays or numbers by feature name, or a pair of inputs and targets."""
        ...


class Columns:
    """A source made of arrays by feature name, [records, ...] each."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        """How many records there are."""
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """One record."""
        return {key: array[index] for key, array in self._arrays.items()}

    def __getitems__(self, indices: list[int]) -> dict[str, np.ndarray]:
        """Some records: an array [records, ...] of each feature."""
        return {key: array[indices] for key, array in self._arrays.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split, in memory or read batch by batch.

    Attributes:
        name: where it stands in the config, such as "config.data.train_split = 'train'".
        num_examples: how many examples it has.
        source: the records as they are stored.
        keys: the records' features for inputs and for targets; a record that is a pair needs none.
        arrays: all examples stacked, each array [num_examples, ...]; None where they are streamed.
        transform: what records go through before they become examples, ``transform(record)`` or
            ``transform(record, rng)``; None for nothing.
        opened_by: the import path behind the source; None for a TFDS data set.
        bad_targets: the task's check of targets, made of each example that is read from a streamed
            split; see :data:`BadTargets`.
        fit_targets: where identical inputs have different targets: [num_examples, choices], any of
            which counts as fitting an example; see :mod:`budgetflow.engine.data.contradictions`.
    """

    name: str
    num_examples: int
    source: RandomAccess
    keys: tuple[Keys, Keys]
    arrays: Example | None = None
    transform: Callable[..., Any] | None = None
    opened_by: str | None = None
    bad_targets: BadTargets | None = None
    fit_targets: np.ndarray | None = None

    @functools.cached_property
    def is_random(self) -> bool:
        """Whether the transform may do something else in every step."""
        return self.transform is not None and "rng" in keyword_names(self.transform)

    def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """One example, read from the source and checked.

        Args:
            index: its number.
            rng: for a random transform, in training; None in evaluation.

        Raises:
            ConfigError: it has not the form of the first one, or holds what cannot be trained on.
        """
        example = self.read(index, rng)
        if self.arrays is None:
            self.check_values(jax.tree.map(lambda a: a[None], example), np.array([index]))
        return example

    def read(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Like :meth:`example`, but checks only names, shapes and types, and no values."""
        return self._held_to_first(self._read(index, rng), index)

    def examples(self, numbers: np.ndarray, seeds: tuple[int, int] | None = None) -> Example:
        """Some examples stacked, each array [examples, ...], with the checks of :meth:`example`.

        Args:
            numbers: their numbers in the split.
            seeds: for a random transform, in training: the seed and the step. With its number,
                they are the seed of each example's generator. None in evaluation.

        Raises:
            ConfigError: one has not the form of the first one, or holds what cannot be trained on.
        """
        examples = self.read_together(numbers, seeds)
        if self.arrays is None:
            self.check_values(examples, numbers)
        return examples

    def read_together(self, numbers: np.ndarray, seeds: tuple[int, int] | None = None) -> Example:
        """Like :meth:`examples`, but checks only names, shapes and types, and no values."""
        indices = numbers.tolist()
        records = self._records(indices)
        if self.transform is not None:
            rngs: list[np.random.Generator | None] = [None] * len(indices)
            if self.is_random and seeds is not None:
                rngs = [np.random.default_rng([*seeds, index]) for index in indices]
            records = list(map(self._transformed, _one_by_one(records), indices, rngs))
        try:
            examples = _stacked_records(records, self.keys)
            if _form(examples, leading_dimensions=1) == self._first_form:
                return examples
        except (KeyError, TypeError, ValueError, OverflowError):
            pass
        # They seem not to be alike. One by one, the odd one is found and named.
        singly = map(self._example, _one_by_one(records), indices)
        return stacked(map(self._held_to_first, singly, indices))

    def _held_to_first(self, example: Example, index: int) -> Example:
        form = _form(example)
        if form != self._first_form:
            pairs = itertools.zip_longest(form, self._first_form, fillvalue="nothing")
            holds, first = next(pair for pair in pairs if pair[0] != pair[1])
            raise ConfigError(
                f"{self.name}: example {index} holds {holds}, the first one {first}; all must be "
                "alike (config.data.transform can make them so)"
            )
        return example

    def check_values(self, examples: Example, numbers: np.ndarray) -> None:
        """Checks that all values are finite, and that the task can use the targets.

        Args:
            examples: some examples, stacked.
            numbers: their numbers in the split.

        Raises:
            ConfigError: some are not, or it cannot; the first such example is named.
        """
        for name, array in leaves(examples):
            if array.dtype.kind not in "biu":
                finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
                if not finite.all():
                    raise ConfigError(
                        f"{self.name}: example {numbers[finite.argmin()]} holds NaN or infinity in "
                        f"{name}, and so do {np.count_nonzero(~finite)} of {len(array)} looked at; "
                        "mend the data (config.data.transform can)"
                    )
        if self.bad_targets is None:
            return
        bad, should_be = self.bad_targets(examples["targets"])
        if bad.any():
            first = int(bad.argmax())
            target = jax.tree.map(lambda a: a[first], examples["targets"])
            raise ConfigError(
                f"{self.name}: example {numbers[first]} has the target {_shown(target)}, but the "
                f"task takes {should_be}; so have {np.count_nonzero(bad)} of {len(bad)} looked at"
            )

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """How many examples there are, and a digest of them: of all, or of a sample if streamed."""
        digest = hashlib.sha256()
        arrays = self.arrays or stacked(self.read(index) for index in self.sample())
        for name, array in leaves(arrays):
            digest.update(f"{name} {array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8))
        return {"num_examples": self.num_examples, "digest": digest.hexdigest()[:16]}

    def sample(self) -> list[int]:
        """The numbers of some examples, evenly spaced, the first and the last among them."""
        count = min(self.num_examples, SAMPLE_EXAMPLES)
        return np.linspace(0, self.num_examples - 1, count).round().astype(int).tolist()

    @functools.cached_property
    def _first_form(self) -> list[str]:
        return _form(self._read(0, None))

    def _records(self, indices: list[int]) -> Any:
        """Records as the source gives them: a sequence, or a dict of arrays [records, ...]."""
        together = getattr(self.source, "__getitems__", None)
        with user_code("config.data.name", self.opened_by or "the data set"):
            if together is None:
                return [self.source[index] for index in indices]
            records = together(indices)
            columns = records.values() if isinstance(records, Mapping) else [records]
            counts = {len(column) for column in columns}
        if counts != {len(indices)}:
            raise ConfigError(
                f"{self.name}: the source's __getitems__ gives {sorted(counts)} records for "
                f"{len(indices)} indices; it should give one for each"
            )
        return records

    def _read(self, index: int, rng: np.random.Generator | None) -> Example:
        with user_code("config.data.name", self.opened_by or "the data set"):
            record = self.source[index]
        return self._example(self._transformed(record, index, rng), index)

    def _transformed(self, record: Any, index: int, rng: np.random.Generator | None) -> Any:
        if self.transform is None:
            return record
        with user_code("config.data.transform", f"{self.name}: example {index}"):
            return self.transform(record, rng) if self.is_random else self.transform(record)

    def _example(self, record: Any, index: int) -> Example:
        if isinstance(record, tuple | list) and len(record) == 2:
            values: dict[str, Any] = dict(zip(("inputs", "targets"), record, strict=True))
        elif isinstance(record, Mapping):
            chosen = zip(("inputs", "targets"), self.keys, strict=True)
            values = {name: self._feature(record, keys, index) for name, keys in chosen}
        else:
            raise ConfigError(
                f"{self.name}: example {index} is {_a(record)}; it should be a dict of arrays, or "
                "a pair of inputs and targets"
            )
        return {name: self._arrays(value, name, index) for name, value in values.items()}

    def _feature(self, record: Mapping[str, Any], keys: Keys, index: int) -> Any:
        for key in (keys,) if isinstance(keys, str) else keys:
            if key not in record:
                field = "input_key" if keys is self.keys[0] else "target_key"
                raise ConfigError(
                    f"{self.name}: example {index} has no feature {key!r} "
                    f"(config.data.{field}); {nearest(key, map(str, record))}"
                )
        return record[keys] if isinstance(keys, str) else {key: record[key] for key in keys}

    def _arrays(self, value: Any, name: str, index: int) -> Any:
        if isinstance(value, dict):
            return {key: self._arrays(item, key, index) for key, item in value.items()}
        try:
            array = np.asarray(value)
        except ValueError:  # ragged
            array = np.asarray(None)
        if not (array.dtype == bool or jax.dtypes.issubdtype(array.dtype, np.number)) or (
            array.dtype.kind == "c"
        ):
            raise ConfigError(
                f"{self.name}: example {index} holds {_a(value)} as {name}, not an array of "
                "numbers; config.data.transform can make it one"
            )
        try:
            return _in_32_bits(array)
        except ValueError as error:
            raise ConfigError(
                f"{self.name}: example {index} holds {error.args[0]} in {name}, which does not fit "
                f"into {np.dtype(_NARROWER[array.dtype.name])}"
            ) from error


def leaves(example: Example) -> Iterator[tuple[str, Any]]:
    """The arrays of an example with their names, in a fixed order."""
    for name, value in sorted(example.items()):
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield name, value


def _form(example: Example, leading_dimensions: int = 0) -> list[str]:
    return [
        f"{name} {array.dtype}{list(array.shape[leading_dimensions:])}"
        for name, array in leaves(example)
    ]


def stacked(examples: Iterator[Example]) -> Example:
    """Examples stacked, each array [examples, ...]."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *examples)


def _stacked_records(records: Any, keys: tuple[Keys, Keys]) -> Example:
    """Records that are all alike as examples, stacked.

    Args:
        records: a sequence of them, or a dict of arrays [records, ...].
        keys: the features for inputs and for targets.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: they are not alike, or of a rare form.
    """
    names = ("inputs", "targets")
    kinds = {Mapping} if isinstance(records, Mapping) else set(map(type, records))
    if kinds <= {tuple, list}:
        return dict(zip(names, map(_stacked_values, zip(*records, strict=True)), strict=True))
    if kinds not in ({Mapping}, {dict}):
        raise TypeError("neither dicts nor pairs")

    def feature(key: str) -> Any:
        if isinstance(records, Mapping):
            return _in_32_bits(np.asarray(records[key]))
        return _stacked_values([record[key] for record in records])

    return {
        name: feature(wanted) if isinstance(wanted, str) else {key: feature(key) for key in wanted}
        for name, wanted in zip(names, keys, strict=True)
    }


def _stacked_values(values: Sequence[Any]) -> Any:
    """Values of one type, shape and dtype, stacked; NumPy alone would convert odd ones."""
    (kind,) = set(map(type, values))
    if kind is dict:
        (keys,) = set(map(tuple, values))
        return {key: _stacked_values([value[key] for value in values]) for key in keys}
    if kind is np.ndarray:
        ((shape, _),) = {(value.shape, value.dtype) for value in values}
        if shape:  # a third of the time of np.stack
            return _in_32_bits(np.concatenate(values).reshape(len(values), *shape))
    elif not issubclass(kind, int | float | np.generic):
        raise TypeError("not a number")
    return _in_32_bits(np.array(values))


def _in_32_bits(array: np.ndarray) -> np.ndarray:
    """An array as JAX computes with it; ValueError, of the first integer that does not fit."""
    narrower = _NARROWER.get(array.dtype.name)
    if narrower is None:
        return array
    narrow = array.astype(narrower)
    if array.dtype.kind in "iu" and (narrow != array).any():
        raise ValueError(_shown(array[narrow != array][0]))
    return narrow


def _one_by_one(records: Any) -> Any:
    """Records as a sequence of dicts or pairs, also where they came as a dict of arrays."""
    if not isinstance(records, Mapping):
        return records
    return [
        dict(zip(records, values, strict=True)) for values in zip(*records.values(), strict=True)
    ]


def nbytes(example: Example) -> int:
    """The size of an example's arrays."""
    return sum(array.nbytes for _, array in leaves(example))


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:40]}…"


def _a(value: Any) -> str:
    return f"{_shown(repr(value))} ({type(value).__name__})"
