"""What MLflow shows of a run beside its numbers: its parameters, its data, and its description with the figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow.entities import Dataset, DatasetInput, InputTag

from dlframe.config.settings import settings
from dlframe.runs import journal
from dlframe.runs.run_directory import FIGURES, FREE, artifact_folder
from dlframe.tracking.content.artifacts import RejectedRecord, opened

NOTE_TAG = "mlflow.note.content"
DESCRIBED_TAG = "dlframe.described"
"""Tag with the hash of the description that dlframe has written: another one is the user's, and stays."""
ALWAYS = ("seed", "epochs", "batch_size")
UNCHOSEN = ("", "null", "[]", "{}", "None")
LARGEST = 6000
"""Characters of a description; MLflow takes 8,000."""
WIDEST = 900
"""Pixels of a figure that is shown; a wider one, which would push aside what MLflow shows beside it, is a link."""
SIZES = {"name": 500, "digest": 36, "source": 60_000}
"""Characters that MLflow takes of a data set."""


def chosen(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that say what was chosen.

    Those of components, and of the other options seed, epochs, batch size and what differs from its default: nothing that is
    unset, and nothing that a result does not depend on. The run's config.yaml has all of them.
    """
    hidden = {*FREE, "run_name", "experiment_name", "log_every_n_steps"}
    found = {name: value for name, value in parameters.items() if name.split(".")[0] not in hidden}
    defaults = {
        key: parameter.default for group in ("run", "trainer") for key, parameter in _options(group) if key not in ALWAYS
    }
    return {
        name: value
        for name, value in found.items()
        if str(value) not in UNCHOSEN and not (name in defaults and value == defaults[name])
    }


def _options(group: str) -> list[tuple[str, Any]]:
    prefix = "" if group == "run" else f"{group}."
    return [(f"{prefix}{name}", parameter) for name, parameter in settings.get(group).parameters.items()]


def data_of(start: Mapping[str, Any]) -> DatasetInput | None:
    """Return the data of a run as MLflow's input; None of a study, and of a run of an earlier version.

    Raises:
        RejectedRecord: They are not described as a run does.
    """
    given = start.get("data")
    if given is None:
        return None
    if not isinstance(given, dict) or not all(isinstance(given.get(key), str) and given[key] for key in SIZES):
        raise RejectedRecord("the run's start record has an invalid data")
    name, digest, source = (given[key][:size] for key, size in SIZES.items())
    profile = json.dumps(given.get("profile", {}))[:16_000]
    dataset = Dataset(name, digest, "dlframe", json.dumps({"source": source}), profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def note(record: Mapping[str, Any], folder: Path, run_id: str) -> str:
    """Return the description of a run in Markdown, with the figures that were uploaded.

    Raises:
        RejectedRecord: It is no text.
    """
    text = record.get("text")
    if not isinstance(text, str):
        raise RejectedRecord("a description must be a text")
    parts = [text if len(text) <= LARGEST else f"{text[:LARGEST].rpartition(chr(10))[0]}\n\n(cut)"]
    for path in dict.fromkeys(str(item.get("path")) for item in journal.read(folder) if item["kind"] == "artifact"):
        try:
            is_figure = artifact_folder(path) == FIGURES
        except ValueError:
            continue
        if is_figure:
            title = Path(path).stem.replace("_", " ")
            link = f"{'!' * (0 < _width(folder, path) <= WIDEST)}[{title}](get-artifact?path={quote(path)}&run_uuid={run_id})"
            if sum(map(len, parts)) + len(link) < LARGEST + 1500:
                parts.append(link)
    return "\n\n".join(parts)


def _width(folder: Path, path: str) -> int:
    """Return the width of a PNG file in pixels; 0 of what is none."""
    try:
        with opened(folder, path) as file:
            head = file.read(24)
    except (OSError, RejectedRecord):
        return 0
    return int.from_bytes(head[16:20], "big") if head.startswith(b"\x89PNG") and len(head) == 24 else 0


def digest(text: str) -> str:
    """Return 12 hexadecimal digits of a text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
