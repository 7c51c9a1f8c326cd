"""The evidence of an outcome: sentences, each with what tells it from the others.

Whoever adds, replaces or emphasises a sentence goes by its type here, never by its words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Reason:
    """A sentence of an outcome's evidence.

    Attributes:
        text: the sentence.
        loud: whether it is a warning, which a report shows first and in bold.
        part: the field of the outcome that it is of, where a later sentence may join or replace it;
            not written to ``outcome.json``.
    """

    text: str
    loud: bool = False
    part: str | None = None

    def __str__(self) -> str:
        return self.text


Sentence = Reason | str


def reasons_of(sentences: Iterable[Sentence]) -> tuple[Reason, ...]:
    """Sentences as reasons; plain text is not loud and of no part."""
    return tuple(each if isinstance(each, Reason) else Reason(each) for each in sentences)


def reasons_to_json(reasons: Sequence[Reason]) -> dict[str, list[Any]]:
    """The keys of ``outcome.json`` that hold reasons.

    ``reasons`` are the texts; ``loud_reasons``, the positions of the loud ones, is omitted where
    the texts are as they are read without it (:func:`reasons_from_json`).
    """
    content: dict[str, list[Any]] = {"reasons": [each.text for each in reasons]}
    if any(each.loud != _is_written_loud(each.text) for each in reasons):
        content["loud_reasons"] = [number for number, each in enumerate(reasons) if each.loud]
    return content


def reasons_from_json(content: dict[str, Any]) -> tuple[Reason, ...]:
    """The reasons that ``outcome.json`` holds; without ``loud_reasons``, by their capitals."""
    texts = content.get("reasons", [])
    loud = content.get("loud_reasons")
    return tuple(
        Reason(text, loud=_is_written_loud(text) if loud is None else number in loud)
        for number, text in enumerate(texts)
    )


def _is_written_loud(text: str) -> bool:
    """Whether a text begins with words in capitals, as budgetflow's own warnings do."""
    return any(word.isupper() and len(word) > 2 and word.isalpha() for word in text.split()[:4])
