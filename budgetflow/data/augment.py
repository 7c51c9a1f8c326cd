"""The augmentation that configs name: see :mod:`budgetflow.engine.data.augment`."""

from budgetflow.engine.data.augment import augment_images

__all__ = ["augment_images"]
