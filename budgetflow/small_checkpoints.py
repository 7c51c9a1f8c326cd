"""Small checkpoints: the files that Orbax writes, at a quarter of the time.

With a small state Orbax spends its time on what is around the arrays. So it writes the first
checkpoint of each structure itself, and what follows is that one with other arrays, compressed by
TensorStore as there. Before a structure counts as known, its first checkpoint is also written that
way, and has to come out the same, byte for byte; if it does not, Orbax writes all of them.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore

# Orbax's names: of a folder that is not complete yet, and of the file that holds times.
UNFINISHED, TIMES = ".orbax-checkpoint-tmp", "_CHECKPOINT_METADATA"


@dataclasses.dataclass(frozen=True)
class _Template:
    """A checkpoint without its arrays.

    Attributes:
        path: where it was.
        files: name to content, of all that is no array's.
        arrays: folder and zarr metadata of each leaf of the state, in order.
    """

    path: Path
    files: dict[str, bytes]
    arrays: tuple[tuple[str, dict[str, Any]], ...]

    def write(self, path: Path, arrays: list[np.ndarray]) -> None:
        """Writes a checkpoint of the same structure; a reader sees none of it, or all."""
        now = time.time_ns()
        unfinished = path.with_name(path.name + UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        under_way = [
            tensorstore.open(
                {
                    "driver": "zarr",
                    "kvstore": {"driver": "file", "path": f"{unfinished / name}/"},
                    "metadata": metadata,
                    "store_data_equal_to_fill_value": True,
                    "create": True,
                }
            )
            for name, metadata in self.arrays
        ]
        writes = [o.result().write(a) for o, a in zip(under_way, arrays, strict=True)]
        for name, content in self.files.items():
            file = unfinished / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if name == TIMES:
                times = dict.fromkeys(("init_timestamp_nsecs", "commit_timestamp_nsecs"), now)
                content = json.dumps(json.loads(content) | times).encode()
            file.write_bytes(content.replace(str(self.path).encode(), str(path).encode()))
        for write in writes:
            write.result()
        unfinished.rename(path)


# Structure to its template; None where Orbax writes all.
_templates: dict[Hashable, _Template | None] = {}


def save(path: Path, tree: Any, save_by_orbax: Callable[[Path, Any], None]) -> None:
    """Writes a state of few and small arrays, all of them on this process, at once.

    Args:
        path: of the checkpoint, in a local folder.
        tree: the state.
        save_by_orbax: writes any state, and is done when it returns.
    """
    leaves, structure = jax.tree.flatten(tree)
    key = structure, tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
    template = _templates.get(key)
    if template is not None:
        template.write(path, _arrays(leaves))
        return
    save_by_orbax(path, tree)
    if key not in _templates:
        _templates[key] = _template(path, tree)


def _template(path: Path, tree: Any) -> _Template | None:
    """That of a checkpoint which Orbax has written; None if it would not be written alike."""
    names = [".".join(map(_name, keys)) for keys, _ in jax.tree.leaves_with_path(tree)]
    files = _files(path)
    try:
        arrays = tuple((name, json.loads(files[f"{name}/.zarray"])) for name in names)
    except (KeyError, ValueError):  # another format, or named in another way
        return None
    folders = tuple(f"{name}/" for name in names)
    others = {name: content for name, content in files.items() if not name.startswith(folders)}
    template = _Template(path, others, arrays)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / path.name
        template.write(again, _arrays(jax.tree.leaves(tree)))
        found = _files(again)
    found = {n: c.replace(str(again).encode(), str(path).encode()) for n, c in found.items()}
    found[TIMES] = files.get(TIMES, b"")  # of another time
    return template if found == files else None


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
    found = (file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in found}
