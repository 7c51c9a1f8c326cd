"""Runs the study of a config file, and first the studies that it builds on.

    python -m budgetflow.launch --config=configs/round2.py
    python -m budgetflow.launch --config=configs/round2.py --dry_run
    python -m budgetflow.launch --config=my_sweep.py:small --config.data.batch_size=32
    python -m budgetflow.launch --config=my_sweep.py --config.sweep.learning_rates="(0.1, 0.3, 1)"

What is complete is not run again. Any key of the config can be set from here, and so can arguments
of model, task, optimizer, regularization and augmentation that the config file leaves out.
"""

from __future__ import annotations

import functools
import gc
import importlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import ml_collections
from absl import flags, logging
from etils import epath
from rich.console import Console

from budgetflow.base import processes, stopping
from budgetflow.base.errors import ConfigError, UserError
from budgetflow.base.file_system import clear_file_system_errors
from budgetflow.base.workdir import open_workdir
from budgetflow.cli import command_line
from budgetflow.cli.dry_run import dry_run_notes, dry_run_rows
from budgetflow.cli.launch_flags import FLAGS, check_flags, parse_steps
from budgetflow.cluster import cluster_executors, for_cluster
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
    say,
)
from budgetflow.results.terminal.progress import StudyProgress
from budgetflow.results.tracking import Tracking, check_trackers
from budgetflow.studies.kinds import check_follows, kind_of, parse_study
from budgetflow.studies.plan.chain import planned_chain, resolved
from budgetflow.studies.plan.fork import check_fork
from budgetflow.studies.run.controller import ExecutorFactory, run_study
from budgetflow.studies.store.folder import is_complete
from budgetflow.studies.store.lock import locked
from budgetflow.studies.store.trial import TrialRecord
from budgetflow.studies.study import Study, check_study

# XLA makes the threads of each at once, and dies of too many.
MAX_CPU_DEVICES = 1024


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
    for previous, study in itertools.pairwise(chain):
        check_follows(study, previous)
    return chain


def run_watched(
    study: Study,
    console: Console,
    profile_steps: tuple[int, int] | None = None,
    new_executor: ExecutorFactory | None = None,
) -> dict[str, Any]:
    """Runs a study like :func:`budgetflow.studies.run.controller.run_study`.

    Args:
        study: the study.
        console: where it is shown.
        profile_steps: the steps of its first trial between which to write a trace.
        new_executor: who trains its trials, in place of this run's devices.
    """
    devices = f"{study.mesh.size} x {study.mesh.devices.flat[0].device_kind}"
    devices = "the nodes of a cluster" if new_executor else devices
    trackers = study.config.trackers if processes.is_main() else ()
    progress = StudyProgress(console, study.folder.name, study.selection, devices)
    tracking = Tracking(trackers, study.folder)

    def on_progress(records: Iterable[TrialRecord], later_steps: Iterable[int]) -> None:
        progress(records, later_steps)
        tracking(records)

    with tracking, progress:
        outcome = run_study(
            study,
            on_progress,
            profile_steps,
            new_executor=new_executor,
            on_phase=progress.phase,
            on_decision=progress.decided,
        )
    for name, why in tracking.failed.items():
        say(
            console, f"{name} was switched off, and lacks some of this study: {why}", style="yellow"
        )
    return outcome


def launch(
    chain: list[StudyConfig],
    workdir: str,
    dry_run: bool,
    console: Console,
    same_results: bool = False,
    wait: bool = False,
    quiet: bool = False,
    forked_from: str | None = None,
    run: Callable[[Study, Console], dict[str, Any]] = run_watched,
) -> dict[str, Any] | None:
    """Runs the studies of a chain, each after the one it builds on.

    Args:
        chain: by :func:`load_chain`.
        workdir: where their folders lie.
        dry_run: whether to print the plan only.
        console: where to print.
        same_results: see :func:`budgetflow.studies.study.resolve`.
        wait: whether to wait where another launcher runs a study.
        quiet: whether to print what was found and nothing else.
        forked_from: the name of a study whose states the last one takes over.
        run: runs one study; returns its outcome.

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
    studies = resolved(chain, folder_of_all, same_results, forked_from)
    with clear_file_system_errors(folder_of_all):
        planned.record(folder_of_all)
        return _run_chain(studies, run, console, wait, quiet)


def _run_chain(
    studies: Iterable[Study],
    run: Callable[[Study, Console], dict[str, Any]],
    console: Console,
    wait: bool,
    quiet: bool,
) -> dict[str, Any] | None:
    """Runs studies one after the other, each in its folder; returns the last one's outcome."""
    summary_console, console = console, Console(quiet=True) if quiet else console
    results: list[StudyResult] = []
    outcome: dict[str, Any] | None = None
    trained = False
    for study in studies:
        was_complete = processes.on_main(is_complete, study)
        if not was_complete and processes.is_main():
            _prepare_reports()
        say_dimly = functools.partial(say, console, name=study.folder.name, style="dim")
        with nullcontext() if was_complete else locked(study.folder, wait, say_dimly):
            outcome = run(study, console)
        processes.on_main(_show, console, study.folder, was_complete, results)
        trained = trained or not was_complete
    if processes.is_main():
        print_summary(summary_console, results, trained)
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
    values = command_line.flag_values(FLAGS)
    config = command_line.parse(argv, values)
    check_flags(values)
    logging.set_verbosity(logging.ERROR)
    forked_from = None
    if values.fork is not None:
        forked_from, config.name = config.name or "", values.fork
    chain = load_chain(config)
    if values.ray is not None:
        chain = list(map(for_cluster, chain))
        # Devices are the workers': this process decides, and needs none.
        jax.config.update("jax_platforms", "cpu")
    profile_steps = parse_steps(values.profile_steps, [c.max_train_steps for c in chain])
    _keep_compiled(values["compilation_cache_dir"])
    _make_cpu_devices(chain, values.num_processes or processes.num_tasks())
    with processes.joined(
        values.coordinator_address, values.num_processes, values.process_id, values.cluster
    ):
        try:
            jax.devices()
        except RuntimeError as error:
            raise UserError(f"JAX finds no devices to run on: {error}") from error
        new_executor = cluster_executors(values.ray) if values.ray is not None else None
        stopping.listen(values.grace_seconds)
        launch(
            chain,
            values.workdir,
            values.dry_run,
            Console(quiet=not processes.is_main()),
            values.same_results,
            values.wait,
            values.quiet,
            forked_from,
            functools.partial(run_watched, profile_steps=profile_steps, new_executor=new_executor),
        )


def _keep_compiled(flag: flags.Flag[str]) -> None:
    """Has JAX keep all that it compiles, however small: a small study is mostly compiling.

    Args:
        flag: names the folder.
    """
    folder = flag.value
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
    parts = [
        __doc__ or "",
        command_line.flags_help(command_line.flag_values(FLAGS)),
        command_line.config_keys_help(argv),
    ]
    if any(argument.endswith("helpfull") for argument in argv):
        parts.append(f"Flags of libraries:\n{flags.FLAGS}")
    return "\n\n".join(part.rstrip() for part in parts)


def run() -> None:
    """Parses the command line and runs; user errors become one line and exit status 2."""
    # What is imported stays: to look it all through, collection after collection, takes a second.
    gc.freeze()
    try:
        if command_line.asks_for_help(sys.argv):
            print(_help(sys.argv))
        else:
            main(sys.argv)
        if jax.process_count() == 1:  # several must part from each other in order
            # All is written; to take JAX and Orbax down takes most of a second.
            processes.exit_at_once(0)
    except UserError as error:
        command_line.print_error(error)
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
