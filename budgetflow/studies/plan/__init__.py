"""What a study will run, before it does.

- ``trials``, ``round_trials``: the trials of any study, and of a round.
- ``derived``: what a round takes from the one before.
- ``chain``: the studies of a launch, each after the one that it builds on.
- ``reuse``, ``fork``: which steps are taken over from trials that exist, and why others are not.
- ``config_changes``: the changes of the config since a sweep found its length.
- ``cost``, ``memory``: what a step costs, and what fits on the devices.
"""
