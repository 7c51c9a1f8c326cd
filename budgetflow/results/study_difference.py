"""The difference between studies: of their configs, and of their outcomes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from budgetflow.results.reading import StudyResult

if TYPE_CHECKING:  # pandas takes a second to import, which not every reader needs
    import pandas as pd

# The values of outcomes that studies of any two kinds can be compared by.
_COMPARED = (
    *("kind", "status", "max_train_steps", "trials", "diverged", "best_trial", "best_step"),
    *("best_learning_rate", "steps_trained", "steps_reused"),
)


@dataclasses.dataclass(frozen=True)
class StudyDifference:
    """Studies side by side.

    Attributes:
        config: a row for each field of the config that differs, by its dotted name; a column for
            each study.
        results: a row for each value of the outcomes; a column for each study. None where a study
            has no such value, or is under way.
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
    results = [_results(study.outcome) for study in studies]
    names = list(dict.fromkeys(name for each in results for name in each))
    return StudyDifference(
        config=_frame(differing, configs, columns), results=_frame(names, results, columns)
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


def _results(outcome: dict[str, Any] | None) -> dict[str, Any]:
    """The compared values of an outcome by name, those that it has."""
    if outcome is None:
        return {}
    results = {name: outcome[name] for name in _COMPARED if name in outcome}
    for split in ("validation", "test"):
        metrics = outcome.get(f"best_{split}") or {}
        results |= {f"{split}_{name}": value for name, value in metrics.items()}
    return results


def _frame(names: list[str], values: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    rows = [[each.get(name) for each in values] for name in names]
    return pd.DataFrame(rows, index=names, columns=columns, dtype=object)
