"""Shared types: fields, columns, batches, results, errors. Imports no torch."""

from dlframe.types.columns import PARTS, Batch, Column, Dataset, DataSpec, Field, Lazy, Ragged, Split, taken
from dlframe.types.contract import check_dataset
from dlframe.types.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DlframeError,
    MissingPackageError,
    NameTaken,
    OtherTaskError,
    RegistrationError,
    RunPruned,
    TrackingError,
    TrainingError,
    WorkerError,
    nearest,
    normalized,
    printable,
)
from dlframe.types.files import NO_ROOM, no_room, opened, read_bytes, read_text
from dlframe.types.results import Estimate, Metric, Result, declared
from dlframe.types.studies import Objective, TrialRecord, best_of
from dlframe.types.terminal import Screen, say

__all__ = [
    "NO_ROOM",
    "PARTS",
    "Batch",
    "CheckpointError",
    "Column",
    "ConfigError",
    "DataError",
    "DataSpec",
    "Dataset",
    "DlframeError",
    "Estimate",
    "Field",
    "Lazy",
    "Metric",
    "MissingPackageError",
    "NameTaken",
    "Objective",
    "OtherTaskError",
    "Ragged",
    "RegistrationError",
    "Result",
    "RunPruned",
    "Screen",
    "Split",
    "TrackingError",
    "TrainingError",
    "TrialRecord",
    "WorkerError",
    "best_of",
    "check_dataset",
    "declared",
    "nearest",
    "no_room",
    "normalized",
    "opened",
    "printable",
    "read_bytes",
    "read_text",
    "say",
    "taken",
]
