"""Runs the study of a config file, and first the studies that it builds on.

    python -m budgetflow.launch --config=configs/round2.py
    python -m budgetflow.launch --config=configs/round2.py --dry_run
    python -m budgetflow.launch --config=my_sweep.py:small --config.data.batch_size=32
    python -m budgetflow.launch --config=my_sweep.py --config.sweep.learning_rates="(0.1, 0.3, 1)"

What is complete is not run again. Any key of the config can be set from here, and so can arguments
of model, task, optimizer, regularization and augmentation that the config file leaves out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import importlib
import itertools
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
from absl import flags, logging
from etils import epath
from rich.console import Console

from budgetflow.base import processes, stopping
from budgetflow.base.errors import ConfigError, UserError
from budgetflow.base.file_system import told_in_one_line
from budgetflow.base.workdir import open_workdir
from budgetflow.cli import command_line
from budgetflow.cli.dry_run import dry_run_notes, dry_run_rows
from budgetflow.cli.watched_run import held, run_watched
from budgetflow.cluster import for_cluster, hiring
from budgetflow.config import StudyConfig, load_config_file
from budgetflow.config.loading import MOST_STUDIES
from budgetflow.engine.training.mesh import cpu_devices, cpu_devices_are_given
from budgetflow.playbook.budget.words import plan_rows
from budgetflow.results.kind_views import planned_fields
from budgetflow.results.reading import StudyResult, open_study
from budgetflow.results.terminal.printing import (
    print_outcome,
    print_plan,
    print_summary,
    print_table,
)
from budgetflow.results.tracking import check_trackers
from budgetflow.studies.kinds import check_follows, kind_of, parse_study
from budgetflow.studies.plan.chain import lengths_to_come, planned_chain
from budgetflow.studies.plan.fork import check_fork
from budgetflow.studies.run.controller import Hire
from budgetflow.studies.store.folder import is_complete
from budgetflow.studies.study import Study, check_study, resolve

# XLA makes the threads of each at once, and dies of too many.
MAX_CPU_DEVICES = 1024

flags.DEFINE_string(
    "config", None, "The study's config file; file.py:argument hands its get_config an argument."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", "runs", "Where the studies' folders lie; gs:// works too."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Check everything, print the plan with the memory it needs, and stop."
)
_TRACEBACK = flags.DEFINE_bool(
    "traceback", False, "With what is refused, show where in budgetflow and your own code it arose."
)
_QUIET = flags.DEFINE_bool(
    "quiet", False, "Print what each study found, in a sentence, and nothing while it runs."
)
_SAME_RESULTS = flags.DEFINE_bool(
    "same_results",
    False,
    "The code that these studies were begun with, budgetflow's or your own, has changed in a way "
    "that changes no number: go on all the same. Their outcomes say so.",
)
_FORK = flags.DEFINE_string(
    "fork",
    None,
    "Run the config's study under this name beside the one that was begun with another config, and "
    "take over from that one what is still the same.",
)
_WAIT = flags.DEFINE_bool(
    "wait", False, "Where another launcher runs a study, wait for it to end instead of refusing."
)
_RAY = flags.DEFINE_string(
    "ray",
    None,
    "Hand the trials out to the nodes of a Ray cluster: --ray for the one that this machine is a "
    "part of, or --ray=ADDRESS. All nodes see the workdir and the data under the same path; "
    "config.ray says what a trial needs of a node.",
)
_GRACE_SECONDS = flags.DEFINE_float(
    "grace_seconds",
    30.0,
    "Asked to stop (SIGTERM, SIGINT, SIGUSR1), save every trial within so many seconds and exit "
    "with status 75.",
    lower_bound=0.0,
)
_PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps",
    None,
    "Trace these steps of each study's first trial, as in 100:110, into the "
    "study's folder profile/; open the perfetto_trace in it at ui.perfetto.dev.",
)
_COMPILATION_CACHE_DIR = flags.DEFINE_string(
    "compilation_cache_dir",
    os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "budgetflow"),
    "Where compiled programs are kept for later launches; empty for nowhere. Where "
    "JAX_COMPILATION_CACHE_DIR is set, JAX's own settings hold instead.",
)
_CLUSTER = flags.DEFINE_bool(
    "cluster",
    False,
    "Join the run's other hosts as the environment says: on every host of a "
    "Cloud TPU slice. Under SLURM or Open MPI with several tasks that is done without it.",
)
_COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address",
    None,
    "host:port of process 0, to join the run's other processes by hand.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes the run has.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "The number of this process, from 0.", lower_bound=0
)


def load_chain(config: ml_collections.ConfigDict) -> list[StudyConfig]:
    """The study of a config and all that it builds on, the first one first.

    Raises:
        ConfigError: one of the configs is refused, or the chain leads back to itself.
    """
    chain = [parse_study(config)]
    seen: set[str] = set()
    while (path := chain[0].builds_on) is not None:
        if os.path.abspath(path) in seen or len(seen) == MOST_STUDIES:
            raise ConfigError(f"config.builds_on: {path} builds on itself")
        seen.add(os.path.abspath(path))
        try:
            chain.insert(0, parse_study(load_config_file(path)))
        except ConfigError as error:
            raise ConfigError(f"config.builds_on = {path!r}: {error}") from error
    names = [study.name for study in chain]
    if len(set(names)) < len(names):
        raise ConfigError(f"studies that build on each other need names of their own, not {names}")
    for earlier, study in itertools.pairwise(chain):
        check_follows(study, earlier)
    return chain


def launch(
    chain: list[StudyConfig],
    workdir: str,
    dry_run: bool,
    console: Console,
    profile_steps: tuple[int, int] | None = None,
    same_results: bool = False,
    wait: bool = False,
    quiet: bool = False,
    hire: Hire | None = None,
    forked_from: str | None = None,
) -> dict[str, Any] | None:
    """Runs the studies of a chain, each after the one it builds on.

    Args:
        chain: by :func:`load_chain`.
        workdir: where their folders lie.
        dry_run: whether to print the plan only.
        console: where to print.
        profile_steps: the steps of each study's first trial between which to write a trace.
        same_results: see :func:`budgetflow.studies.study.resolve`.
        wait: whether to wait where another launcher runs a study.
        quiet: whether to print what was found and nothing else.
        hire: who trains the trials, in place of this run's devices.
        forked_from: the name of a study whose states the last one takes over.

    Returns:
        The last study's outcome; None after a dry run.

    Raises:
        UserError: see its message.
    """
    folder_of_all = check(chain, workdir)
    if forked_from is not None:
        processes.on_main(check_fork, chain[-1], forked_from, folder_of_all)
    planned = planned_chain(chain, folder_of_all)
    if planned.plan is not None:
        chain = planned.studies
        check(chain, workdir)
        print_plan(console, plan_rows(planned.plan), planned.sentences())
        print_table(console, planned_fields(planned.fields()))
    if dry_run:
        rows = dry_run_rows(chain, folder_of_all, same_results)
        print_plan(console, rows, dry_run_notes(chain, rows, folder_of_all))
        return None
    with told_in_one_line(folder_of_all):
        planned.record(folder_of_all)
        watched = functools.partial(run_watched, profile_steps=profile_steps, hire=hire)
        return _run_chain(
            chain, folder_of_all, console, watched, same_results, wait, quiet, forked_from
        )


def _run_chain(
    chain: list[StudyConfig],
    folder_of_all: epath.Path,
    console: Console,
    run: Callable[[Study, Console], dict[str, Any]],
    same_results: bool,
    wait: bool,
    quiet: bool,
    forked_from: str | None,
) -> dict[str, Any] | None:
    """Runs the studies of a chain, each in its folder; see :func:`launch`."""
    summary, console = console, Console(quiet=True) if quiet else console
    earlier: epath.Path | None = None
    results: list[StudyResult] = []
    outcome: dict[str, Any] | None = None
    trained = False
    for number, study_config in enumerate(chain):
        folder = folder_of_all / study_config.name
        study = resolve(study_config, folder, earlier, same_results)
        to_come = lengths_to_come(study.max_train_steps, chain[number + 1 :])
        study = dataclasses.replace(study, lengths_to_come=to_come)
        if study_config is chain[-1]:
            study = dataclasses.replace(study, forked_from=forked_from)
        was_complete = processes.on_main(is_complete, study)
        if not was_complete and processes.is_main():
            _prepare_reports()
        with contextlib.nullcontext() if was_complete else held(folder, wait, console):
            outcome = run(study, console)
        processes.on_main(_show, console, folder, was_complete, results)
        trained = trained or not was_complete
        earlier = folder
    if processes.is_main():
        print_summary(summary, results, trained)
    return outcome


def check(chain: list[StudyConfig], workdir: str) -> epath.Path:
    """Checks all that can be checked before any study of a chain has run; compiles nothing.

    Returns:
        The folder that the studies' folders lie in.

    Raises:
        UserError: the workdir, or a study's config, is refused.
    """
    folder_of_all = processes.on_main(open_workdir, workdir)
    for study_config in chain:
        if not study_config.name:
            raise ConfigError("config.name is missing; the study's folder is named so")
        folder = folder_of_all / study_config.name
        if processes.on_main(lambda path: path.exists() and not path.is_dir(), folder):
            raise UserError(f"{folder} is a file; give another --workdir or config.name")
        check_trackers(study_config.trackers)
        check_study(study_config)
    return folder_of_all


def _prepare_reports() -> None:
    """Readies what reports are drawn with, which takes seconds: on a thread, while XLA compiles.

    Not before a study is resolved: its code is parsed then, as imports may be, and in Python 3.11
    either fails now and then where two threads parse at once and garbage collection calls back into
    Python, as JAX has it do. The next study waits, since the report does.
    """

    def prepare() -> None:
        importlib.import_module("budgetflow.results.report.page").library()

    threading.Thread(target=prepare, daemon=True).start()


def _show(
    console: Console, folder: epath.Path, was_complete: bool, results: list[StudyResult]
) -> None:
    """Prints a study's outcome and writes its report, if that is new; adds it to the results."""
    results.append(result := open_study(folder))
    if not was_complete:
        print_outcome(console, result)
    if not was_complete or not (folder / "report.html").exists():
        # Pandas takes a second to import, which a launch that trains nothing can do without.
        from budgetflow.results.report.page import write_report

        write_report(result)


def main(argv: Sequence[str]) -> None:
    """The launcher, for a command line."""
    # A flag alone, without an address.
    argv = ["--ray=" if argument == "--ray" else argument for argument in argv]
    config = command_line.parse(argv, flags.FLAGS)
    _check_flags()
    logging.set_verbosity(logging.ERROR)
    forked_from = None
    if _FORK.value is not None:
        forked_from, config.name = config.name or "", _FORK.value
    chain = load_chain(config)
    if (cluster := _RAY.value) is not None:
        chain = list(map(for_cluster, chain))
        # Devices are the workers': this process decides, and needs none.
        jax.config.update("jax_platforms", "cpu")
    profile_steps = parse_steps(_PROFILE_STEPS.value, [c.max_train_steps for c in chain])
    _keep_compiled(_COMPILATION_CACHE_DIR.value)
    _make_cpu_devices(chain, _NUM_PROCESSES.value or processes.num_tasks())
    with processes.joined(
        _COORDINATOR_ADDRESS.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _CLUSTER.value
    ):
        try:
            jax.devices()
        except RuntimeError as error:
            raise UserError(f"JAX finds no devices to run on: {error}") from error
        hire = hiring(cluster) if cluster is not None else None
        stopping.listen(_GRACE_SECONDS.value)
        console = Console(quiet=not processes.is_main())
        launch(
            chain,
            _WORKDIR.value,
            _DRY_RUN.value,
            console,
            profile_steps=profile_steps,
            same_results=_SAME_RESULTS.value,
            wait=_WAIT.value,
            quiet=_QUIET.value,
            hire=hire,
            forked_from=forked_from,
        )


def _check_flags() -> None:
    """Checks that flags for devices of this run are not given beside a cluster.

    Raises:
        UserError: they are.
    """
    alone = {flag.name: flag.value for flag in (_CLUSTER, _NUM_PROCESSES, _PROFILE_STEPS)}
    for name, value in alone.items():
        if _RAY.value is not None and value:
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
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text, re.ASCII)
    if not (found and int(found[1]) < int(found[2])):
        raise UserError(f"--profile_steps={text}: should be two steps, as in 100:110")
    if None not in lengths and int(found[2]) > (most := max(filter(None, lengths))):
        raise UserError(f"--profile_steps={text}: no trial has more than {most} steps")
    return int(found[1]), int(found[2])


def _keep_compiled(folder: str) -> None:
    """Has JAX keep all that it compiles, however small: a small study is mostly compiling."""
    flag = flags.FLAGS["compilation_cache_dir"]
    if folder and not flag.using_default_value:  # JAX would go on without it, and say nothing
        folder = str(open_workdir(folder, f"--{flag.name}"))
    if folder and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _make_cpu_devices(chain: list[StudyConfig], num_processes: int) -> None:
    """Makes as many virtual devices of the CPU as the meshes ask for, unless XLA_FLAGS say."""
    most = max(cpu_devices(config.mesh, kind_of(config).num_trials(config)) for config in chain)
    if most > MAX_CPU_DEVICES:
        raise ConfigError(
            f"config.mesh asks for {most} devices (trial x data x fsdp); a CPU has "
            f"at most {MAX_CPU_DEVICES}, and use for one on each core"
        )
    if most > 1 and not cpu_devices_are_given():
        jax.config.update("jax_num_cpu_devices", max(1, most // num_processes))


def _help(argv: list[str]) -> str:
    everything = any(argument.endswith("helpfull") for argument in argv)
    listed = str(flags.FLAGS) if everything else flags.FLAGS.module_help(sys.modules[__name__])
    return f"{__doc__}\n{listed}\n\n{command_line.describe(argv)}"


def run() -> None:
    """Parses the command line and runs; user errors become one line and exit status 2."""
    # What is imported stays: to look it all through, collection after collection, takes a second.
    gc.freeze()
    try:
        if set(sys.argv) & set(command_line.HELP):
            print(_help(sys.argv))
        else:
            main(sys.argv)
        if jax.process_count() == 1:  # several must part from each other in order
            # All is written; to take JAX and Orbax down takes most of a second.
            processes.exit_at_once(0)
    except UserError as error:
        # Flags may not be parsed yet.
        if "--traceback" in sys.argv:
            traceback.print_exception(error)
        print(f"budgetflow: {error}", file=sys.stderr)
        processes.exit_at_once(2)
    except stopping.StoppedError:
        if processes.is_main():
            words = "budgetflow: stopped, all saved; launch again to go on from here"
            print(words, file=sys.stderr)
        processes.part()
        processes.exit_at_once(stopping.STOPPED_STATUS)
    except KeyboardInterrupt:
        # What is recorded is safe at any time.
        print("budgetflow: interrupted; launch again to go on from here", file=sys.stderr)
        processes.exit_at_once(130)
