"""Rendered road scenes: a synthetic data set for driving, split by town."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Interval

from dlframe.data.road_rendering import CLASSES, WEATHER, Body, Canvas, Color, Cuboid, View, cyclist, person, rendered, vehicle
from dlframe.readers.boxes.box_sets import box_set, store
from dlframe.readers.modes import Decoding
from dlframe.readers.splits import statistics
from dlframe.registry import Count, data
from dlframe.storage.decoded import cache_key, decoded
from dlframe.types import DataError, Dataset, say

VERSION = 1
"""Of the renderer, part of the cache key."""

TOWNS = {"train": range(8), "validation": range(8, 10), "test": range(10, 13)}
"""Split -> its towns."""

STREET = 8
"""Pictures of one street, which are dependent."""

ABOUT = ("area", "truncation", "occlusion", "ignored")


@data.register(
    "road_scenes", inputs=("image",), targets=("box", "class", "value"), files=(), sample={"images": 16, "image_size": (48, 96)}
)
def road_scenes(
    *,
    images: Count = 480,
    image_size: tuple[Annotated[int, Interval(ge=32, le=2048)], Annotated[int, Interval(ge=32, le=2048)]] = (96, 256),
    weather: Literal["all", "clear", "rain", "fog", "night"] = "all",
) -> Dataset:
    """Rendered (synthetic) road scenes of 13 towns, by day and night, in rain and fog.

    Cars, vans, trucks, pedestrians and cyclists made of cuboids, on streets with buildings, trees and poles that hide them.
    A box is around all of an object that is in the picture, hidden or not; truncation is the fraction outside of it and
    occlusion has the levels of KITTI. Towns differ in colors, widths, density and camera. Training, validation and test towns
    are different ones. The pictures are rendered once and cached.

    Args:
        images: Training pictures; a quarter as many to validate and to test.
        image_size: Height and width of the pictures in pixels.
        weather: Weather of all pictures; all is each of them, half of the pictures being clear.
    """
    options = (images, image_size, weather, VERSION)
    name = f"road_scenes-{cache_key(*options)}"
    return decoded(name, "1", partial(_render, images, image_size, weather), _stored)


def _stored(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Dataset:
    return box_set("road_scenes", arrays, facts, ABOUT)


def _render(images: int, image_size: tuple[int, int], weather: str, folder: Path) -> dict[str, Any]:
    """Render all pictures into the cached arrays of their splits."""
    if image_size[0] > image_size[1]:
        raise DataError(f"data.image_size: must be [height, width], the width at least as large. Received: {list(image_size)}")
    counts = {"train": images, "validation": -(-images // 4), "test": -(-images // 4)}
    say(f"Rendering {sum(counts.values()):,} road scenes (synthetic, once)", error=True)
    towns = ", ".join(f"{len(own)} to {verb}" for own, verb in zip(TOWNS.values(), ("train", "validate", "test"), strict=True))
    facts: dict[str, Any] = {"classes": CLASSES, "source": "rendered, synthetic", "splits": f"by town: {towns}"}
    facts["decoding"] = Decoding(fit="pad", background="mean").kept()  # of files that are predicted
    for part, count in counts.items():
        views, groups = [], []
        for number in range(count):
            street = number // STREET
            town = TOWNS[part][street % len(TOWNS[part])]
            views.append(picture(town, street, number, image_size, weather))
            groups.append(f"town {town}, street {street}")
        pixels = np.stack([view.pixels for view in views])
        store(
            folder,
            part,
            boxes=[view.boxes for view in views],
            labels=[view.labels for view in views],
            about=[np.c_[view.about, view.hidden] for view in views],
            known=ABOUT,
            ids=[f"{group}, {number}" for number, group in enumerate(groups)],
            groups=groups,
            images=pixels,
        )
        if part == "train":
            facts["mean"], facts["std"] = statistics(pixels)
    return facts


def picture(town: int, street: int, number: int, image_size: tuple[int, int], weather: str = "all") -> View:
    """Render one picture of a street of a town; equal arguments give equal pictures."""
    taste = np.random.default_rng([1, town])
    walls = [_color(taste, 0.35, 0.8) for _ in range(4)]
    asphalt = np.full(3, taste.uniform(0.22, 0.38))
    lane, density, camera = taste.uniform(2.9, 3.6), taste.uniform(0.5, 1.0), taste.uniform(1.4, 1.9)
    place = np.random.default_rng([2, town, street])
    walk, trees = place.uniform(1.8, 3.5), place.uniform(0.1, 0.7)
    random = np.random.default_rng([3, town, street, number])
    condition = weather if weather != "all" else str(random.choice(WEATHER, p=[0.49, 0.17, 0.17, 0.17]))
    rows, columns = image_size
    canvas = Canvas(image_size, columns * random.uniform(0.75, 0.95), camera, rows * random.uniform(0.05, 0.15))
    drift = random.uniform(-0.4, 0.4)
    _paint_ground(canvas, asphalt, lane, walk, drift)
    bodies = _street(place, walls, lane, walk, trees, drift)
    bodies += _traffic(random, lane, walk, density, drift)
    sky = (0.5, 0.62, 0.82) if condition == "clear" else (0.6, 0.63, 0.66)
    return rendered(canvas, bodies, sky, condition, random)


def _color(random: np.random.Generator, low: float, high: float) -> Color:
    red, green, blue = random.uniform(low, high, 3)
    return float(red), float(green), float(blue)


def _paint_ground(canvas: Canvas, asphalt: np.ndarray, lane: float, walk: float, drift: float) -> None:
    """Paint road, markings, pavement and grass, with their depth."""
    y = np.arange(canvas.rows) + 0.5 - canvas.center[1]
    below = np.flatnonzero(y > 0.5)
    depth = canvas.focal * canvas.height / y[below]
    x = (np.arange(canvas.columns) + 0.5 - canvas.center[0])[None] / canvas.focal * depth[:, None] + lane / 2 + drift
    color = np.empty((*x.shape, 3), np.float32)
    color[:] = (0.3, 0.42, 0.22)
    color[np.abs(x) < lane + walk] = (0.55, 0.54, 0.52)
    color[np.abs(x) < lane] = asphalt
    dashes = (np.abs(x) < 0.08) & ((depth % 6) < 3)[:, None]
    edges = np.abs(np.abs(x) - (lane - 0.15)) < 0.07
    color[dashes | edges] = (0.85, 0.85, 0.82)
    canvas.color[below], canvas.depth[below] = color, depth[:, None]


def _street(
    random: np.random.Generator, walls: list[Color], lane: float, walk: float, trees: float, drift: float
) -> list[Body]:
    """Return buildings, trees and poles of both sides."""
    bodies = []
    middle = -lane / 2 - drift
    for side in (-1, 1):
        z = random.uniform(2, 8)
        while z < 70:
            length, depth, height = random.uniform(6, 16), 8.0, random.uniform(4, 14)
            x = middle + side * (lane + walk + depth / 2 + random.uniform(0.2, 3))
            wall = walls[random.integers(len(walls))]
            parts = [Cuboid((depth, height, length), (0, 0, 0), wall)]
            window = tuple(0.35 * c for c in wall)
            for floor in np.arange(1.0, height - 1.5, 3.0):
                for along in () if z > 40 else np.arange(-length / 2 + 1.2, length / 2 - 1, 2.6):
                    parts.append(
                        Cuboid((depth + 0.04, 1.4, 1.1), (0, floor, along), (window[0], window[1], window[2]), flat=True)
                    )
            bodies.append(Body(-1, parts[:21], (x, z + length / 2)))
            z += length + random.uniform(0.5, 9)
        for z in np.arange(random.uniform(4, 10), 70, 9.0):
            x = middle + side * (lane + 0.6)
            if random.random() < trees:
                green = (0.1, random.uniform(0.25, 0.45), 0.12)
                trunk, crown = Cuboid((0.3, 2.2, 0.3), (0, 0, 0), (0.3, 0.2, 0.12)), Cuboid((2.0, 2.4, 2.0), (0, 2.2, 0), green)
                bodies.append(Body(-1, [trunk, crown], (x, z), random.uniform(0, 1.5)))
            elif random.random() < 0.5:
                bodies.append(Body(-1, [Cuboid((0.14, 4.5, 0.14), (0, 0, 0), (0.4, 0.4, 0.42))], (x, z)))
    return bodies


def _traffic(random: np.random.Generator, lane: float, walk: float, density: float, drift: float) -> list[Body]:
    """Return vehicles on and beside the road and people on the pavement and on the road; none may stand in another."""
    bodies: list[Body] = []
    middle = -lane / 2 - drift
    taken: list[tuple[float, float, float]] = []

    def free(x: float, z: float, radius: float) -> bool:
        if any((x - a) ** 2 + (z - b) ** 2 < (radius + c) ** 2 for a, b, c in taken):
            return False
        taken.append((x, z, radius))
        return True

    if random.random() < 0.06:  # an empty street
        return bodies
    for _ in range(random.poisson(5 * density)):
        kind = str(random.choice(CLASSES[:3], p=[0.72, 0.17, 0.11]))
        ahead = random.random() < 0.5
        parked = random.random() < 0.35
        x = middle + (1 if ahead else -1) * (lane / 2 if not parked else lane + 0.9) + random.normal(0, 0.15)
        z = random.uniform(4.5, 55) if abs(x) > 1.2 else random.uniform(7, 55)
        if not free(x, z, 3.0 if kind != "Truck" else 4.6):
            continue
        turn = (0.0 if ahead else np.pi) + random.normal(0, 0.04) + (random.random() < 0.06) * random.uniform(-1.2, 1.2)
        bodies.append(Body(CLASSES.index(kind), vehicle(kind, _color(random, 0.1, 0.95), random), (x, z), turn))
    for _ in range(random.poisson(4 * density)):
        rides = random.random() < 0.3
        side = random.choice([-1, 1])
        x = middle + side * (lane - 0.6 if rides else lane + random.uniform(0.3, walk)) * (random.random() < 0.9 or 0.3)
        z = random.uniform(3.5, 32)
        if not free(x, z, 1.0 if rides else 0.4):
            continue
        make = cyclist if rides else person
        turn = random.choice([0.0, np.pi]) if rides else random.uniform(0, 2 * np.pi)
        bodies.append(
            Body(CLASSES.index("Cyclist" if rides else "Pedestrian"), make(_color(random, 0.1, 0.95), random), (x, z), turn)
        )
    return bodies
