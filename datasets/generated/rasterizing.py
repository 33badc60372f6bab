"""Meshes to pictures: a z-buffer over all pairs of a triangle and a pixel of its bounding box at once.

For the many small triangles of furniture and rooms, where a ray tracer in numpy would be slow. Lambert's law under one lamp
and light from everywhere, no shadows. Cameras are OpenCV's (x right, y down, z forward), pixel centres at +0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adlbench.datasets.generated.raytracing import srgb

Array = np.ndarray
NEAR = 0.05  # world units: what is closer to the camera is cut away
SAMPLES = 3  # per pixel along each axis; odd, so that the middle one is the pixel's centre


@dataclass(frozen=True)
class Model:
    """Triangles with what they look like and what they are."""

    vertices: Array  # float64 [V, 3], world units
    faces: Array  # int64 [F, 3]
    colour: Array  # float64 [F, 3], diffuse albedo, linear
    label: Array  # int64 [F]
    instance: Array  # int64 [F]

    @staticmethod
    def joined(models: list[Model]) -> Model:
        offsets = np.cumsum([0] + [len(model.vertices) for model in models[:-1]])
        return Model(
            np.concatenate([model.vertices for model in models]),
            np.concatenate([model.faces + offset for model, offset in zip(models, offsets)]),
            np.concatenate([model.colour for model in models]),
            np.concatenate([model.label for model in models]),
            np.concatenate([model.instance for model in models]),
        )


@dataclass(frozen=True)
class Light:
    """Irradiance over pi: ``up`` from above, ``down`` from below, and a lamp with unit strength at distance ``reach``."""

    lamp: Array  # [3], world units
    power: float = 0.7
    reach: float = 3.0
    up: float = 0.45  # on surfaces that face ``axis``
    down: float = 0.2
    axis: tuple[float, float, float] = (0.0, 1.0, 0.0)

    def on(self, points: Array, normals: Array) -> Array:
        """On points [N, 3] with unit normals [N, 3]: [N]."""
        offset = self.lamp - points
        squared = np.square(offset).sum(1)
        cosine = np.maximum((offset * normals).sum(1), 0) / np.sqrt(squared)
        share = 0.5 + 0.5 * normals @ np.array(self.axis)
        fading = 1 / (0.5 + 0.5 * squared / self.reach**2)  # bounded near the lamp, 1 at its reach
        return self.down + (self.up - self.down) * share + self.power * cosine * fading


@dataclass(frozen=True)
class Picture:
    image: Array  # uint8 [H, W, 3]
    depth: Array  # float32 [H, W], z-depth at the pixel's centre, 0 where there is nothing
    label: Array  # int64 [H, W] at the pixel's centre, -1 where there is nothing
    instance: Array  # int64 [H, W], the same


def draw(
    model: Model,
    world_to_camera: Array,
    intrinsics: Array,
    size: tuple[int, int],
    light: Light,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    texture: Callable[[Array], Array] | None = None,
) -> Picture:
    """``model`` as (height, width) pixels. Colours are averaged in the stored image's space, as tabletop's are.

    ``texture`` gives a factor [N] of the albedo at points [N, 3].
    """
    height, width = size
    fine = intrinsics.copy()
    fine[:2] *= SAMPLES
    face, depth = rasterize(model.vertices, model.faces, world_to_camera, fine, (height * SAMPLES, width * SAMPLES))
    row, column = np.nonzero(face >= 0)
    hit = face[row, column]
    points = unproject(column + 0.5, row + 0.5, depth[row, column], world_to_camera, fine)
    normals = _facing(model, hit, points, world_to_camera)
    colour = np.empty((*face.shape, 3))
    colour[:] = background
    strength = light.on(points, normals) * (texture(points) if texture else 1.0)
    colour[row, column] = srgb(model.colour[hit] * strength[:, None])
    mean = colour.reshape(height, SAMPLES, width, SAMPLES, 3).mean((1, 3))
    middle = SAMPLES // 2
    seen, centre = face[middle::SAMPLES, middle::SAMPLES], depth[middle::SAMPLES, middle::SAMPLES]
    return Picture(
        np.round(mean * 255).astype(np.uint8),
        centre.astype(np.float32),
        np.where(seen >= 0, model.label[seen], -1),
        np.where(seen >= 0, model.instance[seen], -1),
    )


def _facing(model: Model, faces: Array, points: Array, world_to_camera: Array) -> Array:
    """Unit normals of ``faces``, turned to the camera."""
    a, b, c = (model.vertices[model.faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    eye = -world_to_camera[:3, :3].T @ world_to_camera[:3, 3]
    chosen = normal[faces]
    away = (chosen * (eye - points)).sum(1, keepdims=True) < 0
    return np.where(away, -chosen, chosen)


def unproject(column: Array, row: Array, depth: Array, world_to_camera: Array, intrinsics: Array) -> Array:
    """World points [N, 3] at image points (x, y) [N] and z-depths [N]."""
    x = (column - intrinsics[0, 2]) / intrinsics[0, 0] * depth
    y = (row - intrinsics[1, 2]) / intrinsics[1, 1] * depth
    return (np.stack([x, y, depth], 1) - world_to_camera[:3, 3]) @ world_to_camera[:3, :3]


def rasterize(
    vertices: Array, faces: Array, world_to_camera: Array, intrinsics: Array, size: tuple[int, int]
) -> tuple[Array, Array]:
    """The face that is seen at each pixel's centre, int64 [H, W], -1 where none is, and its z-depth [H, W], 0 there."""
    height, width = size
    camera = vertices @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    corners, number = _in_front(camera[faces])
    inverse = 1 / corners[..., 2]  # [T, 3]; linear over the picture
    x = intrinsics[0, 0] * corners[..., 0] * inverse + intrinsics[0, 2]
    y = intrinsics[1, 1] * corners[..., 1] * inverse + intrinsics[1, 2]
    left, right = _span(x, width)
    top, bottom = _span(y, height)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    kept = np.flatnonzero((right > left) & (bottom > top) & (np.abs(area) > 1e-12))
    columns = (right - left)[kept]
    count = columns * (bottom - top)[kept]
    triangle = np.repeat(kept, count)

    def spread(values: Array) -> Array:
        """[T] -> one for each pixel of a triangle's box. Several times as fast as values[triangle]."""
        return np.repeat(values[kept], count)

    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    step, offset = np.divmod(place, np.repeat(columns, count))
    column, row = spread(left) + offset, spread(top) + step

    px, py = column + 0.5, row + 0.5
    weights = []
    for i, j in ((1, 2), (2, 0)):
        dx, dy = spread(x[:, j] - x[:, i]), spread(y[:, j] - y[:, i])
        weights.append((dx * (py - spread(y[:, i])) - (px - spread(x[:, i])) * dy) / spread(area))
    weights.append(1 - weights[0] - weights[1])
    inside = (weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0)
    triangle, pixel = triangle[inside], (row * width + column)[inside]
    nearness = sum(w[inside] * inverse[triangle, i] for i, w in enumerate(weights))

    nearest = np.zeros(height * width)
    np.maximum.at(nearest, pixel, nearness)
    first = nearness == nearest[pixel]
    face = np.full(height * width, -1)
    face[pixel[first]] = number[triangle[first]]
    depth = np.divide(1, nearest, out=np.zeros_like(nearest), where=nearest > 0)
    return face.reshape(size), depth.reshape(size)


def _span(coordinate: Array, size: int) -> tuple[Array, Array]:
    """The first pixel of [T, 3] coordinates whose centre is not below, and the first after it that is above."""
    low = np.ceil(np.clip(coordinate.min(1), -1, size + 1) - 0.5)
    high = np.floor(np.clip(coordinate.max(1), -1, size + 1) - 0.5) + 1
    return np.clip(low, 0, size).astype(np.int64), np.clip(high, 0, size).astype(np.int64)


def _in_front(corners: Array) -> tuple[Array, Array]:
    """Triangles [F, 3, 3] in camera coordinates, cut at z = NEAR: [T, 3, 3], and the number [T] of each one's face."""
    before = (corners[..., 2] >= NEAR).sum(1)
    whole = np.flatnonzero(before == 3)
    triangles, number = [corners[whole]], [whole]
    for face in np.flatnonzero((before == 1) | (before == 2)):
        polygon = []
        for a, b in zip(corners[face], np.roll(corners[face], -1, 0)):
            if a[2] >= NEAR:
                polygon.append(a)
            if (a[2] >= NEAR) != (b[2] >= NEAR):
                polygon.append(a + (b - a) * ((NEAR - a[2]) / (b[2] - a[2])))
        fan = [[polygon[0], polygon[i], polygon[i + 1]] for i in range(1, len(polygon) - 1)]
        triangles.append(np.array(fan))
        number.append(np.full(len(fan), face))
    return np.concatenate(triangles), np.concatenate(number)


def look_at(eye: Array, target: Array, up: tuple[float, float, float] = (0.0, 1.0, 0.0)) -> Array:
    """world_to_camera [4, 4] of a camera at ``eye`` that looks at ``target`` with ``up`` upwards in the picture."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return matrix


def pinhole(size: tuple[int, int], field_of_view: float) -> Array:
    """[3, 3] of (height, width) pixels, ``field_of_view`` across the width in radians."""
    height, width = size
    focal = 0.5 * width / np.tan(0.5 * field_of_view)
    return np.array([[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]])
