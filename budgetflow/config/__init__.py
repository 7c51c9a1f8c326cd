"""From a config file to frozen, checked dataclasses.

    from budgetflow.config import building_on, choices, default_config, log_grid, log_uniform

- ``schema``: all keys, with their defaults, ranges, and what each can change in a result.
- ``schedule``: the keys of a schedule, and from them to a schedule in steps.
- ``search_space``: the dimensions of a search space, and its points.
- ``fields``: the types of fields, checked by pydantic, and the marks of what they can change.
- ``loading``: from a file's ``get_config()`` to a checked config.
- ``values``: between configs as people write them and dataclasses; errors of one line.
- ``keys``: dotted keys, such as "optimizer.momentum".
- ``checks``: keys that contradict each other or have no effect.
- ``searchable``: what a search space and an idea may vary.

A new key is a field of a dataclass in ``schema``, with its line in the docstring. It counts as
changing the trained states unless it is marked otherwise; where it has an effect only beside
another key, a :class:`~budgetflow.config.checks.Rule` says so.
"""

from budgetflow.config.loading import building_on, default_config, load_config_file, parse_config
from budgetflow.config.schema import StudyConfig
from budgetflow.config.search_space import choices, log_grid, log_uniform, uniform

__all__ = [
    "StudyConfig",
    "building_on",
    "choices",
    "default_config",
    "load_config_file",
    "log_grid",
    "log_uniform",
    "parse_config",
    "uniform",
]
