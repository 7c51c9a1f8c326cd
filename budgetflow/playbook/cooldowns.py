"""What shorter runs would have given: decays at several lengths, from one constant-rate trunk.

Until its decay begins, a shorter run is the beginning of a longer one. So the answers for lengths
T, 2 T and 4 T cost the trunk of the longest and the decays (Hägele et al. 2024, arXiv:2405.18392).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from budgetflow.playbook import rounds
from budgetflow.playbook.measurement import Selection, TrialView


def outcome(settings: rounds.RoundSettings, trials: Sequence[TrialView]) -> dict[str, Any]:
    """The outcome of cooldowns, as ``outcome.json`` holds it.

    Like that of a round, with the best trial of each length under ``lengths`` instead of a
    best-step diagnosis; ``transfer`` is that of the best trial.
    """
    lengths = []
    for length in sorted({planned.length_steps for planned in settings.trials}):
        of_length = [t for t in trials if settings.trials[t.trial].length_steps == length]
        best, row = next(iter(settings.selection.ranked(of_length)), (None, None))
        lengths.append(
            {
                "length_steps": length,
                "best_trial": best.trial if best else None,
                "best_step": row["step"] if row else None,
                "best_validation": rounds.validation(row) if row else None,
            }
        )
    found, reasons = rounds.best_trial(settings, trials)
    return {
        "kind": "cooldowns",
        "max_train_steps": settings.max_train_steps,
        **rounds.ledger(trials),
        **found,
        "lengths": lengths,
        "transfer": None,
        "reasons": [
            *_what_lengths_give(lengths, settings.selection),
            *reasons,
            *rounds.ledger_reasons(trials),
        ],
    }


def _what_lengths_give(lengths: list[dict[str, Any]], selection: Selection) -> list[str]:
    """What each length gives, and what each is better than the one before."""
    known = [row for row in lengths if row["best_validation"]]
    metric = selection.key.removeprefix("validation_")
    sentences = []
    for row in known[:1]:
        value = row["best_validation"][metric]
        sentences.append(
            f"A run of {row['length_steps']} steps gives {selection.words} {value:.4g}."
        )
    for before, row in itertools.pairwise(known):
        old, value = before["best_validation"][metric], row["best_validation"][metric]
        worse = selection.worse_by(value, old)
        change = (
            f" ({abs(worse):.1%} {'worse' if worse > 0 else 'better'})" if old and worse else ""
        )
        sentences.append(
            f"A run of {row['length_steps']} steps gives {value:.4g}{change} for "
            f"{row['length_steps'] / before['length_steps']:.3g} times the steps."
        )
    return sentences
