"""Checkpoints: plain Orbax folders, which ones to keep, and proof that they are undamaged.

Every call to Orbax stands in this file. A trial's folder holds ``checkpoints/<step>``, each
readable by Orbax alone (README.md has the lines, for any devices), and ``checksums.json``, which
names the files of each. Orbax restores a flipped byte without a word, hence the checksums. A
checkpoint counts from the moment its checksums are recorded.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from budgetflow.base import processes
from budgetflow.base.errors import DamagedFileError
from budgetflow.base.file_system import as_user_error
from budgetflow.base.files import read_json, write_json

# States up to this size wait on the device for the next save; larger ones are written at once.
COPY_LIMIT_BYTES = 256 * 2**20
# States up to this size are written by the next evaluation; to wait for larger ones takes long.
SMALL_BYTES = 2**20
# Coroutines of Orbax that are left where a write fails.
_NEVER_AWAITED = (
    "_async_serialize",
    "_serialize_arrays",
    "BasePyTreeCheckpointHandler",
    "cancellable",
)


def steps_to_keep(
    rows: Sequence[dict[str, Any]],
    cost: Callable[[dict[str, Any]], float],
    keep_best: int,
    pinned: Sequence[int],
    latest: int,
) -> set[int]:
    """The steps whose checkpoints a trial keeps beside its latest, of all that it has evaluated.

    Those are: the best ``keep_best``, with the lowest finite ``cost`` of their rows (the earliest
    of ties); every pinned step up to the latest; and, so that a run that continues from a pinned
    step can still select from everything before it, the best ones up to each pinned step.
    """

    def best(until: float) -> list[int]:
        usable = [row for row in rows if row["step"] <= until and math.isfinite(cost(row))]
        usable.sort(key=lambda row: (cost(row), row["step"]))
        return [row["step"] for row in usable[:keep_best]]

    reached = [step for step in pinned if step <= latest]
    keep = {*reached, *best(math.inf)}
    for step in reached:
        keep.update(best(step))
    return keep


class TrialCheckpoints:
    """The checkpoints of one trial.

    Where a run has several processes, all of them call every method at the same point: process 0
    decides and writes the checksums, all write the arrays, those of the trial read them.

    A state that is worth keeping is held on the device and written with the next save: saving small
    states at every evaluation would cost more than training them. Of one that is the latest only,
    no copy is needed: it is saved where it stands. A kill loses nothing, since the training after
    the last save is deterministic and finds the same states again.

    Args:
        folder: the trial's folder.
        every_seconds: how long to hold states before they are saved; 0 saves at once.
        to_all: makes a state one that every process has a share in, as Orbax needs it.

    Attributes:
        folder: the trial's folder.
        latest_on_disk: the step of the state that was saved last, or that was restored; 0 if none.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        every_seconds: float = 60.0,
        to_all: Callable[[Any], Any] = lambda state: state,
    ) -> None:
        self.folder = epath.Path(folder)
        self._every_seconds = every_seconds
        self._to_all = to_all
        self._saved_at = time.monotonic()
        # Step to state: copies that wait on the device for the next save.
        self._waiting: dict[int, Any] = {}
        self.latest_on_disk = 0
        # The steps of the save under way, and the steps to keep when it is done.
        self._under_way: tuple[list[int], set[int]] | None = None

    def hold(self, step: int, state: Any, keep: set[int]) -> bool:
        """Holds a copy of a state that is worth keeping, or saves all of them when it is time.

        Args:
            step: the latest step.
            state: its train state; only its shapes on processes that have no part of it.
            keep: the steps worth keeping beside the latest, by :func:`steps_to_keep`.

        Returns:
            Whether it was time to save.
        """
        if (size := _nbytes(state)) <= SMALL_BYTES:
            self.finish()  # so that a kill from here on loses nothing of the last save
        is_large = step in keep and size > COPY_LIMIT_BYTES
        if is_large or processes.on_main(self._is_due):
            self.save(keep, step, state)
            return True
        self._drop_waiting(keep)
        if step in keep:
            self._waiting[step] = _copy(state)
        return False

    def _drop_waiting(self, keep: set[int]) -> None:
        """Lets go of the waiting states of all other steps."""
        self._waiting = {step: state for step, state in self._waiting.items() if step in keep}

    def _is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._every_seconds

    def save(self, keep: set[int], step: int, state: Any | None) -> None:
        """Starts writing the waiting states and the latest one; then all others are deleted.

        Orbax writes on its own thread; :meth:`finish` waits for it. The state may be donated
        meanwhile: Orbax has copied it by then, or holds its memory, which JAX then leaves.

        Args:
            keep: the steps worth keeping, as in :meth:`hold`.
            step: the latest step.
            state: its state; None if nobody can go on from it.
        """
        self.finish()
        self._drop_waiting(keep)
        if state is not None and step != self.latest_on_disk:
            self._waiting[step] = state
        steps = sorted(self._waiting)
        processes.on_main(self._delete, steps)
        for waiting_step in steps:
            tree = self._to_all(self._waiting[waiting_step])._asdict()
            _checkpointer().save(self._path(waiting_step), tree)
        if step in steps:
            self.latest_on_disk = step
        self._under_way = (steps, {*keep, step})
        self._waiting = {}
        self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Waits for the save under way, records its checksums and deletes the surplus."""
        if self._under_way is None:
            return
        _checkpointer().wait_until_finished()
        processes.on_main(self._record, *self._under_way)
        self._under_way = None

    def end_writing(self) -> None:
        """Waits for the save under way of a run that ended by an error, and leaves it uncounted.

        Otherwise it would still be writing when the trial is resumed in the same process. Several
        processes do not wait: the one that they would wait for may be lost.
        """
        if self._under_way is not None and jax.process_count() == 1:
            with contextlib.suppress(Exception):  # the run's own error is raised
                _checkpointer().wait_until_finished()
        self._under_way = None

    def _record(self, steps: list[int], keep: set[int]) -> None:
        checksums = self._checksums()
        checksums |= {str(step): _file_checksums(self._path(step)) for step in steps}
        write_json(
            self.folder / "checksums.json", {s: checksums[s] for s in sorted(checksums, key=int)}
        )
        self._delete([int(step) for step in checksums if int(step) not in keep])

    def steps(self) -> list[int]:
        """The steps of all checkpoints on disk, ascending; none where their checksums are lost."""
        return sorted(int(step) for step in self._checksums())

    def set_aside_damaged(self) -> list[int]:
        """Renames checkpoints that are not what was saved, so that they count no more; their steps.

        They are kept, as ``checkpoints/<step>.damaged``.
        """
        damaged = []
        for step in self.steps():
            try:
                verify(self.folder, step)
            except DamagedFileError:
                damaged.append(step)
        self._discount(damaged)
        for step in damaged:
            path = self._path(step)
            if path.exists():
                aside = path.parent / f"{step}.damaged"
                if aside.exists():
                    aside.rmtree()
                path.rename(aside)
        return damaged

    def restore(self, step: int, like: Any) -> Any:
        """The state at ``step``, in the structure, shapes and sharding of ``like``.

        Where this process has none of ``like``'s devices, ``like`` itself comes back.

        Raises:
            DamagedFileError: the checkpoint is not what was saved; the message names the file.
        """
        processes.on_main(verify, self.folder, step)
        self.latest_on_disk = step
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        devices = jax.tree.leaves(target)[0].sharding.device_set
        taking_part = tuple(sorted({device.process_index for device in devices}))
        if jax.process_index() not in taking_part:
            return like
        return type(like)(**_checkpointer(taking_part).restore(self._path(step), target))

    def adopt(self, other: epath.PathLike, steps: Sequence[int]) -> None:
        """Copies checkpoints of another trial, verified, into this one's folder.

        Raises:
            DamagedFileError: one of them is damaged; none is copied.
        """
        checksums = self._checksums()
        theirs = read_json(epath.Path(other) / "checksums.json")
        for step in steps:
            verify(other, step)
        for step in steps:
            source = epath.Path(other) / "checkpoints" / str(step)
            for name in theirs[str(step)]:
                target = self._path(step) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (source / name).copy(target, overwrite=True)
            checksums[str(step)] = theirs[str(step)]
        write_json(self.folder / "checksums.json", checksums)

    def _delete(self, steps: Sequence[int]) -> None:
        """Deletes checkpoints, their checksums first: a kill leaves none that seems damaged."""
        self._discount(steps)
        for step in steps:
            if self._path(step).exists():
                self._path(step).rmtree()

    def _discount(self, steps: Sequence[int]) -> None:
        """Removes the checksums of checkpoints, so that they no longer count."""
        recorded = self._checksums() if steps else {}
        left = {step: files for step, files in recorded.items() if int(step) not in steps}
        if len(left) < len(recorded):
            write_json(self.folder / "checksums.json", left)

    def _path(self, step: int) -> epath.Path:
        return self.folder / "checkpoints" / str(step)

    def _checksums(self) -> dict[str, dict[str, str]]:
        """Step to the checksums of its files; empty if the file is missing or damaged."""
        path = self.folder / "checksums.json"
        try:
            recorded = read_json(path) if path.exists() else {}
        except DamagedFileError:
            return {}
        return recorded if all(map(str.isdecimal, recorded)) else {}


@functools.cache  # Its threads last as long as the process; it holds no states between saves.
def _checkpointer(taking_part: tuple[int, ...] = ()) -> ocp.StandardCheckpointer:
    """One for each set of processes (none given: all); each has threads of its own."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_raised_again)
    _leave_out_closed_loops()
    if len(taking_part) in (0, jax.process_count()):
        return ocp.StandardCheckpointer()
    return ocp.StandardCheckpointer(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=taking_part[0],
            active_processes=set(taking_part),
            barrier_sync_key_prefix=f"processes_{'_'.join(map(str, taking_part))}",
        )
    )


def _is_not_raised_again(line: logging.LogRecord) -> bool:
    """Whether a line is no error (of the file system, a lost process) that is raised as well."""
    error = line.exc_info[1] if line.exc_info else None
    return error is None or (as_user_error(error) is None and "barrier" not in str(error))


@functools.cache  # Once in a process.
def _leave_out_closed_loops() -> None:
    """Has Python not print of Orbax's writes that another one's failure ended; that is raised."""
    tell = sys.unraisablehook

    def tell_others(raised: Any) -> None:
        # TensorStore's threads, which wake the loop that Orbax has closed by then.
        if raised.object is not None or str(raised.exc_value) != "Event loop is closed":
            tell(raised)

    sys.unraisablehook = tell_others
    for name in _NEVER_AWAITED:
        message = f"coroutine '{name}.*' was never awaited"
        warnings.filterwarnings("ignore", message, RuntimeWarning)


def _nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _copy(state: Any) -> Any:
    """A copy on the same devices; shapes, which other processes' states are here, stay shapes."""
    is_shape = isinstance(jax.tree.leaves(state)[0], jax.ShapeDtypeStruct)
    return state if is_shape else _copy_arrays(state)


@jax.jit
def _copy_arrays(state: Any) -> Any:
    return jax.tree.map(jnp.copy, state)


def restore_as_numpy(trial_folder: epath.PathLike, step: int) -> dict[str, Any]:
    """A checkpoint as nested dicts of NumPy arrays, on any machine.

    Raises:
        DamagedFileError: the checkpoint is not what was saved.
    """
    verify(trial_folder, step)
    path = epath.Path(trial_folder) / "checkpoints" / str(step)
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(path, restore_args=arguments)


def verify(trial_folder: epath.PathLike, step: int) -> None:
    """Compares a checkpoint with its recorded checksums.

    Raises:
        DamagedFileError: a file is missing or changed.
    """
    folder = epath.Path(trial_folder)
    path, checksums = folder / "checkpoints" / str(step), folder / "checksums.json"
    recorded = (read_json(checksums) if checksums.exists() else {}).get(str(step))
    if recorded is None:
        raise DamagedFileError(
            f"{path} has no checksum in {checksums}; delete {folder} to train that trial again"
        )
    on_disk = _file_checksums(path) if path.exists() else {}
    for name, checksum in recorded.items():
        if on_disk.get(name) != checksum:
            state = "is damaged" if name in on_disk else "is missing"
            raise DamagedFileError(
                f"{path / name} {state}; delete {folder} to train that trial again"
            )


def _file_checksums(path: epath.Path) -> dict[str, str]:
    # The standard library's walk takes less time than etils', where it can be had.
    local = path if "://" in str(path) else Path(path)
    checksums: dict[str, str] = {}

    def visit(folder: Any, prefix: str) -> None:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir():
                visit(entry, f"{prefix}{entry.name}/")
            else:
                content = hashlib.sha256(entry.read_bytes())
                checksums[f"{prefix}{entry.name}"] = content.hexdigest()

    visit(local, "")
    return checksums
