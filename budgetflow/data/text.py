"""Data that configs name: see :mod:`budgetflow.engine.data.text`."""

from budgetflow.engine.data.text import CharacterSequences, pydoc_topics

__all__ = ["CharacterSequences", "pydoc_topics"]
