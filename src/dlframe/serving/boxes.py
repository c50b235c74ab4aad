"""Predicted boxes as files: annotations of COCO, and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.serving.inputs import Sample
from dlframe.types import ConfigError, DataError

LARGEST = 1600
"""Pixels of the longer side of a picture; larger images are made smaller."""


class CocoFile:
    """Writer of COCO's JSON: images, categories, and an annotation with a score for each detection.

    Attributes:
        classes: Names of all classes, known once the model is.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")
        self.classes: Sequence[str] = ()
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Add a row per image: input, box, prediction, confidence, and width and height where they are known."""
        number = {name: i for i, name in enumerate(self.classes, 1)}
        for row in rows:
            image = len(self.images) + 1
            size = {key: row[key] for key in ("width", "height") if key in row}
            self.images.append({"id": image, "file_name": row["input"], **size})
            for box, name, score in zip(row["box"], row["prediction"], row["confidence"], strict=True):
                left, top, right, bottom = box
                width, height = right - left, bottom - top
                found = {
                    "id": len(self.annotations) + 1,
                    "image_id": image,
                    "category_id": number[name],
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": score,
                }
                self.annotations.append(found)

    def close(self) -> None:
        """Write the file."""
        if self.file.closed:
            return
        with self.file:
            categories = [{"id": i, "name": name} for i, name in enumerate(self.classes, 1)]
            content = {"images": self.images, "categories": categories, "annotations": self.annotations}
            json.dump(content, self.file, ensure_ascii=False)


class Pictures:
    """Writer of a PNG with the boxes of each image.

    Args:
        folder: Folder of the pictures, which is made; it must be empty.

    Raises:
        ConfigError: It is not an empty folder, or cannot be made.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise ConfigError(f"draw: must be an empty folder. Received: {folder!r}. Choose another name.", "draw")
        except OSError as error:
            raise ConfigError(f"draw: cannot make {folder!r}: {error.strerror}.", "draw") from None
        self.count = 0

    def write(self, samples: Sequence[Sample], outputs: dict[str, Any]) -> None:
        """Draw the boxes of samples; of an array, nothing is drawn."""
        from dlframe import plots
        from dlframe.readers.images import read_image

        for i, sample in enumerate(samples):
            if sample.file is None or sample.size is None:
                continue
            width, height = sample.size
            scale = min(1.0, LARGEST / max(width, height))
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            pixels = read_image(sample.file, size, "rgb").pixels
            if pixels is None:
                raise DataError(f"predict: {sample.name} has changed while it was read")
            boxes = outputs["box"][i] * np.array([size[1] / width, size[0] / height] * 2)
            rows = zip(boxes.tolist(), outputs["prediction"][i].tolist(), outputs["confidence"][i].tolist(), strict=True)
            drawn = [plots.Drawn(box, f"{name} {score:.2f}", plots.HIT) for box, name, score in rows]
            # Files of one name, of several folders, are told apart by a number.
            name, number = f"{sample.file.stem}.png", 1
            while (self.folder / name).exists():
                name, number = f"{sample.file.stem}-{number}.png", number + 1
            plots.save(plots.drawn(pixels, drawn), self.folder / name)
            self.count += 1
