"""Several processes that run one launch: how they join, agree and end.

Every process runs the same program. Process 0 alone writes files other than checkpoints, and what
could differ between processes (the time, the content of files) is taken from process 0. With a
single process nothing of this costs anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np

from budgetflow.base import messages
from budgetflow.base.errors import StoppedError, UserError

Value = TypeVar("Value")
# A process that is silent for so long counts as lost; the others then end themselves.
HEARTBEAT_TIMEOUT_SECONDS = 30
# A user error mostly ends all processes. JAX aborts those that still run when process 0 ends, which
# would keep them from printing it.
HEAD_START_SECONDS = 3
LOST = (
    "budgetflow: this process or another one of the run was lost; launch again on all hosts to go "
    "on from the last checkpoints"
)
# The variables in which SLURM and Open MPI say how many tasks they started, one process each.
_TASK_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
# Words in the errors of collectives that lost a process.
_LOST_PEER = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat", "barrier")


@contextlib.contextmanager
def joined(
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
    cluster: bool,
) -> Iterator[None]:
    """Joins the other processes of the run, if there are any; to be entered before JAX is used.

    A process that ends early prints what to do and does not wait for the others, which notice
    within :data:`HEARTBEAT_TIMEOUT_SECONDS`.

    Args:
        coordinator_address: "host:port" at which all processes can reach process 0.
        num_processes: how many there are.
        process_id: the number of this process.
        cluster: whether to take these from the environment (Cloud TPU, SLURM, Open MPI…).

    Raises:
        UserError: the arguments are incomplete, or the others do not answer.
    """
    given = (coordinator_address, num_processes, process_id)
    if any(value is not None for value in given) and None in given:
        raise UserError("--coordinator_address, --num_processes and --process_id go together")
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise UserError(
            f"--process_id={process_id}: should be less than --num_processes = {num_processes}"
        )
    if coordinator_address is not None and not re.fullmatch(r".+:\d+", coordinator_address):
        raise UserError(f"--coordinator_address={coordinator_address}: should be host:port")
    if None in given and not cluster and num_tasks() == 1:
        yield
        return
    # JAX would otherwise keep SIGTERM from ending the process.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(*given, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of the run did not find each other: {error}") from error
    # JAX aborts a process whose peers are lost; this shell outlives it, and prints what to do.
    watcher = subprocess.Popen(
        ["sh", "-c", f"trap '' INT; read -r ended || echo '{LOST}' >&2"],
        stdin=subprocess.PIPE,
        text=True,
    )
    try:
        yield
    except (UserError, StoppedError, KeyboardInterrupt) as error:
        if isinstance(error, UserError) and jax.process_count() > 1 and is_main():
            time.sleep(HEAD_START_SECONDS)
        watcher.communicate("ended\n")
        raise
    except Exception as error:
        if any(word in str(error) for word in _LOST_PEER):
            print(f"budgetflow: {str(error).splitlines()[0]}", file=sys.stderr)
        else:
            traceback.print_exc()
        exit_at_once(1)
    watcher.communicate("ended\n")


def exit_at_once(status: int) -> NoReturn:
    """Ends this process without waiting for other processes or for trials on other threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def part() -> None:
    """Waits for the run's other processes, which would count one that ends earlier as lost."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def num_tasks() -> int:
    """How many processes SLURM or Open MPI started together with this one.

    Raises:
        UserError: the environment variable holds no number.
    """
    counts = {name: os.environ.get(name, "1") for name in _TASK_COUNTS}
    for name, count in counts.items():
        if not count.isdecimal():
            raise UserError(f"the environment variable {name} = {count!r} should be a number")
    return max(map(int, counts.values()))


def is_main() -> bool:
    """Whether this is process 0, which decides, writes and prints."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """The values of all processes, by process; every process must call this at the same point.

    Args:
        value: of a type that :mod:`budgetflow.base.messages` knows.
    """
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    mine = np.frombuffer(messages.to_bytes(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(mine.size)).reshape(-1)
    # One of a few sizes, since each compiles anew.
    padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)
    padded[: mine.size] = mine
    rows = multihost_utils.process_allgather(padded)
    return [
        messages.from_bytes(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)
    ]


def on_main(function: Callable[..., Value], *arguments: Any) -> Value:
    """Calls a function on process 0 alone and gives every process its result.

    Args:
        function: its result is of a type that :mod:`budgetflow.base.messages` knows.
        arguments: its arguments.

    Raises:
        UserError, OSError: what the function raised, on every process.
    """
    if jax.process_count() == 1:
        return function(*arguments)
    result: tuple[Any, UserError | OSError | None] = (None, None)
    if is_main():
        try:
            result = (function(*arguments), None)
        except (UserError, OSError) as error:
            result = (None, error)
    value, raised = gather(result)[0]
    if raised is not None:
        raise raised
    return value
