"""Solids with an exact signed distance, an exact uniform surface sampler and a watertight mesh.

Every solid lives in its own frame, y up, and is placed by a ``Part``. Distances are exact inside and outside (for ``Tube``,
inside as well as long as its bends are wider than its radius). Written in float64; N is the number of points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

Array = np.ndarray
POINTS_AT_ONCE = 4096  # in the plane, so that points x edges stay in the cache
SEGMENTS = 32  # of a circle, in meshes only: distances and surface samples are those of the true circle


class Solid(Protocol):
    @property
    def area(self) -> float:
        """Of the whole surface."""

    @property
    def bounds(self) -> tuple[Array, Array]:
        """The lowest and the highest corner [3] of a box that holds it."""

    def sdf(self, points: Array) -> Array:
        """Signed distance [N] at ``points`` [N, 3], negative inside."""

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """``n`` uniform points of the surface [n, 3] and the outward unit normals there [n, 3]."""

    def vertices(self) -> Array:
        """Of the mesh [V, 3]."""

    def mesh(self) -> tuple[Array, Array]:
        """Vertices [V, 3] and faces [F, 3], closed, counter-clockwise seen from outside."""

    def scaled(self, factor: float) -> Solid: ...


@dataclass(frozen=True)
class Box:
    half: Array  # [3] half side lengths

    @property
    def area(self) -> float:
        x, y, z = self.half
        return float(8 * (x * y + y * z + z * x))

    @property
    def bounds(self) -> tuple[Array, Array]:
        return -self.half, self.half

    def sdf(self, points: Array) -> Array:
        q = np.abs(points) - self.half
        return _corner(q[:, 0], q[:, 1], q[:, 2])

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        x, y, z = self.half
        areas = np.array([y * z, z * x, x * y])
        axis = rng.choice(3, n, p=areas / areas.sum())
        side = rng.choice([-1.0, 1.0], n)
        points = rng.uniform(-1, 1, (n, 3)) * self.half
        normals = np.zeros((n, 3))
        rows = np.arange(n)
        points[rows, axis] = side * self.half[axis]
        normals[rows, axis] = side
        return points, normals

    def vertices(self) -> Array:
        return self._prism().vertices()

    def mesh(self) -> tuple[Array, Array]:
        return self._prism().mesh()

    def _prism(self) -> Prism:
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * self.half[[0, 2]]
        return Prism(square, self.half[1])

    def scaled(self, factor: float) -> Box:
        return Box(self.half * factor)


@dataclass(frozen=True)
class Prism:
    """A polygon in the (x, z) plane, extruded along y to both sides by ``half_height``."""

    polygon: Array  # [K, 2] simple, in either orientation
    half_height: float

    @cached_property
    def _outline(self) -> Array:
        return self.polygon if _signed_area(self.polygon) > 0 else self.polygon[::-1]

    @cached_property
    def _triangles(self) -> Array:
        return triangulate(self._outline)  # [K - 2, 3]

    @property
    def _perimeter(self) -> Array:
        return np.linalg.norm(following(self._outline) - self._outline, axis=1)  # [K]

    @property
    def area(self) -> float:
        return float(2 * _signed_area(self._outline) + 2 * self.half_height * self._perimeter.sum())

    @property
    def bounds(self) -> tuple[Array, Array]:
        low, high = self.polygon.min(0), self.polygon.max(0)
        return np.array([low[0], -self.half_height, low[1]]), np.array([high[0], self.half_height, high[1]])

    def sdf(self, points: Array) -> Array:
        edges = np.ones(len(self._outline), dtype=bool)
        flat = polygon_sdf(points[:, [0, 2]], self._outline, edges)
        return _corner(flat, np.abs(points[:, 1]) - self.half_height)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        start, length = self._outline, self._perimeter
        direction = (following(start) - start) / length[:, None]
        walls = 2 * self.half_height * length.sum()
        n_walls = rng.binomial(n, walls / self.area)
        edge = rng.choice(len(start), n_walls, p=length / length.sum())
        flat = start[edge] + direction[edge] * (rng.random(n_walls) * length[edge])[:, None]
        height = rng.uniform(-1, 1, n_walls) * self.half_height
        points = [np.stack([flat[:, 0], height, flat[:, 1]], 1)]
        normals = [np.stack([direction[edge, 1], np.zeros(n_walls), -direction[edge, 0]], 1)]

        corners = start[self._triangles]  # [K - 2, 3, 2]
        areas = np.abs(_cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
        n_caps = n - n_walls
        chosen = corners[rng.choice(len(corners), n_caps, p=areas / areas.sum())]
        a, b = rng.random((2, n_caps, 1))
        a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)  # fold the square onto the triangle
        flat = chosen[:, 0] + a * (chosen[:, 1] - chosen[:, 0]) + b * (chosen[:, 2] - chosen[:, 0])
        side = rng.choice([-1.0, 1.0], n_caps)
        points.append(np.stack([flat[:, 0], side * self.half_height, flat[:, 1]], 1))
        normals.append(np.stack([np.zeros(n_caps), side, np.zeros(n_caps)], 1))
        return np.concatenate(points), np.concatenate(normals)

    def vertices(self) -> Array:
        level = np.full(len(self._outline), self.half_height)
        x, z = self._outline.T
        return np.concatenate([np.stack([x, -level, z], 1), np.stack([x, level, z], 1)])

    def mesh(self) -> tuple[Array, Array]:
        k = len(self._outline)
        i, j = np.arange(k), (np.arange(k) + 1) % k
        walls = np.concatenate([np.stack([i, i + k, j], 1), np.stack([j, i + k, j + k], 1)])
        # y points up out of the (x, z) plane with x before z, so a counter-clockwise outline faces down.
        return self.vertices(), np.concatenate([self._triangles, self._triangles[:, ::-1] + k, walls])

    def scaled(self, factor: float) -> Prism:
        return Prism(self.polygon * factor, self.half_height * factor)


@dataclass(frozen=True)
class Lathe:
    """A profile in the (radius, y) half-plane turned about the y axis.

    The profile is a closed polygon with radius >= 0; the edges that lie on the axis are no surface. A profile that
    stays off the axis gives a ring.
    """

    profile: Array  # [K, 2], (radius, y), in either orientation

    @cached_property
    def _outline(self) -> Array:
        return self.profile if _signed_area(self.profile) > 0 else self.profile[::-1]

    @cached_property
    def _surface(self) -> Array:
        """[K] whether the edge that starts at a vertex is part of the surface."""
        on_axis = self._outline[:, 0] == 0
        return ~(on_axis & following(on_axis))

    @cached_property
    def _areas(self) -> Array:
        start, end = self._outline, following(self._outline)
        return np.pi * (start[:, 0] + end[:, 0]) * np.linalg.norm(end - start, axis=1) * self._surface  # frusta

    @property
    def area(self) -> float:
        return float(self._areas.sum())

    @property
    def bounds(self) -> tuple[Array, Array]:
        radius, low, high = self.profile[:, 0].max(), self.profile[:, 1].min(), self.profile[:, 1].max()
        return np.array([-radius, low, -radius]), np.array([radius, high, radius])

    def sdf(self, points: Array) -> Array:
        flat = np.stack([np.hypot(points[:, 0], points[:, 2]), points[:, 1]], 1)
        return polygon_sdf(flat, self._outline, self._surface)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        edge = rng.choice(len(self._outline), n, p=self._areas / self.area)
        start, end = self._outline[edge], following(self._outline)[edge]
        u = rng.random(n)
        radius = np.sqrt((1 - u) * start[:, 0] ** 2 + u * end[:, 0] ** 2)  # the density grows with the radius
        step = end[:, 0] - start[:, 0]
        flat = np.abs(step) < 1e-12
        t = np.where(flat, u, (radius - start[:, 0]) / np.where(flat, 1.0, step))
        height = start[:, 1] + t * (end[:, 1] - start[:, 1])
        direction = (end - start) / np.linalg.norm(end - start, axis=1, keepdims=True)
        angle = rng.uniform(0, 2 * np.pi, n)
        cos, sin = np.cos(angle), np.sin(angle)
        points = np.stack([radius * cos, height, radius * sin], 1)
        normals = np.stack([direction[:, 1] * cos, -direction[:, 0], direction[:, 1] * sin], 1)
        return points, normals

    def vertices(self) -> Array:
        return self.mesh()[0]

    def mesh(self) -> tuple[Array, Array]:
        angle = np.arange(SEGMENTS) * 2 * np.pi / SEGMENTS
        vertices: list[Array] = []
        ring: list[Array] = []  # the vertex numbers around the axis of each profile vertex
        count = 0
        for radius, height in self._outline:
            if radius == 0:
                vertices.append(np.array([[0.0, height, 0.0]]))
                ring.append(np.full(SEGMENTS, count))
            else:
                circle = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
                vertices.append(np.stack([circle[:, 0], np.full(SEGMENTS, height), circle[:, 1]], 1))
                ring.append(count + np.arange(SEGMENTS))
            count += len(vertices[-1])
        faces = []
        for i in np.flatnonzero(self._surface):
            a, b = ring[i], ring[(i + 1) % len(ring)]
            faces.append(np.stack([a, b, following(a)], 1))
            faces.append(np.stack([following(a), b, following(b)], 1))
        joined = np.concatenate(faces)
        distinct = (joined[:, 0] != joined[:, 1]) & (joined[:, 1] != joined[:, 2]) & (joined[:, 2] != joined[:, 0])
        return np.concatenate(vertices), joined[distinct]

    def scaled(self, factor: float) -> Lathe:
        return Lathe(self.profile * factor)


@dataclass(frozen=True)
class Tube:
    """All points within ``radius`` of a polyline: a round bar swept along it, with rounded ends and joints."""

    path: Array  # [K, 3]
    radius: float

    @property
    def area(self) -> float:
        """What a joint adds outside of a bend it takes away inside, to the third order of the angle."""
        length = np.linalg.norm(np.diff(self.path, axis=0), axis=1)
        return float((2 * np.pi * self.radius * length).sum() + 4 * np.pi * self.radius**2)

    @property
    def bounds(self) -> tuple[Array, Array]:
        return self.path.min(0) - self.radius, self.path.max(0) + self.radius

    def sdf(self, points: Array) -> Array:
        start, step = self.path[:-1], np.diff(self.path, axis=0)
        offset = points[:, None] - start  # [N, K - 1, 3]
        t = np.clip((offset * step).sum(-1) / (step**2).sum(-1), 0, 1)
        return np.linalg.norm(offset - t[..., None] * step, axis=-1).min(1) - self.radius

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        step = np.diff(self.path, axis=0)
        length = np.linalg.norm(step, axis=1)
        areas = np.concatenate([length * self.radius * 2 * np.pi, np.full(len(self.path), 4 * np.pi * self.radius**2)])
        points, normals = np.empty((0, 3)), np.empty((0, 3))
        while len(points) < n:  # the capsules' surfaces, without what lies inside a neighbour
            piece = rng.choice(len(areas), 2 * n + 16, p=areas / areas.sum())
            ball = rng.normal(size=(len(piece), 3))
            segment = np.minimum(piece, len(length) - 1)
            on_side = (piece < len(length))[:, None]
            axis = step[segment] / length[segment, None]
            direction = ball - on_side * (ball * axis).sum(1, keepdims=True) * axis
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            along = self.path[segment] + rng.random((len(piece), 1)) * step[segment]
            centre = np.where(on_side, along, self.path[np.maximum(piece - len(length), 0)])
            candidate = centre + self.radius * direction
            outer = self.sdf(candidate) > -1e-9
            points = np.concatenate([points, candidate[outer]])
            normals = np.concatenate([normals, direction[outer]])
        return points[:n], normals[:n]

    def vertices(self) -> Array:
        return self.mesh()[0]

    def mesh(self) -> tuple[Array, Array]:
        sides, cap = 12, 4
        step = np.diff(self.path, axis=0)
        step /= np.linalg.norm(step, axis=1, keepdims=True)
        tangent = np.concatenate([step[:1], step[:-1] + step[1:], step[-1:]])  # bisects the angle at a joint
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        frame_u = np.cross(tangent[0], np.eye(3)[np.argmin(np.abs(tangent[0]))])
        rings: list[Array] = []
        angle = np.arange(sides) * 2 * np.pi / sides
        for i, (centre, forward) in enumerate(zip(self.path, tangent)):
            frame_u = frame_u - (frame_u @ forward) * forward  # carried along with the least rotation
            frame_u /= np.linalg.norm(frame_u)
            around = np.cos(angle)[:, None] * frame_u + np.sin(angle)[:, None] * np.cross(forward, frame_u)
            latitudes = np.arange(cap) * np.pi / 2 / cap  # of the rounded ends, pole excluded
            if i == 0:
                low = latitudes[:0:-1]
                rings += [centre + self.radius * (np.cos(a) * around - np.sin(a) * forward) for a in low]
            rings.append(centre + self.radius * around)
            if i == len(self.path) - 1:
                rings += [centre + self.radius * (np.cos(a) * around + np.sin(a) * forward) for a in latitudes[1:]]
        poles = [self.path[0] - self.radius * tangent[0], self.path[-1] + self.radius * tangent[-1]]
        vertices = np.concatenate([*rings, np.stack(poles)])
        faces = []
        here = np.arange(sides)
        after = (here + 1) % sides
        for r in range(len(rings) - 1):
            a, b = r * sides, (r + 1) * sides
            faces += [np.stack([a + here, a + after, b + here], 1), np.stack([a + after, b + after, b + here], 1)]
        first, last = len(vertices) - 2, (len(rings) - 1) * sides
        faces.append(np.stack([np.full(sides, first), after, here], 1))
        faces.append(np.stack([np.full(sides, first + 1), last + here, last + after], 1))
        return vertices, np.concatenate(faces)

    def scaled(self, factor: float) -> Tube:
        return Tube(self.path * factor, self.radius * factor)


def triangulate(polygon: Array) -> Array:
    """Ear clipping: the K - 2 triangles [K - 2, 3] (vertex numbers) of a simple counter-clockwise polygon [K, 2]."""
    rest = list(range(len(polygon)))
    triangles = []
    while len(rest) > 3:
        for n in range(len(rest)):
            a, b, c = rest[n - 1], rest[n], rest[(n + 1) % len(rest)]
            pa, pb, pc = polygon[a], polygon[b], polygon[c]
            if _cross(pb - pa, pc - pb) <= 0:
                continue
            others = polygon[[i for i in rest if i not in (a, b, c)]]
            corners = ((pa, pb), (pb, pc), (pc, pa))
            if not np.any(np.all([_cross(q - p, others - p) >= 0 for p, q in corners], axis=0)):
                break
        else:  # only degenerate ears are left
            n = 1
            a, b, c = rest[0], rest[1], rest[2]
        triangles.append((a, b, c))
        del rest[n]
    return np.array([*triangles, tuple(rest)])


def _cross(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def following(items: Array) -> Array:
    """[K, ...] -> the next item of each, the first after the last: np.roll(items, -1, 0), at a fraction of its cost."""
    return np.concatenate((items[1:], items[:1]))


def _signed_area(polygon: Array) -> float:
    return float(_cross(polygon, following(polygon)).sum() / 2)


def _corner(*q: Array) -> Array:
    """Distance to the intersection of orthogonal half-spaces, given the signed distance to each of them."""
    outside = np.sqrt(sum(np.maximum(a, 0) ** 2 for a in q))
    inside = q[0]
    for a in q[1:]:
        inside = np.maximum(inside, a)
    return outside + np.minimum(inside, 0)


def polygon_sdf(points: Array, polygon: Array, counted: Array) -> Array:
    """Signed distance [N] in the plane to the edges of a polygon [K, 2] that are ``counted`` [K].

    The others lie on the axis of a lathe; no ray from a point with radius >= 0 towards larger radii crosses them.
    """
    (ax, ay), (bx, by) = polygon[counted].T[..., None], following(polygon)[counted].T[..., None]  # [K, 1] each
    dx, dy = bx - ax, by - ay
    signed = np.empty(len(points))
    for start in range(0, len(points), POINTS_AT_ONCE):
        x, y = points[start : start + POINTS_AT_ONCE].T
        ox, oy = x - ax, y - ay
        t = np.clip((ox * dx + oy * dy) / (dx * dx + dy * dy), 0, 1)
        squared = ((ox - t * dx) ** 2 + (oy - t * dy) ** 2).min(0, initial=np.inf)
        crosses = (y >= ay) != (y >= by)  # never for a level edge
        inside = np.logical_xor.reduce(crosses & ((ox * dy < oy * dx) == (dy > 0)))
        signed[start : start + POINTS_AT_ONCE] = np.where(inside, -1.0, 1.0) * np.sqrt(squared)
    return signed
