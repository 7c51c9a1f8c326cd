"""Where policies of one's own import from: see :mod:`budgetflow.playbook.common.measurement`."""

from budgetflow.playbook.common.measurement import (
    Add,
    Advance,
    Conclude,
    Decision,
    Selection,
    TrialRecord,
)

__all__ = ["Add", "Advance", "Conclude", "Decision", "Selection", "TrialRecord"]
