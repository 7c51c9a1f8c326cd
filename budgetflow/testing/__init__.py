"""For who extends budgetflow: studies without training, and checks of a part of one's own.

- :mod:`budgetflow.testing.simulation`: a study's real controller and policy over trials whose
  measurements follow a formula: thousands of trials in seconds.
- :mod:`budgetflow.testing.conformance`: what every kind of study, task, decay and data set has to
  do. Each check is a function that raises an AssertionError with one line; it needs no pytest::

      from budgetflow.testing import check_kind, check_task

      def test_my_task():
          check_task(MyTask(), outputs, batch)

      def test_my_kind(tmp_path):
          check_kind(my_config(), tmp_path)

The repository's own decays, tasks and kinds go through the same checks, and a data set of its own.
To add a check, write it in ``conformance`` and have the tests of the parts that exist call it.
"""

from budgetflow.testing.conformance import check_data_set, check_decay, check_kind, check_task
from budgetflow.testing.simulation import (
    Law,
    SimulatedTrials,
    quadratic,
    run_simulated,
    run_simulated_study,
)

__all__ = [
    "Law",
    "SimulatedTrials",
    "check_data_set",
    "check_decay",
    "check_kind",
    "check_task",
    "quadratic",
    "run_simulated",
    "run_simulated_study",
]
