"""Words for what a study does next, and where its trials ran."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from budgetflow.playbook.common.measurement import LEARNING_RATE, SEED, TrialRecord
from budgetflow.playbook.common.outcomes import Queue
from budgetflow.playbook.common.words import counted, in_words

# Left out of the keys of results: see budgetflow.base.source_code.
CHANGES_NO_RESULT = True

# As many numbers, or values, as are still read.
MOST = 4


def trials_in_words(numbers: Collection[int]) -> str:
    """Trials by number: "trial 3", "trials 2 and 7", "trials 0 to 15", "12 trials"."""
    ordered = sorted(numbers)
    if len(ordered) == 1:
        return f"trial {ordered[0]}"
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"trials {ordered[0]} to {ordered[-1]}"
    if len(ordered) > MOST:
        return f"{len(ordered)} trials"
    return f"trials {_listed(list(map(str, ordered)))}"


def joining_in_words(
    joining: Mapping[int, dict[str, Any]], records: Mapping[int, TrialRecord]
) -> str:
    """Which trials join a study; where only learning rates are added, which, and where they lie.

    Args:
        joining: number to hyperparameters.
        records: the trials that the study has, at least one.
    """
    who = trials_in_words(joining)
    verb = "joins" if len(joining) == 1 else "join"
    by_rate = all({*values} - {SEED} == {LEARNING_RATE} for values in joining.values())
    if not by_rate or len(joining) > MOST:
        return f"{who} {verb}"
    rates = sorted({values[LEARNING_RATE] for values in joining.values()})
    what = "learning rate" if len(rates) == 1 else "learning rates"
    tried = [record.base_learning_rate for record in records.values()]
    where = "between those tried before"
    if min(rates) > max(tried):
        where = "above all tried before"
    elif max(rates) < min(tried):
        where = "below all tried before"
    return f"{who} {verb}: {what} {_listed([in_words(rate) for rate in rates])}, {where}"


def _listed(items: list[str]) -> str:
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last


def where_trials_ran(queue: Queue) -> str:
    """Which trials ran on which nodes of a cluster, and how often one was taken up anew."""
    nodes = (f"{node}: {trials_in_words(trials)}" for node, trials in queue.nodes.items())
    # Several that form one trial are named together.
    count = len({one for several in queue.nodes for one in several.split(" + ")})
    sentence = f"Its trials ran on {counted(count, 'node')} of a cluster ({'; '.join(nodes)})"
    if queue.restarts:
        sentence += f"; {counted(queue.restarts, 'restart')}"
    if queue.steps_trained_twice:
        sentence += f"; {counted(queue.steps_trained_twice, 'step')} had to be trained again"
    return f"{sentence}."
