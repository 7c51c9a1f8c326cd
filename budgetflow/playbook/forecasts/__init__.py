"""Forecasts of longer runs from a study's own curves, and how earlier forecasts turned out.

- ``expected``: a figure with its interval, or why there is none.
- ``laws``: the laws of the loss and their fit to curves.
- ``loss_forecast``: the choice of a law, and the loss of a longer run by it.
- ``metric_by_loss``: the selection metric as a function of the loss.
- ``study_forecast``: the forecast of a study's best setting, and which length is worth it.
- ``scored``: a receipt for each forecast that a longer round has tested.
- ``words``: sentences and tables.

A new law is a function of parameters and features and an entry of ``laws.LAWS``, with a prior of
its parameters; it is chosen where it predicts best what is held out.
"""
