"""scikit-learn's diabetes study: a regression on 442 real patients, no download."""

from __future__ import annotations

import numpy as np

SPLITS = {"train": slice(0, 310), "validation": slice(310, 376), "test": slice(376, 442)}


def diabetes(split: str) -> list[dict[str, np.ndarray]]:
    """Ten measurements of each patient, and how far the disease got a year later.

    For ``config.data.name = "budgetflow.data.diabetes.diabetes"``, with ``input_key`` "inputs" and
    ``target_key`` "targets". Both are standardised by mean and deviation of the training split. The
    data are those of Efron et al. 2004, "Least Angle Regression".

    Raises:
        KeyError: ``split`` is not "train", "validation" or "test".
    """
    from sklearn.datasets import load_diabetes  # scikit-learn takes seconds to import

    if split not in SPLITS:
        raise KeyError(f"no split {split!r}; there is {', '.join(SPLITS)}")
    inputs, targets = load_diabetes(return_X_y=True, scaled=False)
    order = np.random.default_rng(0).permutation(len(inputs))
    columns = np.column_stack([inputs, targets])[order]
    train = columns[SPLITS["train"]]
    scaled = ((columns - train.mean(0)) / train.std(0))[SPLITS[split]].astype(np.float32)
    return [{"inputs": row[:-1], "targets": row[-1]} for row in scaled]
