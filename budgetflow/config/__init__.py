"""What a study is configured by: all that a config file needs, and what reads one.

    from budgetflow.config import building_on, choices, default_config, log_grid, log_uniform

Every key is explained in :mod:`budgetflow.config.schema`, and
:class:`budgetflow.config.schedule.ScheduleConfig`.
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
