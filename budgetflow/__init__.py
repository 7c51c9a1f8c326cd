"""budgetflow: how long should each training run be, and do short runs predict long ones?

The Deep Learning Tuning Playbook's section "Determining the number of steps for each training
run", as an experiment framework. ``python -m budgetflow.launch --config=...`` runs a study;
:func:`open_study` reads one, :func:`open_studies` all of a folder. In Python ``launch(config)``
runs one.
"""

from budgetflow.cli.from_python import launch
from budgetflow.results.reading import StudyResult, TrialResult, open_studies, open_study
from budgetflow.results.study_difference import StudyDifference, compare_studies

__all__ = [
    "StudyDifference",
    "StudyResult",
    "TrialResult",
    "__version__",
    "compare_studies",
    "launch",
    "open_studies",
    "open_study",
]
__version__ = "0.1.0"
