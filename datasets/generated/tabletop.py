"""A ray-traced tabletop: a round table with six objects under a lamp, seen from the upper hemisphere.

Made for what radiance fields are tested on: a chrome ball and glossy objects whose look depends on the direction, soft
shadows, textures, thin and holed shapes, and depth that is known exactly. Everything follows from the seed; units are
arbitrary, z is up, the table's top is the plane z = 0 and its radius is 1.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adlbench.datasets.generated.raytracing import (
    Array,
    Box,
    Cylinder,
    Material,
    Scene,
    Sphere,
    Thing,
    Torus,
    srgb,
)

VERSION = 1  # of what is drawn: a change that moves a pixel gets a new number
CENTRE, RADIUS = (0.0, 0.0, 0.15), 1.05  # a sphere that holds everything
CAMERA_DISTANCE = 3.2  # from CENTRE
NEAR, FAR = 2.1, 4.3
FIELD_OF_VIEW = np.radians(40.0)  # the whole sphere is in every picture
ELEVATION = np.radians((12.0, 75.0))
SLOT_RADIUS = 0.58  # five objects stand on a ring of this radius, the sixth in its middle
GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))

Texture = Callable[[Array], Array]


@dataclass(frozen=True)
class Views:
    image: Array  # uint8 [N, H, W, 3], on white
    depth: Array  # float32 [N, H, W], z-depth of the first surface at the pixel's centre, 0 where there is none
    intrinsics: Array  # float32 [N, 3, 3]
    world_to_camera: Array  # float32 [N, 4, 4], OpenCV


def generate(seed: int, size: int, num_train: int, num_test: int, supersampling: int = 4) -> tuple[Views, Views]:
    """The training and the test views of one scene, ``size`` x ``size`` pixels, ``supersampling``^2 rays per pixel."""
    rng = np.random.default_rng(seed)
    scene = make_scene(rng)
    turn = rng.uniform(0, 2 * np.pi)
    # the test views stand between the training views: another turn of the spiral, other heights
    return (
        render(scene, orbit(num_train, turn), size, supersampling),
        render(scene, orbit(num_test, turn + 1.0), size, supersampling),
    )


# --------------------------------------------------------------------------------------------------------------- scene
def make_scene(rng: np.random.Generator) -> Scene:
    noise = _value_noise(rng)
    hue = rng.uniform()
    angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi / 5 * rng.permutation(5)
    slots = [(SLOT_RADIUS * np.cos(a), SLOT_RADIUS * np.sin(a)) for a in angle]
    grow = rng.uniform(0.92, 1.05, size=6)
    yaw = rng.uniform(0, 2 * np.pi, size=6)

    def colour(step: int, saturation: float = 0.75, value: float = 0.8) -> Array:
        """Evenly spaced hues, so that neighbours never look alike."""
        return np.array(colorsys.hsv_to_rgb((hue + step / 6) % 1.0, saturation, value), dtype=np.float32)[:, None]

    def on_table(shape: Sphere | Box | Cylinder, slot: int, height: float, material: Material) -> Thing:
        return Thing(shape, material, (*slots[slot], height), _about_z(yaw[slot]))

    ball, stone = Sphere(0.25 * grow[0]), Sphere(0.22 * grow[1])
    box = Box((0.19 * grow[2], 0.19 * grow[2], 0.22 * grow[2]))
    can = Cylinder(0.16 * grow[3], 0.25 * grow[3])
    ring, pearl = Torus(0.20 * grow[4], 0.075 * grow[4]), Sphere(0.14 * grow[5])
    things = [
        Thing(
            Cylinder(1.0, 0.05),
            Material(_checker(0.25, colour(3, 0.45, 0.42), colour(3, 0.10, 0.72)), 0.4, _grey(0.08)),
            (0.0, 0.0, -0.05),
            _about_z(yaw[5]),
        ),
        on_table(ball, 0, ball.radius, Material(_plain(0.0 * colour(0)), specular=(0.90, 0.88, 0.84), mirror=True)),
        on_table(stone, 1, stone.radius, Material(_marbled(noise, colour(1), colour(1, 0.25, 0.9)), 0.8)),
        on_table(box, 2, box.half[2], Material(_checker(0.1, colour(2), colour(5, 0.5, 0.9)), 0.5)),
        on_table(can, 3, can.half_height, Material(_spiral(colour(4), colour(4, 0.1, 0.9)), 0.45, _grey(0.1))),
        Thing(  # stands on its rim
            ring,
            Material(_plain(colour(0)), 0.4, _grey(0.12)),
            (*slots[4], ring.bound),
            _about_z(yaw[4]) @ _about_x(np.pi / 2),
        ),
        Thing(
            pearl,
            Material(_plain(colour(5, 0.9, 0.7)), 0.35, _grey(0.15)),
            (0.0, 0.0, pearl.radius),
            _about_z(0.0),
        ),
    ]
    lamp = rng.uniform(0, 2 * np.pi)
    return Scene(things, (2.2 * np.cos(lamp), 2.2 * np.sin(lamp), 3.2), lamp_radius=0.35, lamp_power=0.75)


def _grey(value: float) -> tuple[float, float, float]:
    return (value, value, value)


def _about_z(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=np.float32)


def _about_x(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=np.float32)


# ------------------------------------------------------------------------------------------------------------- textures
# Functions of the point in the object's own frame: carved from a block, so that no surface coordinates are needed.
def _plain(colour: Array) -> Texture:
    return lambda point: np.broadcast_to(colour, point.shape)


def _checker(side: float, even: Array, odd: Array) -> Texture:
    def texture(point: Array) -> Array:
        # a little off the lattice, so that no face lies on a border between cells
        cell = np.floor(point / side + np.float32(1e-2)).astype(np.int64).sum(axis=0)
        return np.where(cell % 2 == 0, even, odd)

    return texture


def _spiral(first: Array, second: Array) -> Texture:
    """Bands that wind around the z axis."""

    def texture(point: Array) -> Array:
        phase = np.arctan2(point[1], point[0]) / (2 * np.pi) * 2 + point[2] / 0.16
        return np.where(phase % 1.0 < 0.5, first, second)

    return texture


def _marbled(noise: Callable[[Array], Array], first: Array, second: Array) -> Texture:
    def texture(point: Array) -> Array:
        value = noise(point / 0.12) * 0.65 + noise(point / 0.05) * 0.35
        share = np.clip((value - 0.3) / 0.4, 0.0, 1.0)
        return first + (second - first) * share

    return texture


def _value_noise(rng: np.random.Generator) -> Callable[[Array], Array]:
    """Smooth noise in [0, 1]: random values on the integer lattice (repeating after 16), blended by smoothstep."""
    lattice = rng.uniform(size=(16, 16, 16)).astype(np.float32)

    def noise(point: Array) -> Array:
        base = np.floor(point)
        offset = point - base
        weight = offset * offset * (3.0 - 2.0 * offset)
        low = base.astype(np.int64) % 16
        high = (low + 1) % 16
        value = np.zeros(point.shape[1], dtype=np.float32)
        for corner in np.ndindex(2, 2, 2):
            index = tuple((low, high)[c][axis] for axis, c in enumerate(corner))
            share = np.prod([weight[axis] if c else 1.0 - weight[axis] for axis, c in enumerate(corner)], axis=0)
            value += share * lattice[index]
        return value

    return noise


# -------------------------------------------------------------------------------------------------------------- cameras
def orbit(count: int, turn: float) -> Array:
    """``count`` cameras [N, 4, 4] (world_to_camera, OpenCV) that look at CENTRE, spread evenly over the band of
    elevations: a Fibonacci spiral."""
    share = (np.arange(count) + 0.5) / count
    sine = np.sin(ELEVATION[0]) + share * (np.sin(ELEVATION[1]) - np.sin(ELEVATION[0]))
    azimuth = turn + GOLDEN_ANGLE * np.arange(count)
    cosine = np.sqrt(1.0 - sine**2)
    outward = np.stack([cosine * np.cos(azimuth), cosine * np.sin(azimuth), sine], axis=-1)  # [N, 3]
    forward = -outward
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    rotation = np.stack([right, np.cross(forward, right), forward], axis=1)  # rows: x right, y down, z forward
    eye = np.array(CENTRE) + CAMERA_DISTANCE * outward
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, :3] = rotation
    matrices[:, :3, 3] = -np.einsum("nij,nj->ni", rotation, eye)
    return matrices


def pinhole(size: int) -> Array:
    """[3, 3], pixel centres at +0.5."""
    focal = 0.5 * size / np.tan(0.5 * FIELD_OF_VIEW)
    return np.array([[focal, 0.0, 0.5 * size], [0.0, focal, 0.5 * size], [0.0, 0.0, 1.0]])


def rays(world_to_camera: Array, intrinsics: Array, pixels: Array) -> tuple[Array, Array, Array]:
    """Origins and unit directions [3, R] through image points [2, R] (x, y), and the cosine to the optical axis [R]."""
    camera = np.linalg.inv(intrinsics) @ np.concatenate([pixels, np.ones_like(pixels[:1])])
    length = np.linalg.norm(camera, axis=0)
    rotation, shift = world_to_camera[:3, :3], world_to_camera[:3, 3]
    direction = (rotation.T @ (camera / length)).astype(np.float32)
    origin = np.repeat((-rotation.T @ shift).astype(np.float32)[:, None], pixels.shape[1], axis=1)
    return origin, direction, 1.0 / length


def render(scene: Scene, cameras: Array, size: int, supersampling: int) -> Views:
    """Pictures of ``scene`` from ``cameras`` [N, 4, 4].

    Every pixel takes the same supersampling^2 points and, one for each, the same points of the lamp: soft shadows come
    out without noise, equal from every side.
    """
    intrinsics = pinhole(size)
    row, column = np.indices((size, size)).reshape(2, -1)
    centres = np.stack([column, row]) + 0.5  # [2, P] as x, y
    grid = (np.indices((supersampling, supersampling)).reshape(2, -1) + 0.5) / supersampling - 0.5
    points = (centres[:, :, None] + grid[:, None, :]).reshape(2, -1)  # [2, P * S]
    disc = np.tile(_disc(supersampling**2), (1, size * size)).astype(np.float32)
    image = np.empty((len(cameras), size, size, 3), dtype=np.uint8)
    depth = np.empty((len(cameras), size, size), dtype=np.float32)
    for index, camera in enumerate(cameras):
        origin, direction, _ = rays(camera, intrinsics, points)
        colour, hit = scene.radiance(origin, direction, disc)
        # averaged in the stored image's space, where methods composite on the background too
        pixel = np.where(hit, srgb(colour), 1.0).reshape(3, size, size, -1).mean(axis=-1)
        image[index] = np.round(255.0 * pixel).transpose(1, 2, 0)
        origin, direction, cosine = rays(camera, intrinsics, centres)
        distance, which = scene.first_hit(origin, direction)
        depth[index] = np.where(which >= 0, distance * cosine, 0.0).reshape(size, size)
    return Views(
        image,
        depth,
        np.repeat(intrinsics.astype(np.float32)[None], len(cameras), axis=0),
        cameras.astype(np.float32),
    )


def _disc(count: int) -> Array:
    """``count`` points spread evenly over the unit disc [2, count], in an order unrelated to the pixel's grid."""
    index = np.random.default_rng(0).permutation(count)
    radius, angle = np.sqrt((index + 0.5) / count), GOLDEN_ANGLE * index
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)])
