"""Launching from Python and notebooks: ``budgetflow.launch(config)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etils import epath
from rich.console import Console

if TYPE_CHECKING:
    import ml_collections

    from budgetflow.results.reading import StudyResult


def launch(
    config: ml_collections.ConfigDict, workdir: epath.PathLike = "runs", quiet: bool = False
) -> StudyResult:
    """Runs the study of a config, and first the studies that it builds on.

    Complete studies are read, interrupted ones resumed. It runs on the devices that JAX has, and
    prints its progress.

    Args:
        config: as a config file's ``get_config`` returns it; with a ``config.name``.
        workdir: where the studies' folders lie; gs:// works too.
        quiet: whether to print only what each study has found.

    Returns:
        The study, as :func:`budgetflow.open_study` reads it.

    Raises:
        UserError: see its message.
    """
    # Imported here, since they import all that trains.
    from budgetflow.cli.launch import launch as launch_chain
    from budgetflow.cli.launch import load_chain
    from budgetflow.results.reading import open_study

    chain = load_chain(config)
    launch_chain(chain, str(workdir), False, Console(), quiet=quiet)
    return open_study(epath.Path(workdir) / chain[-1].name)
