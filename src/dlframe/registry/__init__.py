"""Registry of components; the module that plugins import.

`@models.register("cnn")` on a class or function adds `model=cnn` to the config; each keyword-only parameter is an option.
`optimizers.adopt("lion", "timm.optim:Lion")` registers a class of another package.
"""

from dlframe.registry.entries import Entry, Registry
from dlframe.registry.groups import (
    CHOICES,
    GROUPS,
    REGISTRIES,
    STUDY_CHOICES,
    STUDY_GROUPS,
    augmentations,
    callbacks,
    data,
    executors,
    metrics,
    models,
    optimizers,
    pruners,
    read_source,
    samplers,
    schedulers,
    tasks,
)
from dlframe.registry.parameters import Count, Fraction, Natural, NonNegative, Option, Place, Positive, Probability

__all__ = [
    "CHOICES",
    "GROUPS",
    "REGISTRIES",
    "STUDY_CHOICES",
    "STUDY_GROUPS",
    "Count",
    "Entry",
    "Fraction",
    "Natural",
    "NonNegative",
    "Option",
    "Place",
    "Positive",
    "Probability",
    "Registry",
    "augmentations",
    "callbacks",
    "data",
    "executors",
    "metrics",
    "models",
    "optimizers",
    "pruners",
    "read_source",
    "samplers",
    "schedulers",
    "tasks",
]
