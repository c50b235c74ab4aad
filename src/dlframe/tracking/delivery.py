"""Brings a run's journal to MLflow, record by record, each once."""

from __future__ import annotations

import getpass
import json
import re
import sys
import tempfile
import uuid
from contextlib import nullcontext, suppress
from itertools import batched
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from filelock import FileLock
from mlflow import MlflowClient, pyfunc
from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from dlframe import __version__, journal
from dlframe.tracking.position import Position
from dlframe.tracking.store import sqlite_file

Record = dict[str, Any]

METRICS_PER_CALL = 1000
PARAMETERS_PER_CALL = 25  # 25 values of 6,000 characters, escaped, stay below a request's limit of 1 MB
PARAMETER_LENGTH = 6000
TAG_LENGTH = 8000
KEY_TAG = "dlframe.key"
MESSAGE_TAG = "dlframe.message"
RECORD_TAG = "dlframe.record"
FINAL = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST"}
"""MLflow's error codes that no second attempt will change."""


class Refusal(Exception):
    """A record that MLflow will never take."""
