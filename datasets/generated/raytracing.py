"""A small ray tracer: analytic primitives, microfacet highlights, soft shadows, mirrors.

Written for whole bundles of rays at once. Vectors are float32 [3, R], components first, because numpy adds rows much
faster than it sums over a last axis of three. Distances are along unit directions, world units, z up; a miss is inf.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Array = np.ndarray
EPSILON = 1e-3  # secondary rays start so far above the surface, world units: float32 cannot place them exactly
MISS = np.float32(np.inf)


def dot(a: Array, b: Array) -> Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def normalised(a: Array) -> Array:
    return a / np.sqrt(dot(a, a))


# ----------------------------------------------------------------------------------------------------------- primitives
class Primitive(Protocol):
    """A closed solid around the origin of its own frame."""

    @property
    def bound(self) -> float:
        """Radius of a sphere around the origin that holds it."""

    def intersect(self, origin: Array, direction: Array) -> Array:
        """The smallest distance > 0 at which rays [3, R] that start outside meet the surface, else inf: [R]."""

    def normal(self, point: Array) -> Array:
        """Outward unit normals at points of the surface, [3, R]."""


@dataclass(frozen=True)
class Sphere:
    radius: float

    @property
    def bound(self) -> float:
        return self.radius

    def intersect(self, origin: Array, direction: Array) -> Array:
        half = dot(origin, direction)
        # |closest point|^2 instead of |origin|^2 - half^2: the difference of two large squares loses float32's digits
        closest = origin - half * direction
        discriminant = self.radius**2 - dot(closest, closest)
        near = -half - np.sqrt(np.maximum(discriminant, 0.0))
        return np.where((discriminant > 0.0) & (near > 0.0), near, MISS)

    def normal(self, point: Array) -> Array:
        return normalised(point)


@dataclass(frozen=True)
class Ellipsoid:
    radii: tuple[float, float, float]

    @property
    def bound(self) -> float:
        return max(self.radii)

    def intersect(self, origin: Array, direction: Array) -> Array:
        """That of the unit sphere, in a frame that is stretched along the axes."""
        scale = 1.0 / np.array(self.radii, dtype=np.float32)[:, None]
        stretched = direction * scale
        length = np.sqrt(dot(stretched, stretched))
        return np.asarray(Sphere(1.0).intersect(origin * scale, stretched / length) / length)

    def normal(self, point: Array) -> Array:
        return normalised(point / np.square(np.array(self.radii, dtype=np.float32))[:, None])


@dataclass(frozen=True)
class Box:
    half: tuple[float, float, float]  # half side lengths

    @property
    def bound(self) -> float:
        return float(np.linalg.norm(self.half))

    def intersect(self, origin: Array, direction: Array) -> Array:
        half = np.array(self.half, dtype=np.float32)[:, None]
        inverse = 1.0 / np.where(np.abs(direction) < 1e-9, np.float32(1e-9), direction)
        first, second = (-half - origin) * inverse, (half - origin) * inverse
        enter = np.minimum(first, second).max(axis=0)
        leave = np.maximum(first, second).min(axis=0)
        return np.where((enter < leave) & (enter > 0.0), enter, MISS)

    def normal(self, point: Array) -> Array:
        half = np.array(self.half, dtype=np.float32)[:, None]
        axis = np.argmax(np.abs(point) / half, axis=0)  # the face that the point is nearest to
        rays = np.arange(point.shape[1])
        normal = np.zeros_like(point)
        normal[axis, rays] = np.sign(point[axis, rays])
        return normal


@dataclass(frozen=True)
class Cylinder:
    """Upright, with flat ends."""

    radius: float
    half_height: float

    @property
    def bound(self) -> float:
        return float(np.hypot(self.radius, self.half_height))

    def intersect(self, origin: Array, direction: Array) -> Array:
        a = np.maximum(direction[0] ** 2 + direction[1] ** 2, 1e-12)
        half_b = origin[0] * direction[0] + origin[1] * direction[1]
        # squared distance of the axis from the ray, seen from above: again no difference of large squares
        miss = (origin[0] * direction[1] - origin[1] * direction[0]) ** 2 / a
        root = np.sqrt(np.maximum(self.radius**2 - miss, 0.0) / a)
        up = np.where(np.abs(direction[2]) < 1e-9, np.float32(1e-9), direction[2])
        ends = (np.array([[-self.half_height], [self.half_height]], dtype=np.float32) - origin[2]) / up
        enter = np.maximum(-half_b / a - root, ends.min(axis=0))
        leave = np.minimum(-half_b / a + root, ends.max(axis=0))
        return np.where((miss < self.radius**2) & (enter < leave) & (enter > 0.0), enter, MISS)

    def normal(self, point: Array) -> Array:
        side = np.hypot(point[0], point[1]) - self.radius
        end = np.abs(point[2]) - self.half_height
        flat = end > side
        normal = np.stack([point[0], point[1], np.zeros_like(point[2])])
        normal[:, flat] = 0.0
        normal[2, flat] = np.sign(point[2, flat])
        return normalised(normal)


@dataclass(frozen=True)
class Torus:
    """Around the z axis. Traced along its signed distance: the quartic's roots are too coarse in float32."""

    major: float
    minor: float

    @property
    def bound(self) -> float:
        return self.major + self.minor

    def distance(self, point: Array) -> Array:
        return np.hypot(np.hypot(point[0], point[1]) - self.major, point[2]) - self.minor

    def intersect(self, origin: Array, direction: Array) -> Array:
        result = np.full(origin.shape[1], MISS, dtype=np.float32)
        half = dot(origin, direction)
        closest = origin - half * direction
        chord = np.sqrt(np.maximum(self.bound**2 - dot(closest, closest), 0.0))
        active = np.flatnonzero((chord > 0.0) & (-half + chord > 0.0))
        t, end = np.maximum(-half - chord, 0.0)[active], (-half + chord)[active]
        for _ in range(192):  # rays that graze it take small steps
            step = self.distance(origin[:, active] + t * direction[:, active])
            hit = step < 2e-5
            result[active[hit]] = t[hit]
            t = t + step
            alive = ~hit & (t < end)
            active, t, end = active[alive], t[alive], end[alive]
            if not len(active):
                break
        return np.where(result > 0.0, result, MISS)

    def normal(self, point: Array) -> Array:
        ring = np.stack([point[0], point[1], np.zeros_like(point[2])])
        return normalised(point - ring * (self.major / np.maximum(np.hypot(point[0], point[1]), 1e-9)))


# ---------------------------------------------------------------------------------------------------------------- scene
@dataclass(frozen=True)
class Material:
    colour: Callable[[Array], Array]  # points in the object's frame [3, R] -> diffuse albedo [3, R], linear
    roughness: float = 0.5  # GGX alpha = roughness^2
    specular: tuple[float, float, float] = (0.04, 0.04, 0.04)  # reflectance at normal incidence
    mirror: bool = False  # follow the reflected ray instead of the lamp's highlight


@dataclass(frozen=True)
class Thing:
    shape: Primitive
    material: Material
    centre: tuple[float, float, float]
    rotation: Array  # [3, 3], object to world

    def local(self, points: Array) -> Array:
        return self.rotation.T @ (points - np.array(self.centre, dtype=np.float32)[:, None])

    def intersect(self, origin: Array, direction: Array) -> Array:
        """Distances [R]; rays that miss the bounding sphere are not looked at twice."""
        result = np.full(origin.shape[1], MISS, dtype=np.float32)
        start = origin - np.array(self.centre, dtype=np.float32)[:, None]
        half = dot(start, direction)
        closest = start - half * direction
        near = np.flatnonzero(dot(closest, closest) < self.shape.bound**2)
        turn = self.rotation.T
        result[near] = self.shape.intersect(turn @ start[:, near], turn @ direction[:, near])
        return result


@dataclass(frozen=True)
class Scene:
    """Objects under one disc-shaped lamp and a sky that only reflections and ambient light see: rays that leave are
    background."""

    things: Sequence[Thing]
    lamp_centre: tuple[float, float, float]
    lamp_radius: float
    lamp_power: float  # irradiance at the origin facing the lamp, over pi: 1 shows a white surface as white
    ambient_up: tuple[float, float, float] = (0.34, 0.36, 0.40)
    ambient_down: tuple[float, float, float] = (0.16, 0.14, 0.12)

    def first_hit(self, origin: Array, direction: Array) -> tuple[Array, Array]:
        """Distance [R] (inf for none) and index of the object [R] (-1 for none)."""
        nearest = np.full(origin.shape[1], MISS, dtype=np.float32)
        which = np.full(origin.shape[1], -1, dtype=np.int64)
        for index, thing in enumerate(self.things):
            distance = thing.intersect(origin, direction)
            closer = distance < nearest
            nearest[closer] = distance[closer]
            which[closer] = index
        return nearest, which

    def occluded(self, origin: Array, direction: Array, limit: Array) -> Array:
        """Whether anything lies within ``limit`` [R]: bool [R]."""
        blocked = np.zeros(origin.shape[1], dtype=bool)
        for thing in self.things:
            open_ = np.flatnonzero(~blocked)
            hit = thing.intersect(origin[:, open_], direction[:, open_]) < limit[open_]
            blocked[open_[hit]] = True
        return blocked

    def lamp_points(self, disc: Array) -> Array:
        """Points of the lamp [3, R] for points of the unit disc [2, R]. The lamp faces the origin."""
        centre = np.array(self.lamp_centre, dtype=np.float32)
        facing = centre / np.linalg.norm(centre)
        side = np.cross(facing, [0.0, 0.0, 1.0])
        side = (side / np.linalg.norm(side)).astype(np.float32)
        up = np.cross(side, facing).astype(np.float32)
        return centre[:, None] + self.lamp_radius * (side[:, None] * disc[0] + up[:, None] * disc[1])

    def ambient(self, normal: Array) -> Array:
        """Light from the sky and the ground on surfaces facing ``normal``: [3, R]."""
        share = 0.5 + 0.5 * normal[2]
        up, down = np.array(self.ambient_up)[:, None], np.array(self.ambient_down)[:, None]
        return (down + (up - down) * share).astype(np.float32)

    def sky(self, direction: Array) -> Array:
        """What a mirror shows of the surroundings: a bright band at the horizon, blue above, brown below."""
        up = direction[2]
        zenith, nadir = np.array([[0.30], [0.48], [0.80]]), np.array([[0.25], [0.20], [0.16]])
        horizon = np.array([[0.95], [0.93], [0.90]])
        height = np.sqrt(np.abs(up))
        return (horizon + (np.where(up > 0, zenith, nadir) - horizon) * height).astype(np.float32)

    def radiance(self, origin: Array, direction: Array, disc: Array, bounces: int = 2) -> tuple[Array, Array]:
        """Linear colour [3, R] and whether anything was hit, bool [R]. ``disc`` [2, R] picks each ray's lamp point."""
        distance, which = self.first_hit(origin, direction)
        colour = np.zeros_like(direction)
        for index in np.unique(which[which >= 0]):
            rays = np.flatnonzero(which == index)
            point = origin[:, rays] + distance[rays] * direction[:, rays]
            colour[:, rays] = self._shade(self.things[index], point, direction[:, rays], disc[:, rays], bounces)
        return colour, which >= 0

    def _shade(self, thing: Thing, point: Array, direction: Array, disc: Array, bounces: int) -> Array:
        local = thing.local(point)
        normal = (thing.rotation @ thing.shape.normal(local)).astype(np.float32)
        start = point + EPSILON * normal
        material = thing.material
        f0 = np.array(material.specular, dtype=np.float32)[:, None]
        view = -direction
        n_v = np.clip(dot(normal, view), 1e-3, 1.0)

        to_lamp = self.lamp_points(disc) - start
        limit = np.sqrt(dot(to_lamp, to_lamp))
        light = to_lamp / limit
        n_l = np.maximum(dot(normal, light), 0.0)
        lit = n_l > 0.0
        lit[lit] = ~self.occluded(start[:, lit], light[:, lit], limit[lit])
        # inverse square law, with unit strength at the origin
        irradiance = np.where(lit, n_l * self.lamp_power * (np.linalg.norm(self.lamp_centre) / limit) ** 2, 0.0)

        half = normalised(light + view)
        fresnel = f0 + (1.0 - f0) * (1.0 - np.clip(dot(half, view), 0.0, 1.0)) ** 5  # Schlick
        albedo = material.colour(local)
        colour = albedo * self.ambient(normal)
        if material.mirror:
            if bounces > 0:
                mirrored = direction + 2.0 * n_v * normal
                reflected, hit = self.radiance(start, normalised(mirrored), disc, bounces - 1)
                reflected = np.where(hit, reflected, self.sky(mirrored))
            else:
                reflected = self.sky(direction + 2.0 * n_v * normal)
            schlick = f0 + (1.0 - f0) * (1.0 - n_v) ** 5
            return (colour + schlick * reflected).astype(np.float32)
        specular = np.pi * fresnel * ggx(np.clip(dot(normal, half), 0.0, 1.0), n_l, n_v, material.roughness)
        return (colour + irradiance * (albedo * (1.0 - fresnel) + specular)).astype(np.float32)


def ggx(n_h: Array, n_l: Array, n_v: Array, roughness: float) -> Array:
    """D G / (4 n_l n_v) of GGX with Smith's uncorrelated masking (Walter et al. 2007, eq. 33 and 34)."""
    alpha2 = roughness**4
    distribution = alpha2 / (np.pi * (n_h**2 * (alpha2 - 1.0) + 1.0) ** 2)
    visible_l = n_l + np.sqrt(alpha2 + (1.0 - alpha2) * n_l**2)  # = 2 n_l / G1(l)
    visible_v = n_v + np.sqrt(alpha2 + (1.0 - alpha2) * n_v**2)
    return distribution / (visible_l * visible_v)


def srgb(linear: Array) -> Array:
    """Linear light to the stored image's space, [0, 1]."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
