"""Where kinds of one's own import the sweep from: see :mod:`budgetflow.studies.kinds.sweep`."""

from budgetflow.studies.kinds.sweep import LR_SWEEP

__all__ = ["LR_SWEEP"]
