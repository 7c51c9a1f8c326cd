"""Reading studies: files in, tables, charts and the report out. Nothing here trains.

- ``reading``: a study's folder and its trials as objects: outcome, DataFrames, parameters, model.
- ``restoring``: a trial's model with the weights of a checkpoint, imported where it is asked for.
- ``study_difference``: studies side by side. ``study_status``: how far one under way is.
- ``kind_views``: how each kind of study is shown, an entry of :data:`kind_views.VIEWS` each.
  ``words``: headlines and numbers in words. ``provenance``: how a study began, and what comes next.
- ``report``: the HTML report and its panels. ``figures``: charts of the same panels.
- ``terminal``: what is printed. ``tracking``: TensorBoard and Weights & Biases.
- ``checking``: what in a folder is damaged, and what that costs.

To show a kind of study of your own, add its outcome to :data:`kind_views.VIEWS`. To add a panel of
the report, see :mod:`budgetflow.results.report.panels`. To add a tracker, write a
:class:`tracking.Run`, and add it to :data:`tracking.RUNS` and its package to
:data:`tracking.PACKAGES`.
"""
