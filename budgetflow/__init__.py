"""budgetflow: how long should each training run be, and do short runs predict long ones?

The Deep Learning Tuning Playbook's section "Determining the number of steps for each training
run", as an experiment framework. ``python -m budgetflow.launch --config=...`` runs a study;
:func:`open_study` reads one.
"""

from budgetflow.results.reading import StudyResult, TrialResult, open_study

__all__ = ["StudyResult", "TrialResult", "__version__", "open_study"]
__version__ = "0.1.0"
