"""One trial: its compiled program, its state, and advancing it to a step. JAX lives here.

- ``spec``: what shapes a program, as a hashable value: model, task, optimizer, batch and precision.
- ``step``: the compiled functions of a spec on a mesh: ``train_steps``, ``eval_step``, ``init``.
- ``apply``: the model inside a compiled function. ``fit_check``: is every training example right?
- ``trial_run``: :class:`~budgetflow.engine.training.trial_run.TrialRun` is a trial on its devices;
  ``advance`` trains it to a step and measures it there.
- ``device_data``: the data on the devices, owned by whoever runs the trials.
- ``mesh``: devices, and how arrays are laid out over them.
- ``tracing``, ``optimizer_check``: what tracing refuses before anything is compiled.
- ``evaluation_size``, ``timing``, ``exactness``: batches of evaluation, where time goes, same bits.

What a study varies in numbers (learning rate, strengths, seed) is a traced argument, so a study
compiles once. To add a number, add it to ``spec.traced_numbers`` and use it in ``step``; to add
what shapes the program, add a field to ``spec.ProgramSpec``. Both are part of the key of states.
"""
