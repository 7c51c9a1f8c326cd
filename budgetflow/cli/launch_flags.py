"""The flags of a launch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from absl import flags

from budgetflow.base.errors import UserError
from budgetflow.cli.command_line import Flag

_CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")

FLAGS = (
    Flag(
        "config",
        None,
        "The study's config file; file.py:argument hands its get_config an argument.",
    ),
    Flag("workdir", "runs", "Where the studies' folders lie; gs:// works too."),
    Flag("dry_run", False, "Check everything, print the plan with the memory it needs, and stop."),
    Flag(
        "traceback",
        False,
        "With what is refused, show where in budgetflow and your own code it arose.",
    ),
    Flag("quiet", False, "Print what each study found, in a sentence, and nothing while it runs."),
    Flag(
        "same_results",
        False,
        "The code that these studies were begun with, budgetflow's or your own, has changed in a "
        "way that changes no number: go on all the same. Their outcomes say so.",
    ),
    Flag(
        "fork",
        None,
        "Run the config's study under this name beside the one that was begun with another config, "
        "and take over from that one what is still the same.",
    ),
    Flag(
        "wait",
        False,
        "Where another launcher runs a study, wait for it to end instead of refusing.",
    ),
    Flag(
        "ray",
        None,
        "Hand the trials out to the nodes of a Ray cluster: --ray for the one that this machine is "
        "a part of, or --ray=ADDRESS. All nodes see the workdir and the data under the same path; "
        "config.ray says what a trial needs of a node.",
    ),
    Flag(
        "grace_seconds",
        30.0,
        "Asked to stop (SIGTERM, SIGINT, SIGUSR1), save every trial within so many seconds and "
        "exit with status 75.",
        least=0.0,
    ),
    Flag(
        "profile_steps",
        None,
        "Trace these steps of each study's first trial, as in 100:110, into the study's folder "
        "profile/; open the perfetto_trace in it at ui.perfetto.dev.",
    ),
    Flag(
        "compilation_cache_dir",
        os.path.join(_CACHE, "budgetflow"),
        "Where compiled programs are kept for later launches; empty for nowhere. Where "
        "JAX_COMPILATION_CACHE_DIR is set, JAX's own settings hold instead.",
    ),
    Flag(
        "cluster",
        False,
        "Join the run's other hosts as the environment says: on every host of a Cloud TPU slice. "
        "Under SLURM or Open MPI with several tasks that is done without it.",
    ),
    Flag(
        "coordinator_address",
        None,
        "host:port of process 0, to join the run's other processes by hand.",
    ),
    Flag("num_processes", None, "How many processes the run has.", int, least=1),
    Flag("process_id", None, "The number of this process, from 0.", int, least=0),
)


def check_flags(values: flags.FlagValues) -> None:
    """Checks that flags for devices of this run are not given beside a cluster.

    Raises:
        UserError: they are.
    """
    for name in ("cluster", "num_processes", "profile_steps"):
        if values.ray is not None and values[name].value:
            raise UserError(f"--{name} is for trials on devices of this run; leave it or --ray out")


def parse_steps(text: str | None, lengths: Sequence[int | None]) -> tuple[int, int] | None:
    """The two steps of --profile_steps.

    Args:
        text: as in "100:110", or None.
        lengths: of the trials of each study, None where they are not known yet.

    Raises:
        UserError: they are not two, or no trial has them.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text, re.ASCII)
    if not (match and int(match[1]) < int(match[2])):
        raise UserError(f"--profile_steps={text}: should be two steps, as in 100:110")
    if None not in lengths and int(match[2]) > (most := max(filter(None, lengths))):
        raise UserError(f"--profile_steps={text}: no trial has more than {most} steps")
    return int(match[1]), int(match[2])
