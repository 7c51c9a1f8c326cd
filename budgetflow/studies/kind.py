"""Where kinds of study of one's own import from: see :mod:`budgetflow.studies.kinds.kind`."""

from budgetflow.studies.kinds.kind import Kind

__all__ = ["Kind"]
