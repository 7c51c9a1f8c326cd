"""Small checkpoints: the files that Orbax writes, at a fraction of the time.

With a small state Orbax spends its time on what is around the arrays. So it writes the first
checkpoint of each structure itself, and what follows is that one with other arrays: compressed and
put into a database by TensorStore as there, but in memory, and in one piece. Before a structure
counts as known, its first checkpoint is also written that way, and has to come out the same, byte
for byte; if it does not, Orbax writes all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore

# Orbax's names: of a folder that is not complete yet, and of the file that holds times.
UNFINISHED, TIMES = ".orbax-checkpoint-tmp", "_CHECKPOINT_METADATA"
# How those of the database's files begin: the whole of it, its data, and each process's part.
DATABASE = ("manifest.ocdbt", "d/", "ocdbt.process_")


@dataclasses.dataclass(frozen=True)
class _Template:
    """A checkpoint without its arrays.

    Attributes:
        path: where it was.
        files: name to content, of all that is not the database of arrays.
        arrays: name and zarr metadata of each leaf of the state, in order.
    """

    path: Path
    files: dict[str, bytes]
    arrays: tuple[tuple[str, dict[str, Any]], ...]

    def write(self, path: Path, arrays: list[np.ndarray]) -> dict[str, str]:
        """Writes a checkpoint of the same structure; a reader sees none of it, or all.

        Returns:
            The SHA-256 of each of its files.
        """
        now = time.time_ns()
        files = _database(_compressed(self.arrays, arrays))
        for name, content in self.files.items():
            if name == TIMES:
                times = dict.fromkeys(("init_timestamp_nsecs", "commit_timestamp_nsecs"), now)
                content = json.dumps(json.loads(content) | times).encode()
            files[name] = content.replace(str(self.path).encode(), str(path).encode())
        unfinished = path.with_name(path.name + UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        _write_files(unfinished, files)
        unfinished.rename(path)
        return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _compressed(
    metadata: tuple[tuple[str, dict[str, Any]], ...], arrays: list[np.ndarray]
) -> dict[str, bytes]:
    """What a database holds of arrays: the metadata and the one piece of each."""
    memory = tensorstore.Context()
    under_way = [
        tensorstore.open(
            {
                "driver": "zarr",
                "kvstore": {"driver": "memory", "path": f"{name}/"},
                "metadata": of_array,
                "store_data_equal_to_fill_value": True,
                "create": True,
            },
            context=memory,
        )
        for name, of_array in metadata
    ]
    for write in [o.result().write(a) for o, a in zip(under_way, arrays, strict=True)]:
        write.result()
    return _entries({"driver": "memory"}, memory)


def _database(entries: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a database of these entries."""
    memory = tensorstore.Context()
    spec = {"driver": "ocdbt", "base": {"driver": "memory"}}
    store = tensorstore.KvStore.open(spec, context=memory).result()
    with tensorstore.Transaction(atomic=True) as transaction:  # or each entry makes a file
        for key, value in entries.items():
            store.with_transaction(transaction).write(key, value).result()
    return _entries({"driver": "memory"}, memory)


def _entries(spec: dict[str, Any], context: tensorstore.Context | None = None) -> dict[str, bytes]:
    """Key to value of all that a key-value store of TensorStore holds."""
    store = tensorstore.KvStore.open(spec, context=context or tensorstore.Context()).result()
    return {key.decode(): store.read(key).result().value for key in store.list().result()}


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files into a new folder, and has the disk hold them, as TensorStore does."""
    for parent in sorted({"", *(os.path.dirname(name) for name in files)}):
        os.makedirs(f"{folder}/{parent}", exist_ok=True)
    written = []
    try:
        for name, content in files.items():
            with open(f"{folder}/{name}", "wb") as file:
                file.write(content)
                file.flush()
                written.append(os.dup(file.fileno()))
        list(_threads().map(os.fsync, written))  # the disk takes them together
    finally:
        for descriptor in written:
            os.close(descriptor)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(32)


# Structure to its template; None where Orbax writes all.
_templates: dict[Hashable, _Template | None] = {}


def save(
    path: Path, tree: Any, save_by_orbax: Callable[[Path, Any], None]
) -> dict[str, str] | None:
    """Writes a state of few and small arrays, all of them on this process, at once.

    Args:
        path: of the checkpoint, in a local folder.
        tree: the state.
        save_by_orbax: writes any state, and is done when it returns.

    Returns:
        The SHA-256 of each of its files; None where Orbax wrote them.
    """
    leaves, structure = jax.tree.flatten(tree)
    key = structure, tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
    template = _templates.get(key)
    if template is not None:
        return template.write(path, _arrays(leaves))
    save_by_orbax(path, tree)
    if key not in _templates:
        _templates[key] = _template(path, tree)
    return None


def _template(path: Path, tree: Any) -> _Template | None:
    """That of a checkpoint which Orbax has written; None if it would not be written alike."""
    names = [".".join(map(_name, keys)) for keys, _ in jax.tree.leaves_with_path(tree)]
    files, entries = _files(path), _arrays_in(path)
    try:
        arrays = tuple((name, json.loads(entries[f"{name}/.zarray"])) for name in names)
    except (KeyError, ValueError):  # another format, or named in another way
        return None
    template = _Template(path, files, arrays)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / path.name
        template.write(again, _arrays(jax.tree.leaves(tree)))
        found, found_entries = _files(again), _arrays_in(again)
    found = {n: c.replace(str(again).encode(), str(path).encode()) for n, c in found.items()}
    found[TIMES] = files.get(TIMES, b"")  # of another time
    return template if (found, found_entries) == (files, entries) else None


def _arrays(leaves: list[Any]) -> list[np.ndarray]:
    """Their values; of a random key, the numbers that it is made of."""
    is_key = [jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    found = [jax.random.key_data(a) if k else a for a, k in zip(leaves, is_key, strict=True)]
    return jax.device_get(found)


def _name(key: Any) -> str:
    """A step on the way to a leaf, as Orbax names it."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _files(path: Path) -> dict[str, bytes]:
    """A checkpoint's files, name to content, without those of the database of arrays."""
    names = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    return {n: file.read_bytes() for n, file in names.items() if not n.startswith(DATABASE)}


def _arrays_in(path: Path) -> dict[str, bytes]:
    """What a checkpoint's database of arrays holds."""
    # No URL: a folder's name may hold what means something else in one.
    return _entries({"driver": "ocdbt", "base": {"driver": "file", "path": f"{path}/"}})
