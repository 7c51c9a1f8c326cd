"""Data sets and augmentation that configs name; all else is in :mod:`budgetflow.engine.data`."""
