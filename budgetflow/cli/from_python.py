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
    """Runs the study of a config, and first those that it builds on; what is complete is read.

    An interrupted one goes on from there when it is launched again. It runs on the devices that JAX
    has; while it runs it is shown how far it is.

    Args:
        config: as a config file's ``get_config`` returns it; with a ``config.name``.
        workdir: where the studies' folders lie; gs:// works too.
        quiet: whether to show nothing but what was found.

    Returns:
        The study, as :func:`budgetflow.open_study` reads it.

    Raises:
        UserError: see its message.
    """
    # These import all that trains.
    from budgetflow.cli.launch import launch as launch_chain
    from budgetflow.cli.launch import load_chain
    from budgetflow.results.reading import open_study

    chain = load_chain(config)
    launch_chain(chain, str(workdir), False, Console(), quiet=quiet)
    return open_study(epath.Path(workdir) / chain[-1].name)
