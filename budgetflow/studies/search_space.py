"""Where config files once imported search spaces from, and still may: :mod:`budgetflow.config`."""

from budgetflow.config import choices, log_grid, log_uniform, uniform

__all__ = ["choices", "log_grid", "log_uniform", "uniform"]
