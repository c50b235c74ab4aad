"""Names for classes: what a plugin imports.

`@models.register("cnn")` on a class or a function makes `model=cnn` a choice of the config, and each keyword-only parameter
an option. `optimizers.adopt("lion", "timm.optim:Lion")` does so for a class of another package.
"""

from dlframe.registry.entries import Entry, Registry
from dlframe.registry.groups import (
    CHOICES,
    GROUPS,
    augmentations,
    callbacks,
    data,
    metrics,
    models,
    optimizers,
    read_source,
    schedulers,
    tasks,
)
from dlframe.registry.parameters import Count, Fraction, Natural, NonNegative, Option, Positive, Probability

__all__ = [
    "CHOICES",
    "GROUPS",
    "Count",
    "Entry",
    "Fraction",
    "Natural",
    "NonNegative",
    "Option",
    "Positive",
    "Probability",
    "Registry",
    "augmentations",
    "callbacks",
    "data",
    "metrics",
    "models",
    "optimizers",
    "read_source",
    "schedulers",
    "tasks",
]
