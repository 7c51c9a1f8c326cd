"""Running a study: its policy's decisions are carried out on devices, and recorded.

- ``controller``: ``run_study``, the only loop: decide, advance, record, conclude.
- ``own_devices``: carries decisions out on this run's devices and writes the trials' records.
- ``live_trials``: the trials whose states are on the devices, side by side; it owns these states
  and the data there, and frees both when the study ends.
- ``strategy``: how many trials run side by side, timed where that is worth it.
- ``noise_scale``: the gradient noise at a trial's state, for comparisons.
- ``completion``: what an outcome says beside the decision: code, transfer, test metrics, timing.

From a decision to an update: ``controller.run_study``, ``OwnDevices.advance`` (wave by wave) and
``_advance`` (evaluation by evaluation), ``LiveTrials.advance`` (a thread a trial),
``TrialRun.advance``, ``TrialRun.train``, ``step.train_steps`` (compiled), ``step.train_step``.

To carry decisions out elsewhere, give ``run_study`` a function ``new_executor`` that makes a
``TrialExecutor``, as :mod:`budgetflow.cluster` does; to replace training alone, something like
``LiveTrials``.
"""
