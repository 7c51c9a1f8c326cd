"""Search spaces: which hyperparameters a round varies, and the points it tries."""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pydantic
from pydantic.dataclasses import dataclass

from budgetflow.base.errors import ConfigError, nearest, shown
from budgetflow.config.fields import CHECKED, Changes, Number
from budgetflow.config.values import plain

# More than anyone trains; so many points are still quick to make.
MAX_TRIALS = 10_000
# The field that holds a trial's base learning rate.
BASE_LEARNING_RATE = "schedule.base_learning_rate"
Value = bool | int | float | str | tuple[int, ...] | None
# How far what a short run finds best is to be trusted for a longer one.
Tag = Literal["very_likely", "likely", "might", "unlikely"]
TAGS: tuple[Tag, ...] = get_args(Tag)
# What becomes of a hyperparameter in the next, longer round; see
# :class:`budgetflow.playbook.derived.search_space.PlannedField`.
Action = Literal["pinned", "winner_only", "narrowed", "swept"]


@dataclass(frozen=True, config=CHECKED)
class Dimension:
    """One hyperparameter of a search space; made by :func:`choices` and its siblings.

    Attributes:
        name: the config field that varies, without "config.", like "optimizer.momentum".
        distribution: how values are spread.
        values: the values to choose from, for "choices".
        low, high: the range, for "uniform" and "log_uniform".
        tag: how likely its best value is to transfer to a longer run; the playbook's tag if not set
            (:func:`budgetflow.playbook.derived.transfer_tags.default_tag`).
    """

    name: str
    distribution: Literal["choices", "uniform", "log_uniform"]
    values: tuple[Value, ...] = ()
    low: Number = math.nan
    high: Number = math.nan
    # It says what the next round does with what this one finds.
    tag: Annotated[Tag | None, Changes.NOTHING] = None

    def __post_init__(self) -> None:
        if self.distribution == "choices":
            if not self.values:
                raise ConfigError(f"search space: {self.name} has no values to choose from")
        elif not -math.inf < self.low < self.high < math.inf:
            raise ConfigError(
                f"search space: {self.name} needs low < high, not {self.low}, {self.high}"
            )
        elif self.distribution == "log_uniform" and self.low <= 0:
            raise ConfigError(f"search space: {self.name} is log-uniform and needs low > 0")

    # By what is written: from Python 3.13 on, a field that is NaN would make it differ from itself.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dimension) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def value_at(self, quantile: float) -> Value:
        """The value below which a share ``quantile`` in [0, 1) of the distribution lies."""
        if self.distribution == "choices":
            return self.values[int(quantile * len(self.values))]
        if self.distribution == "uniform":
            return self.low + quantile * (self.high - self.low)
        return self.low * (self.high / self.low) ** quantile


def choices(name: str, *values: Value, tag: Tag | None = None) -> Dimension:
    """The values themselves, equally likely; the only kind that grid search can use."""
    return _dimension(name, "choices", values=values, tag=tag)


def uniform(name: str, low: float, high: float, *, tag: Tag | None = None) -> Dimension:
    """Any number between ``low`` and ``high``."""
    return _dimension(name, "uniform", low=low, high=high, tag=tag)


def log_uniform(name: str, low: float, high: float, *, tag: Tag | None = None) -> Dimension:
    """Any number between ``low`` and ``high``, equally likely in each decade: for rates."""
    return _dimension(name, "log_uniform", low=low, high=high, tag=tag)


def _dimension(name: str, distribution: str, **fields: Any) -> Dimension:
    if fields["tag"] not in (None, *TAGS):
        tag = fields["tag"]
        raise ConfigError(
            f"search space: {name} has no such tag as {shown(tag)}; {nearest(str(tag), TAGS)}"
        )
    try:
        return Dimension(plain(name), distribution, **plain(fields))  # type: ignore[arg-type]
    except pydantic.ValidationError as error:
        wanted = "a number"
        if distribution == "choices":
            wanted = "a number, a string, True, False, None or a tuple of whole numbers"
        value = error.errors()[0]["input"]
        raise ConfigError(f"search space: {name} = {shown(value)}: should be {wanted}") from error


def log_grid(low: float, high: float, points: int) -> tuple[float, ...]:
    """``points`` numbers from ``low`` to ``high`` at equal ratios, to four significant digits.

    Raises:
        ConfigError: there is no such grid.
    """
    low, high, points = plain((low, high, points))
    numbers = all(isinstance(end, int | float) for end in (low, high))
    if not (numbers and 0 < low < high < math.inf):
        raise ConfigError(
            f"log_grid({low!r}, {high!r}, …): should go from above 0 to a larger number"
        )
    if isinstance(points, bool) or not isinstance(points, int) or not 2 <= points <= MAX_TRIALS:
        raise ConfigError(f"log_grid(…, {points!r}): should be from 2 to {MAX_TRIALS} points")
    return tuple(float(f"{value:.4g}") for value in np.geomspace(low, high, points))


def points(
    space: Sequence[Dimension], method: Literal["grid", "random", "halton"], trials: int, seed: int
) -> list[dict[str, Any]]:
    """The hyperparameters of each trial of a round.

    Random and Halton points are prefix-stable: more trials only add points at the end.

    Args:
        space: the dimensions; none at all gives a single trial without hyperparameters.
        method: "grid" for every combination of choices; "random" for independent draws; "halton"
            for a scrambled Halton sequence, which covers the space more evenly (the playbook's
            advice for exploration).
        trials: the number of points; not used by "grid".
        seed: for the draws.

    Raises:
        ConfigError: grid search over a dimension that is a range.
    """
    if not space:
        return [{}]
    if method == "grid":
        return _grid(space)
    if method == "halton":
        from scipy.stats import qmc  # takes more than a second to import

        quantiles = qmc.Halton(len(space), scramble=True, rng=seed).random(trials)
    else:
        quantiles = np.random.default_rng(seed).random((trials, len(space)))
    return [
        {d.name: d.value_at(float(q)) for d, q in zip(space, row, strict=True)} for row in quantiles
    ]


def _grid(space: Sequence[Dimension]) -> list[dict[str, Any]]:
    if (size := math.prod(len(dimension.values) for dimension in space)) > MAX_TRIALS:
        raise ConfigError(f"config.search.space: a grid of {size} trials; at most {MAX_TRIALS}")
    for dimension in space:
        if dimension.distribution != "choices":
            raise ConfigError(
                f"grid search needs choices(...) for {dimension.name}, not a range; "
                "or set config.search.method to 'halton'"
            )
    names = [dimension.name for dimension in space]
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(dimension.values for dimension in space))
    ]
