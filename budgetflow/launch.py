"""Runs the study of a config file, and first the studies that it builds on.

    python -m budgetflow.launch --config=configs/round2.py

What is complete is not run again. Any key of the config can be set from here, as in
--config.data.batch_size=32; the keys are those of budgetflow.config.StudyConfig.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags, logging
from etils import epath
from ml_collections import config_flags
from rich.console import Console

from budgetflow.config import StudyConfig, clear_errors, load_config_file, parse_config
from budgetflow.errors import ConfigError, UserError, nearest
from budgetflow.playbook import lr_sweep
from budgetflow.results.reading import StudyResult, open_study
from budgetflow.results.terminal import (
    StudyProgress,
    print_outcome,
    print_plan,
    print_summary,
)
from budgetflow.studies.controller import run_study
from budgetflow.studies.study import Study, check_study, read_outcome, resolve

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The study's config file.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", "runs", "Where the studies' folders lie; gs:// works too."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check everything, print the plan, and stop.")


def load_chain(config: ml_collections.ConfigDict) -> list[StudyConfig]:
    """The study of a config and all that it builds on, the first one first.

    Raises:
        ConfigError: one of the configs is refused, or the chain leads back to itself.
    """
    chain = [parse_config(config)]
    seen: set[Path] = set()
    while (path := chain[0].builds_on) is not None:
        if Path(path).resolve() in seen:
            raise ConfigError(f"config.builds_on: {path} builds on itself")
        seen.add(Path(path).resolve())
        chain.insert(0, parse_config(load_config_file(path)))
    names = [study.name for study in chain]
    if len(set(names)) < len(names):
        raise ConfigError(f"studies that build on each other need names of their own, not {names}")
    return chain


def launch(
    config: ml_collections.ConfigDict, workdir: str, dry_run: bool, console: Console
) -> dict[str, Any] | None:
    """Runs a study after the ones it builds on.

    Returns:
        The study's outcome; None after a dry run.

    Raises:
        UserError: see its message.
    """
    chain = load_chain(config)
    for study_config in chain:
        check_study(study_config)
    if dry_run:
        print_plan(console, _plan(chain, epath.Path(workdir)))
        return None
    earlier: epath.Path | None = None
    results: list[StudyResult] = []
    trained = False
    for study_config in chain:
        folder = epath.Path(workdir) / study_config.name
        study = resolve(study_config, folder, earlier)
        was_complete = read_outcome(folder) is not None
        with StudyProgress(console, study_config.name) as progress:
            run_study(study, progress, earlier)
        results.append(open_study(folder))
        if not was_complete:
            trained = True
            print_outcome(console, results[-1])
        if not was_complete or not (folder / "report.html").exists():
            # Matplotlib takes a second to import, which a launch that trains nothing can do
            # without.
            from budgetflow.results.report import write_report

            write_report(results[-1])
        earlier = folder
    print_summary(console, results, trained)
    return results[-1].outcome


def _plan(chain: list[StudyConfig], workdir: epath.Path) -> list[dict[str, Any]]:
    """What a launch would do; lengths that wait for an earlier answer are given as such."""
    rows: list[dict[str, Any]] = []
    earlier: epath.Path | None = None
    known = True
    for config in chain:
        folder = workdir / config.name
        row: dict[str, Any] = {"study": config.name, "kind": config.kind}
        if known:
            study = resolve(config, folder, earlier)
            row |= _planned_steps(study)
            complete = read_outcome(folder) is not None
        else:
            complete = False
            factor = f"{config.max_train_steps_factor:g} x that of {chain[len(rows) - 1].name}"
            row |= {
                "trials": config.search.promote_trials or config.search.trials,
                "steps a trial": config.max_train_steps or factor,
                "steps": "-",
            }
        row["status"] = "complete" if complete else "to run"
        rows.append(row)
        known = known and complete
        earlier = folder
    return rows


def _planned_steps(study: Study) -> dict[str, Any]:
    length = study.max_train_steps
    if study.config.kind == "lr_sweep":
        sweep = study.config.sweep
        first = len(sweep.learning_rates)
        most = first + sweep.max_extensions
        grid = len(lr_sweep.lockstep_grid(length))
        return {
            "trials": f"{first} to {most}",
            "steps a trial": f"at most {length}, raced in {grid} stages",
            "steps": f"at most {most * length}",
        }
    trials = len(study.round_plans)
    return {"trials": trials, "steps a trial": length, "steps": trials * length}


def main(argv: Sequence[str]) -> None:
    """The launcher's entry after absl has parsed the flags."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags start with --")
    logging.set_verbosity(logging.ERROR)
    config = _CONFIG.value
    if not config.name:
        config.name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    launch(config, _WORKDIR.value, _DRY_RUN.value, Console())


def _parse_flags(argv: list[str]) -> list[str]:
    if "--help" in argv or "-h" in argv:
        print(__doc__)
        print(flags.FLAGS.module_help(sys.modules[__name__]))
        sys.exit(0)
    _check_overrides(argv)
    with clear_errors("flags"):
        return flags.FLAGS(argv)


def _check_overrides(argv: list[str]) -> None:
    """Checks that --config names a file, and every --config.a.b a key of the config in it."""
    path = None
    for argument, following in zip(argv[1:], [*argv[2:], ""], strict=True):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config"):
            path = value if equals else following
    if path is None:
        raise ConfigError("--config is missing; name a file, as in --config=configs/lr_sweep.py")
    config = load_config_file(path)
    for argument in argv[1:]:
        flag = argument.partition("=")[0].lstrip("-")
        section = config
        for name in flag.split(".")[1:] if flag.startswith("config.") else ():
            if not isinstance(section, ml_collections.ConfigDict) or name not in section:
                keys = list(section) if isinstance(section, ml_collections.ConfigDict) else []
                raise ConfigError(f"--{flag}: {name!r} does not exist; {nearest(name, keys)}")
            section = section[name]


def run() -> None:
    """Parses the command line and runs; user errors become one line and exit status 2."""
    try:
        main(_parse_flags(sys.argv))
    except UserError as error:
        print(f"budgetflow: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("budgetflow: interrupted; launch again to go on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
