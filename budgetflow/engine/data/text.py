"""Character sequences from text that needs no download: Python's own documentation topics."""

from __future__ import annotations

import functools

import numpy as np

from budgetflow.engine.data.records import Columns

SEQUENCE_LENGTH = 128
# The text is cut into these parts in order, so that no validation sequence overlaps a training one.
SPLITS = {"train": (0.0, 0.9), "validation": (0.9, 0.95), "test": (0.95, 1.0)}


class CharacterSequences(Columns):
    """Consecutive, non-overlapping sequences of a text; the targets are the next characters.

    A record has ``inputs`` and ``targets``, int32, [SEQUENCE_LENGTH] each.

    Attributes:
        num_classes: the number of distinct characters, the size of the vocabulary.

    Args:
        codes: the text as character numbers, int32, [characters].
        num_classes: the size of the vocabulary.
    """

    def __init__(self, codes: np.ndarray, num_classes: int) -> None:
        self._codes, self.num_classes = codes, num_classes
        end = (len(codes) - 1) // SEQUENCE_LENGTH * SEQUENCE_LENGTH
        parts = {"inputs": codes[:end], "targets": codes[1 : end + 1]}
        super().__init__({name: part.reshape(-1, SEQUENCE_LENGTH) for name, part in parts.items()})


def pydoc_topics(split: str) -> CharacterSequences:
    """The help topics that come with Python: 465,000 characters in 3.11, 511,000 in 3.13.

    For ``config.data.name = "budgetflow.data.text.pydoc_topics"``, with ``input_key`` "inputs" and
    ``target_key`` "targets".

    Raises:
        KeyError: ``split`` is not "train", "validation" or "test".
    """
    if split not in SPLITS:
        raise KeyError(f"no split {split!r}; there is {', '.join(SPLITS)}")
    codes, num_classes = _encoded_topics()
    low, high = (round(share * len(codes)) for share in SPLITS[split])
    return CharacterSequences(codes[low:high], num_classes)


@functools.cache  # One text of 2 MB.
def _encoded_topics() -> tuple[np.ndarray, int]:
    from pydoc_data.topics import topics

    characters = np.array(list("\n".join(topics[name] for name in sorted(topics))))
    vocabulary, codes = np.unique(characters, return_inverse=True)
    return codes.astype(np.int32), len(vocabulary)
