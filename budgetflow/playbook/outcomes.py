"""Where outcomes of one's own import from: see :mod:`budgetflow.playbook.common.outcomes`."""

from budgetflow.playbook.common.outcomes import Outcome, RoundOutcome, SweepOutcome, TrialsOutcome

__all__ = ["Outcome", "RoundOutcome", "SweepOutcome", "TrialsOutcome"]
