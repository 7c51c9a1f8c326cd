"""Data sets as random-access sources, and batches as a pure function of (seed, step).

- ``source``: from the config's data section to a :class:`~budgetflow.engine.data.source.Dataset`.
- ``records``: a :class:`~budgetflow.engine.data.records.Split`: stored records, read as examples
  that all have the form of the first one and hold nothing that cannot be trained on.
- ``contradictions``: examples with the same inputs but different targets.
- ``batches``: which examples make up which batch, the same however a split is read.
- ``read_ahead``, ``workers``: reading batches before they are asked for, in threads or processes.
- ``augment``: random changes of images inside the compiled step.
- ``digits``, ``diabetes``, ``text``, ``fashion_mnist``: data sets that come with the library.

A data set of your own needs no change here: ``config.data.name`` takes the import path of a
function from a split's name to a source with ``len()`` and ``[index]``, or to a dict of arrays.
"""
