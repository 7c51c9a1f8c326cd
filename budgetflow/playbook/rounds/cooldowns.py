"""What shorter runs would have given: decays at several lengths, from one constant-rate trunk.

Until its decay begins, a shorter run is the beginning of a longer one. So the answers for lengths
T, 2 T and 4 T cost the trunk of the longest and the decays (Hägele et al. 2024, arXiv:2405.18392).
"""

from __future__ import annotations

from collections.abc import Sequence

from budgetflow.playbook.common.measurement import TrialRecord
from budgetflow.playbook.common.outcomes import CooldownsOutcome, LengthResult
from budgetflow.playbook.rounds import policy as rounds
from budgetflow.playbook.rounds.words import cooldowns_reasons


def outcome(settings: rounds.RoundSettings, trials: Sequence[TrialRecord]) -> CooldownsOutcome:
    """The outcome of cooldowns: the best trial of each length, and of all."""
    lengths = []
    for length in sorted({planned.length_steps for planned in settings.trials}):
        of_length = [t for t in trials if settings.trials[t.trial].length_steps == length]
        best = rounds.best_fields(settings.selection, of_length)
        lengths.append(LengthResult(length_steps=length, **best))
    found = CooldownsOutcome(**rounds.in_common(settings, trials), lengths=tuple(lengths))
    return found.with_reasons(cooldowns_reasons(found, settings.selection))
