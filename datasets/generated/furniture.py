"""Furniture from a seed: fourteen classes, each shape a union of solids with part labels and an exact distance outside.

Every shape depends on (seed, class, split, number) alone, never on how many are asked for. It is centred on its
bounding box and scaled so that its farthest point lies at radius 1 / 1.03, as in DeepSDF. y is up, the front is at +z.

The signed distance of a shape is the minimum over its parts' exact distances: exact outside and on the surface; inside,
where parts overlap, a lower bound of the depth with the right sign.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.generated.furniture_classes import BUILDERS, PARTS
from adlbench.datasets.generated.furniture_kit import Kit, about_x, about_y
from adlbench.datasets.generated.furniture_more import MORE_BUILDERS
from adlbench.datasets.generated.primitives import Array, Solid

VERSION = 6  # part of the key of cached data: raise it when a change here moves the arrays
CLASSES = tuple(BUILDERS)  # what the data sets take unless they are told otherwise
ALL_CLASSES = tuple(sorted(BUILDERS | MORE_BUILDERS))
RADIUS = 1 / 1.03

__all__ = ["ALL_CLASSES", "CLASSES", "PARTS", "RADIUS", "VERSION", "Part", "Shape", "build_shape", "make_shape"]


@dataclass(frozen=True)
class Part:
    name: str
    solid: Solid
    rotation: Array  # [3, 3], columns are the solid's axes in the shape's frame
    position: Array  # [3]

    def to_local(self, points: Array) -> Array:
        return (points - self.position) @ self.rotation

    def sdf(self, points: Array) -> Array:
        return self.solid.sdf(self.to_local(points))

    @cached_property
    def ball(self) -> tuple[Array, float]:
        """Centre [3] and radius of a ball that holds it."""
        low, high = self.solid.bounds
        return self.rotation @ ((low + high) / 2) + self.position, float(np.linalg.norm(high - low)) / 2

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        points, normals = self.solid.sample(n, rng)
        return points @ self.rotation.T + self.position, normals @ self.rotation.T

    def vertices(self) -> Array:
        return self.solid.vertices() @ self.rotation.T + self.position

    def mesh(self) -> tuple[Array, Array]:
        vertices, faces = self.solid.mesh()
        return vertices @ self.rotation.T + self.position, faces

    def moved(self, scale: float, rotation: Array, offset: Array) -> Part:
        """p -> scale * rotation @ (p + offset)."""
        position = scale * (rotation @ (self.position + offset))
        return Part(self.name, self.solid.scaled(scale), rotation @ self.rotation, position)


@dataclass(frozen=True)
class Shape:
    """A union of parts inside the unit sphere."""

    parts: tuple[Part, ...]

    def sdf(self, points: Array) -> Array:
        """Signed distance [N] at ``points`` [N, 3], negative inside."""
        to_centre = np.stack([np.linalg.norm(points - part.ball[0], axis=1) for part in self.parts])
        radius = np.array([part.ball[1] for part in self.parts])[:, None]
        nearest, farthest = to_centre - radius - 1e-9, (to_centre + radius).min(0)
        distance = np.full(len(points), np.inf)
        for part, at_least in zip(self.parts, nearest):  # only where this part can be the nearest
            possible = np.flatnonzero(at_least < np.minimum(distance, farthest))
            distance[possible] = np.minimum(distance[possible], part.sdf(points[possible]))
        return distance

    def surface(self, n: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """``n`` uniform points of the outer surface [n, 3], outward normals [n, 3], labels [n] (index into PARTS)."""
        areas = np.array([part.solid.area for part in self.parts])
        kept: list[tuple[Array, Array, Array]] = []
        found, ask = 0, int(1.5 * n) + 16
        while not kept or found < n:
            counts = rng.multinomial(ask, areas / areas.sum())
            drawn = [part.sample(int(count), rng) for part, count in zip(self.parts, counts)]
            points, normals = (np.concatenate(arrays) for arrays in zip(*drawn))
            owner = np.repeat(np.arange(len(self.parts)), counts)

            outer = np.ones(len(points), dtype=bool)
            for number, part in enumerate(self.parts):
                centre, radius = part.ball
                near = np.square(points - centre).sum(1) <= radius**2 + 1e-9
                others = np.flatnonzero(outer & near & (owner != number))
                outer[others] = part.sdf(points[others]) > 0
            labels = np.take([PARTS.index(part.name) for part in self.parts], owner)
            kept.append((points[outer], normals[outer], labels[outer]))
            found += int(outer.sum())
        points, normals, labels = (np.concatenate(arrays) for arrays in zip(*kept))
        chosen = rng.permutation(len(points))[:n]
        return points[chosen], normals[chosen], labels[chosen]

    def sdf_samples(self, n: int, rng: np.random.Generator, near: float = 0.94) -> tuple[Array, Array]:
        """Points [n, 3] in random order and their signed distances [n], as DeepSDF draws them.

        The share ``near`` lies around the surface, half of it moved by Gaussian noise of variance .0025, half .00025 on
        every axis; the rest is uniform in the unit ball.
        """
        n_near = round(near * n)
        surface = self.surface(n_near, rng)[0]
        variance = np.where(np.arange(n_near)[:, None] % 2 == 0, 0.0025, 0.00025)
        direction = rng.normal(size=(n - n_near, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        ball = direction * rng.random((n - n_near, 1)) ** (1 / 3)
        points = rng.permutation(np.concatenate([surface + np.sqrt(variance) * rng.normal(size=surface.shape), ball]))
        return points, self.sdf(points)

    def sdf_grid(self, resolution: int) -> Array:
        """Signed distance [R, R, R], indexed x, y, z, at the centres of the voxels of the cube [-1, 1]^3."""
        return self.sdf(voxel_centres(resolution)).reshape(resolution, resolution, resolution)

    def occupancy(self, resolution: int) -> Array:
        """bool [R, R, R], indexed x, y, z: whether the centre of each voxel of the cube [-1, 1]^3 lies inside."""
        return self.sdf_grid(resolution) < 0

    def vertices(self) -> Array:
        """Of the mesh [V, 3], without the work that its faces are."""
        return np.concatenate([part.vertices() for part in self.parts])

    def mesh(self) -> tuple[Array, Array, Array]:
        """Vertices [V, 3], faces [F, 3] and part labels [F]; every part is watertight, the parts overlap."""
        vertices, faces, labels, count = [], [], [], 0
        for part in self.parts:
            v, f = part.mesh()
            vertices.append(v)
            faces.append(f + count)
            labels.append(np.full(len(f), PARTS.index(part.name)))
            count += len(v)
        return np.concatenate(vertices), np.concatenate(faces), np.concatenate(labels)

    def posed(self, yaw: float, tilt: float = 0.0, scale: float = 1.0) -> Shape:
        """Turned about the up axis by ``yaw``, then tilted about x by ``tilt`` (radians), then scaled."""
        rotation = about_x(tilt) @ about_y(yaw)
        return Shape(tuple(part.moved(scale, rotation, np.zeros(3)) for part in self.parts))

    def normalised(self) -> Shape:
        vertices = self.vertices()
        offset = -(vertices.min(0) + vertices.max(0)) / 2
        scale = RADIUS / np.linalg.norm(vertices + offset, axis=1).max()
        return Shape(tuple(part.moved(scale, np.eye(3), offset) for part in self.parts))


def voxel_centres(resolution: int) -> Array:
    """Of the cube [-1, 1]^3: [R^3, 3], x slowest."""
    axis = (np.arange(resolution) + 0.5) * 2 / resolution - 1
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def shape_rng(seed: int, name: str, split: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), {"train": 0, "test": 1}[split], number])


def build_shape(name: str, rng: np.random.Generator) -> Shape:
    """A shape of a class in its canonical orientation as it is built: about in metres (vessels larger), standing on y = 0."""
    builder = {**BUILDERS, **MORE_BUILDERS}.get(name)
    if builder is None:
        raise DataError(f"there is no furniture class {name!r}; choose from {', '.join(ALL_CLASSES)}")
    kit = Kit(rng)
    builder(kit)
    return Shape(tuple(Part(*part) for part in kit.parts))


def make_shape(name: str, split: str, number: int, seed: int = 0) -> Shape:
    """Shape ``number`` of a class in its canonical orientation, normalised."""
    return build_shape(name, shape_rng(seed, name, split, number)).normalised()
