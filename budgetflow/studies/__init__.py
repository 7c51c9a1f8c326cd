"""What a study is: its plan, its folder, and the loop that carries decisions out.

- ``kinds/``: a module for each kind of study: what it checks, plans, decides and concludes.
- ``plan/``: what will run: trials, their schedules, what they continue, and what that costs.
- ``run/``: the loop that asks the policy, and the devices that train.
- ``store/``: the folder on disk: records, outcome, keys of what results depend on, lock.
- ``study``: a resolved config with its plans and its folder.

To add a kind of study, see :mod:`budgetflow.studies.kinds`.
"""
