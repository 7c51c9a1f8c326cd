"""Training examples with the same inputs but different targets: what no model can fit.

A model gives one answer for identical inputs, so where their targets differ some of them stay
wrong, however long it trains. In memory they can be counted, and with them the lowest error that
there is.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from budgetflow.base.errors import ConfigError
from budgetflow.base.life_cache import cached_for_its_life
from budgetflow.engine.data.records import Split, leaves

# Targets that are equally frequent among identical inputs, of which one may be fitted.
_MOST_CHOICES = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Contradictions:
    """What a training set holds that no model can fit.

    Attributes:
        examples: how many have the same inputs as another one but another target.
        lowest_errors: the fewest examples that are wrong, whatever the model.
        lowest_loss: the lowest mean cross-entropy, of a model that gives each target its frequency
            among identical inputs.
        groups: for each example the number of its inputs.
        choices: the targets that are most frequent among identical inputs, [examples, choices]; the
            first is repeated where there are fewer.
    """

    examples: int
    lowest_errors: int
    lowest_loss: float
    groups: np.ndarray
    choices: np.ndarray

    def most_errors_within(self, targets: np.ndarray) -> int:
        """The most errors among the first examples of any model that has the fewest errors overall.

        Args:
            targets: the targets of those first examples.
        """
        groups, choices = self.groups[: len(targets)], self.choices[: len(targets)]
        errors = [np.bincount(groups, weights=targets != choice) for choice in choices.T]
        return int(np.max(errors, axis=0).sum())


@cached_for_its_life
def contradictions(split: Split) -> Contradictions | None:
    """The contradictions of a split; None where they cannot be counted.

    They are counted where the split is in memory and each target is a whole number. Of other
    targets, only the task can say which are equal.
    """
    if split.arrays is None or isinstance(split.arrays["targets"], dict):
        return None
    targets = split.arrays["targets"]
    if targets.dtype.kind not in "biu" or targets.ndim != 1:
        return None
    groups = _numbered([array for _, array in leaves({"inputs": split.arrays["inputs"]})])
    kinds = _numbered([targets])
    pairs, counts = np.unique(np.stack([groups, kinds]), axis=1, return_counts=True)
    different = np.bincount(pairs[0])
    sizes, most = np.bincount(groups), np.zeros(groups.max() + 1, int)
    np.maximum.at(most, pairs[0], counts)
    # Of each group its most frequent kinds, as the number of an example that is of that kind.
    best_groups, best_kinds = pairs[:, counts == most[pairs[0]]]
    places = np.arange(len(best_groups)) - np.searchsorted(best_groups, best_groups)
    few = places < _MOST_CHOICES
    chosen = np.full((len(sizes), places[few].max() + 1), -1)
    example_of_kind = np.unique(kinds, return_index=True)[1]
    chosen[best_groups[few], places[few]] = example_of_kind[best_kinds[few]]
    chosen = np.where(chosen < 0, chosen[:, :1], chosen)
    shares = counts / sizes[pairs[0]]
    return Contradictions(
        examples=int(sizes[different > 1].sum()),
        lowest_errors=int((sizes - most).sum()),
        lowest_loss=float((counts * -np.log(shares)).sum() / len(groups)) + 0.0,
        groups=groups,
        choices=targets[chosen[groups]],
    )


def with_fit_targets(split: Split) -> Split:
    """A split whose contradicting examples count as fitted by any of the best answers to them."""
    unfittable = contradictions(split)
    if unfittable is None or not unfittable.examples:
        return split
    return dataclasses.replace(split, fit_targets=unfittable.choices)


def check_more_than_one_target(split: Split) -> None:
    """Checks that a training set in memory has several targets.

    Raises:
        ConfigError: it has one, so that a model that ignores its inputs fits it at once.
    """
    if split.arrays is None or isinstance(split.arrays["targets"], dict):
        return
    targets = split.arrays["targets"]
    if targets.dtype.kind in "biu" and (targets == targets[:1]).all():
        shown = " ".join(str(targets[0]).split())
        raise ConfigError(
            f"{split.name}: all {split.num_examples} examples have the target {shown:.40}, which "
            "a model fits without learning anything; a sweep needs more than one"
        )


def _numbered(arrays: list[np.ndarray]) -> np.ndarray:
    """For each example the number of its content: equal for the same bytes."""
    flat = [np.ascontiguousarray(a).reshape(len(a), -1).view(np.uint8) for a in arrays]
    digests = [
        hashlib.blake2b(b"".join(rows), digest_size=16).digest() for rows in zip(*flat, strict=True)
    ]
    return np.unique(np.array(digests, dtype="S16"), return_inverse=True)[1].reshape(-1)
