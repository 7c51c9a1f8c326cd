"""The errors a user can act on: see :mod:`budgetflow.base.errors`."""

from budgetflow.base.errors import ConfigError, DamagedFileError, StoppedError, UserError

__all__ = ["ConfigError", "DamagedFileError", "StoppedError", "UserError"]
