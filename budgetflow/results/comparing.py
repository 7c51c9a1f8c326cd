"""Studies side by side: what differs in their configs, and what each found."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from budgetflow.results.reading import StudyResult

if TYPE_CHECKING:  # pandas takes a second to import, which not every reader needs
    import pandas as pd

# Of an outcome, those of its values that two studies of any kinds can be compared by.
_FOUND = (
    *("kind", "status", "max_train_steps", "trials", "diverged", "best_trial", "best_step"),
    *("best_learning_rate", "steps_trained", "steps_reused"),
)


@dataclasses.dataclass(frozen=True)
class StudyDifference:
    """Studies side by side.

    Attributes:
        config: a row for each field of the config that differs, by its dotted name; a column for
            each study.
        results: a row for each figure of the outcomes; a column for each study. None where it has
            none, or is under way.
    """

    config: pd.DataFrame
    results: pd.DataFrame


def compare_studies(*studies: StudyResult) -> StudyDifference:
    """What differs between two or more studies, in their configs and in what they found."""
    columns = [study.name for study in studies]
    if len({*columns}) < len(columns):
        columns = [str(study.folder) for study in studies]
    configs = [_flat(study.config) for study in studies]
    fields = [f for f in dict.fromkeys(f for each in configs for f in each) if f != "name"]
    differing = [f for f in fields if any(c.get(f) != configs[0].get(f) for c in configs)]
    found = [_figures(study.outcome) for study in studies]
    figures = list(dict.fromkeys(name for each in found for name in each))
    return StudyDifference(
        config=_frame(differing, configs, columns), results=_frame(figures, found, columns)
    )


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested sections by dotted name."""
    values: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            values |= _flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def _figures(outcome: dict[str, Any] | None) -> dict[str, Any]:
    """The figures of an outcome by name, those that it has."""
    if outcome is None:
        return {}
    figures = {name: outcome[name] for name in _FOUND if name in outcome}
    for split in ("validation", "test"):
        metrics = outcome.get(f"best_{split}") or {}
        figures |= {f"{split}_{name}": value for name, value in metrics.items()}
    return figures


def _frame(names: list[str], values: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    rows = [[each.get(name) for each in values] for name in names]
    return pd.DataFrame(rows, index=names, columns=columns, dtype=object)
