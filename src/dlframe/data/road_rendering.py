"""Renderer of synthetic road scenes: cuboids in perspective, with a depth for each pixel, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CLASSES = ("Car", "Van", "Truck", "Pedestrian", "Cyclist")
"""Classes, named as in KITTI."""

WEATHER = ("clear", "rain", "fog", "night")

NEAR = 1.0
"""Meters before the camera within which nothing is drawn."""

LIGHT = np.array([0.35, -0.8, -0.5]) / np.linalg.norm([0.35, -0.8, -0.5])
"""Direction to the sun; x is to the right, y down, z ahead."""

FACES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
"""Corners of the faces of a cuboid; corner i has x of bit 4, y of bit 2 and z of bit 1."""

BITS = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]) - 0.5
SIDES = np.array([True, True, False, False, False, False])
"""Which faces are at the ends of x."""

LEVELS = (0.1, 0.5, 0.8)
"""Hidden fractions up to which an object is visible, partly and largely occluded."""

LEAST = (0.05, 12)
"""Visible fraction and pixels below which an object is not annotated: nobody could see it."""

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Cuboid:
    """Cuboid, relative to its object.

    Attributes:
        size: Extent along x, y and z in meters.
        center: Center in meters: x, height of its lower side above ground, z.
        color: Red, green and blue from 0 to 1.
        glow: Whether it shines at night.
        flat: Whether only its sides along x are drawn: of windows, whose other sides are in a wall.
    """

    size: tuple[float, float, float]
    center: tuple[float, float, float]
    color: Color
    glow: bool = False
    flat: bool = False


@dataclass
class Body:
    """Object in the world.

    Attributes:
        label: Index of its class; -1 for what is not annotated.
        cuboids: Its parts.
        place: x and z in meters.
        turn: Rotation about the vertical in radians.
    """

    label: int
    cuboids: list[Cuboid]
    place: tuple[float, float]
    turn: float = 0.0


@dataclass
class View:
    """Rendered picture.

    Attributes:
        pixels: (3, height, width) uint8.
        boxes: (objects, 4) corners in pixels of all of an object that is in the picture, hidden or not.
        labels: (objects,) class indices.
        about: (objects, 3) area in square pixels, truncation (fraction outside the picture), occlusion (0 to 2, 3 unknown).
        hidden: (objects,) bool, whether too little is visible to be annotated as more than a region to ignore.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    about: np.ndarray
    hidden: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


def vehicle(kind: str, color: Color, random: np.random.Generator) -> list[Cuboid]:
    """Return the parts of a car, a van or a truck, which faces along z."""
    dark, light, tire = (0.12, 0.14, 0.18), (1.0, 0.95, 0.7), (0.05, 0.05, 0.05)
    if kind == "Car":
        width, length, height = random.uniform(1.65, 1.85), random.uniform(3.7, 4.6), random.uniform(1.35, 1.55)
        body, cabin = 0.5 * height, 0.38 * height
        parts = [
            Cuboid((width, body, length), (0, 0.25, 0), color),
            Cuboid((0.88 * width, cabin, 0.5 * length), (0, 0.25 + body, -0.05 * length), dark),
            Cuboid((0.9 * width, 0.06, 0.48 * length), (0, 0.25 + body + cabin, -0.05 * length), color),
        ]
    elif kind == "Van":
        width, length, height = random.uniform(1.9, 2.1), random.uniform(4.8, 5.6), random.uniform(2.1, 2.5)
        parts = [
            Cuboid((width, height - 0.3, length), (0, 0.3, 0), color),
            Cuboid((0.9 * width, 0.32 * height, 0.02), (0, 0.6 * height, -length / 2), dark),
            Cuboid((1.01 * width, 0.3 * height, 0.25 * length), (0, 0.6 * height, 0.3 * length), dark),
        ]
    else:
        width, length, height = random.uniform(2.3, 2.5), random.uniform(7.0, 9.0), random.uniform(2.9, 3.5)
        box = tuple(min(1.0, c + 0.35) for c in color)
        parts = [
            Cuboid((width, height - 0.9, 0.72 * length), (0, 0.9, -0.14 * length), (box[0], box[1], box[2])),
            Cuboid((width, 0.72 * height, 0.2 * length), (0, 0.5, 0.39 * length), color),
            Cuboid((0.9 * width, 0.25 * height, 0.21 * length), (0, 0.5 + 0.4 * height, 0.39 * length), dark),
        ]
    wheel = 0.32 if kind != "Truck" else 0.5
    for x in (-1, 1):
        for z in (-1, 1):
            parts.append(Cuboid((0.2, 2 * wheel, 2 * wheel), (x * (width / 2 - 0.1), 0, z * 0.32 * length), tire))
        parts.append(Cuboid((0.25, 0.15, 0.04), (x * 0.36 * width, 0.65, length / 2), light, glow=True))
        parts.append(Cuboid((0.25, 0.15, 0.04), (x * 0.36 * width, 0.7, -length / 2), (0.85, 0.08, 0.05), glow=True))
    return parts


def person(color: Color, random: np.random.Generator) -> list[Cuboid]:
    """Return the parts of somebody who walks."""
    height, stride = random.uniform(1.5, 1.9), random.uniform(0, 0.25)
    skin = (0.75 * random.uniform(0.5, 1.1), 0.55, 0.45)
    trousers = tuple(random.uniform(0.05, 0.4, 3))
    return [
        Cuboid((0.16, 0.47 * height, 0.18), (-0.1, 0, stride), trousers),
        Cuboid((0.16, 0.47 * height, 0.18), (0.1, 0, -stride), trousers),
        Cuboid((0.46, 0.38 * height, 0.26), (0, 0.47 * height, 0), color),
        Cuboid((0.2, 0.14 * height, 0.22), (0, 0.86 * height, 0), skin),
    ]


def cyclist(color: Color, random: np.random.Generator) -> list[Cuboid]:
    """Return the parts of a bicycle with its rider, along z."""
    rider = [
        Cuboid(part.size, (part.center[0], part.center[1] + 0.35, part.center[2]), part.color)
        for part in person(color, random)[2:]
    ]
    tire = (0.05, 0.05, 0.05)
    return [
        Cuboid((0.07, 0.66, 0.62), (0, 0, 0.55), tire),
        Cuboid((0.07, 0.66, 0.62), (0, 0, -0.55), tire),
        Cuboid((0.07, 0.1, 1.1), (0, 0.55, 0), (0.6, 0.1, 0.1)),
        Cuboid((0.2, 0.5, 0.25), (0, 0.5, -0.05), (0.15, 0.15, 0.3)),
        *rider,
    ]


class Canvas:
    """Picture with depth and owner of each pixel.

    Args:
        size: Height and width in pixels.
        focal: Focal length in pixels.
        height: Meters of the camera above ground.
        tilt: Rows by which the horizon is above the middle.
    """

    def __init__(self, size: tuple[int, int], focal: float, height: float, tilt: float) -> None:
        self.rows, self.columns = size
        self.focal, self.height = focal, height
        self.center = np.array([self.columns / 2, self.rows / 2 - tilt])
        self.color = np.zeros((*size, 3), np.float32)
        self.depth = np.full(size, np.inf, np.float32)
        self.owner = np.full(size, -1, np.int32)
        self.glow = np.zeros(size, bool)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return columns and rows (n, 2) of points (n, 3) before the camera."""
        return self.center + self.focal * points[:, :2] / points[:, 2:]

    def fill(
        self, polygon: np.ndarray, normal: np.ndarray, color: np.ndarray, owner: int, glow: bool, own: np.ndarray | None
    ) -> None:
        """Draw a convex polygon (n, 3) of points, of a plane; `own` collects where it is, hidden or not."""
        polygon = _clipped(polygon)
        if len(polygon) < 3:
            return
        flat = self.project(polygon)
        low = np.maximum(np.floor(flat.min(0) - 0.5).astype(int), 0)
        high = np.minimum(np.ceil(flat.max(0) + 0.5).astype(int), [self.columns, self.rows])
        if (low >= high).any():
            return
        x = np.arange(low[0], high[0]) + 0.5
        y = (np.arange(low[1], high[1]) + 0.5)[:, None]
        following = flat[[*range(1, len(flat)), 0]]
        area = (flat[:, 0] * following[:, 1] - following[:, 0] * flat[:, 1]).sum()
        if abs(area) < 1e-9:
            return
        inside = np.ones((high[1] - low[1], high[0] - low[0]), bool)
        for (x0, y0), (x1, y1) in zip(flat.tolist(), following.tolist(), strict=True):
            across, down = ((x1 - x0) * (y - y0), (y1 - y0) * (x - x0))
            inside &= across >= down if area > 0 else across <= down
        if not inside.any():
            return
        # The inverse of the depth of a plane is linear in the picture.
        scale = normal @ polygon[0]
        ray_x, ray_y = (x - self.center[0]) / self.focal, (y - self.center[1]) / self.focal
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = scale / (normal[0] * ray_x + normal[1] * ray_y + normal[2])
        place = (slice(low[1], high[1]), slice(low[0], high[0]))
        if own is not None:
            own[place] |= inside
        visible = inside & (depth < self.depth[place]) & (depth > 0)
        self.depth[place][visible] = depth[visible]
        self.color[place][visible] = color
        self.owner[place][visible] = owner
        self.glow[place][visible] = glow

    def draw(self, body: Body, owner: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw an object; return where it is, (rows, columns) bool, and its box (4,) in the plane of the picture."""
        own = np.zeros((self.rows, self.columns), bool)
        cosine, sine = np.cos(body.turn), np.sin(body.turn)
        rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        size, center = (np.array([getattr(part, name) for part in body.cuboids]) for name in ("size", "center"))
        middle = center * [1, -1, 1] - [0, 0.5, 0] * size
        corners = (BITS * size[:, None] + middle[:, None]) @ rotation.T + [body.place[0], self.height, body.place[1]]
        ahead = corners[corners[..., 2] > NEAR]
        if not len(ahead):
            return own, np.zeros(4)
        faces = corners[:, FACES]  # (parts, faces, 4, 3)
        normal = np.cross(faces[:, :, 1] - faces[:, :, 0], faces[:, :, 2] - faces[:, :, 0])
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        outward = faces.mean(2) - corners.mean(1)[:, None]
        normal *= np.sign((normal * outward).sum(-1, keepdims=True))
        toward = (normal * faces.mean(2)).sum(-1) < 0
        toward[[part.flat for part in body.cuboids]] &= SIDES
        light = 0.55 + 0.45 * np.maximum(0, normal @ LIGHT)
        for i, k in np.argwhere(toward):
            part = body.cuboids[i]
            color = np.array(part.color) * (1.0 if part.glow else light[i, k])
            self.fill(faces[i, k], normal[i, k], color.astype(np.float32), owner, part.glow, own if body.label >= 0 else None)
        points = self.project(ahead)
        return own, np.concatenate([points.min(0), points.max(0)])


def _clipped(polygon: np.ndarray) -> np.ndarray:
    """Return a convex polygon (n, 3) without what is nearer than `NEAR`."""
    if (polygon[:, 2] >= NEAR).all():
        return polygon
    kept = []
    for a, b in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (b - a) * (NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)


def rendered(canvas: Canvas, bodies: list[Body], sky: Color, weather: str, random: np.random.Generator) -> View:
    """Draw objects over a painted ground, and the weather over all; annotate what is an object of a class."""
    canvas.color[~np.isfinite(canvas.depth)] = sky
    boxes, labels, about, hidden = [], [], [], []
    drawn = [(i, body, *canvas.draw(body, i)) for i, body in enumerate(bodies)]
    for i, body, own, reach in drawn:
        total = int(own.sum()) if body.label >= 0 else 0
        if not total:
            continue
        rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
        seen = int((canvas.owner == i).sum())
        whole = max(float((reach[2] - reach[0]) * (reach[3] - reach[1])), 1.0)
        inner = np.clip(reach, 0, [canvas.columns, canvas.rows] * 2)
        outside = 1 - float((inner[2] - inner[0]) * (inner[3] - inner[1])) / whole
        level = int(np.searchsorted(LEVELS, 1 - seen / total))
        boxes.append(box)
        labels.append(body.label)
        about.append([float((box[2] - box[0]) * (box[3] - box[1])), min(max(outside, 0.0), 1.0), level])
        hidden.append(seen < max(LEAST[0] * total, LEAST[1]))
    pixels = _weathered(canvas, sky, weather, random)
    return View(
        pixels,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(about, np.float32).reshape(-1, 3),
        np.array(hidden, bool),
    )


def _weathered(canvas: Canvas, sky: Color, weather: str, random: np.random.Generator) -> np.ndarray:
    color = canvas.color.copy()
    depth = np.minimum(canvas.depth, 200)[..., None]
    if weather == "fog":
        haze = np.exp(-depth / random.uniform(18, 40))
        color = color * haze + np.array([0.72, 0.74, 0.76], np.float32) * (1 - haze)
    elif weather == "rain":
        haze = np.exp(-depth / 90)
        gray = color.mean(-1, keepdims=True)
        color = 0.7 * (0.5 * color + 0.5 * gray) * haze + 0.42 * (1 - haze)
        drops = random.random((canvas.rows, canvas.columns)) > 0.992
        streaks = np.maximum.reduce([np.roll(drops, shift, 0) for shift in range(5)])[..., None]
        color = np.where(streaks, 0.65 * color + 0.3, color)
    elif weather == "night":
        # Headlights reach some 30 meters ahead.
        lit = 0.08 + 0.35 * np.exp(-depth / 22)
        color = np.where(canvas.glow[..., None], np.maximum(color, 0.9 * color + 0.1), color * lit)
    color = color + random.normal(0, 0.03 if weather == "night" else 0.015, color.shape)
    return np.rint(np.clip(color, 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)
