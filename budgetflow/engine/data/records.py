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
        examples = self._checked([self._record(index, rng)], [index])
        return jax.tree.map(lambda array: array.reshape(array.shape[1:]), examples)

    def examples(self, numbers: np.ndarray, seeds: tuple[int, int] | None = None) -> Example:
        """Some examples stacked, each array [examples, ...], with the checks of :meth:`example`.

        Args:
            numbers: their numbers in the split.
            seeds: for a random transform, in training: the seed and the step. With its number,
                they are the seed of each example's generator. None in evaluation.

        Raises:
            ConfigError: one has not the form of the first one, or holds what cannot be trained on.
        """
        indices = numbers.tolist()
        records = self._records(indices)
        if self.transform is not None:
            rngs: list[np.random.Generator | None] = [None] * len(indices)
            if self.is_random and seeds is not None:
                rngs = [np.random.default_rng([*seeds, index]) for index in indices]
            records = list(map(self._transformed, _one_by_one(records), indices, rngs))
        return self._checked(records, indices)

    def _checked(self, records: Any, indices: list[int]) -> Example:
        examples = self._held_to_first(records, indices)
        self.check_values(examples, np.asarray(indices))
        return examples

    def _held_to_first(self, records: Any, indices: list[int]) -> Example:
        """Records as examples, stacked, all in the form of the split's first one."""
        form: list[str] = []
        try:
            examples = self._stacked(records, indices[0])
            if (form := _form(examples)) == self._first_form:
                return examples
        except ConfigError:
            if len(indices) == 1:
                raise
        if len(indices) > 1:
            # They seem not to be alike. One by one, the odd one is found and named.
            pairs = zip(_one_by_one(records), indices, strict=False)
            singly = [self._held_to_first([record], [index]) for record, index in pairs]
            return jax.tree.map(lambda *arrays: np.concatenate(arrays), *singly)
        both = itertools.zip_longest(form, self._first_form, fillvalue="nothing")
        holds, first = next(pair for pair in both if pair[0] != pair[1])
        raise ConfigError(
            f"{self.name}: example {indices[0]} holds {holds}, the first one {first}; all must be "
            "alike (config.data.transform can make them so)"
        )

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
        arrays = self.arrays or self.examples(self.sample())
        for name, array in leaves(arrays):
            digest.update(f"{name} {array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8))
        return {"num_examples": self.num_examples, "digest": digest.hexdigest()[:16]}

    def sample(self) -> np.ndarray:
        """The numbers of some examples, evenly spaced, the first and the last among them."""
        count = min(self.num_examples, SAMPLE_EXAMPLES)
        return np.linspace(0, self.num_examples - 1, count).round().astype(int)

    @functools.cached_property
    def _first_form(self) -> list[str]:
        return _form(self._stacked([self._record(0, None)], 0))

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

    def _record(self, index: int, rng: np.random.Generator | None) -> Any:
        with user_code("config.data.name", self.opened_by or "the data set"):
            record = self.source[index]
        return self._transformed(record, index, rng)

    def _transformed(self, record: Any, index: int, rng: np.random.Generator | None) -> Any:
        if self.transform is None:
            return record
        with user_code("config.data.transform", f"{self.name}: example {index}"):
            return self.transform(record, rng) if self.is_random else self.transform(record)

    def _stacked(self, records: Any, index: int) -> Example:
        """Records that are all alike as examples, each array [examples, ...].

        Args:
            records: a sequence of them, or a dict of arrays [records, ...].
            index: the number of the first one, for error messages.

        Raises:
            ConfigError: they are not alike, or hold what is no array of numbers.
        """
        kinds = {dict} if isinstance(records, Mapping) else {*map(type, records)}
        if all(issubclass(kind, Mapping) for kind in kinds):
            fields = zip(("input_key", "target_key"), self.keys, strict=True)
            values = [self._features(records, keys, field, index) for field, keys in fields]
        elif all(issubclass(kind, tuple | list) for kind in kinds) and {*map(len, records)} == {2}:
            values = list(zip(*records, strict=True))
        else:
            raise ConfigError(
                f"{self.name}: example {index} is {_a(records[0])}; it should be a dict of arrays, "
                "or a pair of inputs and targets"
            )
        return self._arrays(dict(zip(("inputs", "targets"), values, strict=True)), "", index)

    def _features(self, records: Any, keys: Keys, field: str, index: int) -> Any:
        """The values that records have of a feature; of several, by name."""
        if not isinstance(keys, str):
            return {key: self._features(records, key, field, index) for key in keys}
        are_columns = isinstance(records, Mapping)
        try:
            return records[keys] if are_columns else [record[keys] for record in records]
        except KeyError as error:
            names = map(str, records if are_columns else records[0])
            raise ConfigError(
                f"{self.name}: example {index} has no feature {keys!r} (config.data.{field}); "
                f"{nearest(keys, names)}"
            ) from error

    def _arrays(self, values: Any, name: str, index: int) -> Any:
        """Values of some examples stacked: an array, or by key those of dicts."""
        if not isinstance(values, dict) and all(isinstance(value, dict) for value in values):
            keys = dict.fromkeys(itertools.chain(*values))
            # Where one lacks a key it has None, which is no number.
            values = {key: [value.get(key) for value in values] for key in keys}
        if isinstance(values, dict):
            return {key: self._arrays(value, key, index) for key, value in values.items()}
        try:
            array = _stacked_values(values)
        except ValueError:  # ragged, or not alike
            array = np.asarray(None)
        if array.dtype.kind not in "biuf" and not any(
            jax.dtypes.issubdtype(array.dtype, kind) for kind in (np.integer, np.floating)
        ):  # such as bfloat16 and int4
            raise ConfigError(
                f"{self.name}: example {index} holds {_a(values[0])} as {name}, not an array of "
                "numbers; config.data.transform can make it one"
            )
        narrow = array.astype(_NARROWER.get(array.dtype.name, array.dtype), copy=False)
        is_cut = narrow is not array and array.dtype.kind in "iu"
        if is_cut and (wrong := narrow != array).any():
            raise ConfigError(
                f"{self.name}: example {index} holds {_shown(array[wrong][0])} in {name}, which "
                f"does not fit into {narrow.dtype}"
            )
        return narrow


def leaves(example: Example) -> Iterator[tuple[str, Any]]:
    """The arrays of an example with their names, in a fixed order."""
    for name, value in sorted(example.items()):
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield name, value


def _form(examples: Example) -> list[str]:
    """The name, type and shape of each array of an example, of some that are stacked."""
    return [f"{name} {array.dtype}{list(array.shape[1:])}" for name, array in leaves(examples)]


def stacked(examples: Iterator[Example]) -> Example:
    """Examples stacked, each array [examples, ...]."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *examples)


def _stacked_values(values: Sequence[Any]) -> np.ndarray:
    """Values stacked; ValueError where shapes or types differ, which NumPy would convert."""
    if isinstance(values, np.ndarray):
        return values
    arrays = list(map(np.asarray, values))
    ((shape, _),) = {(array.shape, array.dtype) for array in arrays}
    # A third of the time of np.stack.
    return np.concatenate(arrays).reshape(len(arrays), *shape) if shape else np.array(values)


def _one_by_one(records: Any) -> Any:
    """Records as a sequence of dicts or pairs, also where they came as a dict of arrays."""
    return Columns(records) if isinstance(records, Mapping) else records


def nbytes(example: Example) -> int:
    """The size of an example's arrays."""
    return sum(array.nbytes for _, array in leaves(example))


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:40]}…"


def _a(value: Any) -> str:
    return f"{_shown(repr(value))} ({type(value).__name__})"
