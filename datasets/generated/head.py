"""A head-like object with an expression, ray-traced: ellipsoids for skull, jaw, hair, nose, ears, lids, brows, lips.

z is up and the face looks along +x; the middle of the skull is the origin and its height about 1.4. A subject's
proportions and colours follow from the seed. It is a puppet: no data of any person went into it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np

from adlbench.datasets.generated import tabletop
from adlbench.datasets.generated.raytracing import Array, Cylinder, Ellipsoid, Material, Scene, Sphere, Thing

VERSION = 1  # of what is drawn: a change that moves a pixel gets a new number
EXPRESSION = ("mouth open", "brows raised", "eyes closed", "smile")
CENTRE, RADIUS = (0.0, 0.0, -0.05), 1.15  # a sphere that holds everything
DISTANCE, NEAR, FAR = 3.4, 2.2, 4.6
# (azimuth from the face, elevation) in degrees
TRAIN_CAMERAS = ((-55.0, 8.0), (-18.0, 14.0), (20.0, -4.0), (52.0, 10.0))
TEST_CAMERAS = ((-38.0, 4.0), (0.0, 5.0), (36.0, 12.0), (-5.0, 20.0))
SUPERSAMPLING = 3


def subject(seed: int, expression: Array) -> Scene:
    """The head of subject ``seed`` with ``expression`` [4] in [0, 1], named in EXPRESSION."""
    rng = np.random.default_rng([seed, 11])
    wide, tall, deep = rng.uniform(0.93, 1.07, 3)
    hue = rng.uniform(0.05, 0.09)
    skin = _rgb(hue, rng.uniform(0.3, 0.55), rng.uniform(0.35, 0.85))
    lips = _rgb(rng.uniform(0.96, 1.0), 0.6, skin.max() * 0.75)
    hair = _rgb(rng.uniform(0.03, 0.12), rng.uniform(0.3, 0.8), rng.uniform(0.05, 0.5))
    iris = _rgb(rng.uniform(0.1, 0.65), 0.6, 0.4)
    nose, ear, brow = rng.uniform(0.8, 1.25, 3)
    noise = tabletop._value_noise(rng)
    opened, raised, closed, smile = (float(value) for value in expression)

    face = Material(_speckled(noise, skin, 0.10), 0.55, (0.05, 0.05, 0.05))
    strands = Material(_speckled(noise, hair, 0.45), 0.6)
    red = Material(_plain(lips), 0.35, (0.06, 0.06, 0.06))
    things = [
        Thing(Ellipsoid((0.60 * deep, 0.50 * wide, 0.68 * tall)), face, (0.0, 0.0, 0.05), _about(0, 0.0)),
        Thing(Ellipsoid((0.36, 0.34 * wide, 0.32)), face, (0.20, 0.0, -0.44 - 0.12 * opened), _about(0, 0.0)),
        Thing(Cylinder(0.24, 0.26), face, (-0.10, 0.0, -0.86), _about(0, 0.0)),
        Thing(Ellipsoid((0.66 * deep, 0.56 * wide, 0.66 * tall)), strands, (-0.16, 0.0, 0.20), _about(1, -0.25)),
        Thing(Ellipsoid((0.13 * nose, 0.085 * nose, 0.16)), face, (0.60 * deep, 0.0, -0.07), _about(1, 0.2)),
        Thing(
            Ellipsoid((0.05, 0.15 + 0.05 * smile, 0.035 + 0.07 * opened)),
            Material(_plain(0.12 * lips), 0.5),
            (0.545, 0.0, -0.37 - 0.05 * opened),
            _about(0, 0.0),
        ),
    ]
    for side in (-1.0, 1.0):
        eye = np.array([0.47 * deep, side * 0.20 * wide, 0.10])
        lid = eye + np.array([0.005, 0.0, 0.075 - 0.065 * closed])
        corner = (0.52, side * (0.14 + 0.05 * smile), -0.37 + 0.08 * smile - 0.03 * opened)
        frown = side * (0.15 - 0.25 * raised)
        things += [
            Thing(Sphere(0.115), Material(_eye(iris), 0.2, (0.06, 0.06, 0.06)), _tuple(eye), _about(0, 0.0)),
            Thing(Ellipsoid((0.125, 0.125, 0.075 + 0.045 * closed)), face, _tuple(lid), _about(0, 0.0)),
            Thing(
                Ellipsoid((0.05, 0.13, 0.028 * brow)),
                strands,
                _tuple(eye + np.array([0.08, 0.01 * side, 0.17 + 0.08 * raised])),
                _about(0, frown),
            ),
            Thing(Ellipsoid((0.09, 0.05, 0.14 * ear)), face, (-0.02, side * 0.51 * wide, 0.0), _about(2, side * 0.3)),
            Thing(Ellipsoid((0.06, 0.075, 0.03)), red, corner, _about(0, -side * 0.5 * smile)),
        ]
    things.append(Thing(Ellipsoid((0.06, 0.12, 0.032)), red, (0.545, 0.0, -0.335 + 0.02 * opened), _about(0, 0.0)))
    things.append(Thing(Ellipsoid((0.06, 0.12, 0.036)), red, (0.54, 0.0, -0.405 - 0.11 * opened), _about(0, 0.0)))
    return Scene(things, (2.6, 1.4, 2.2), lamp_radius=0.5, lamp_power=0.6)


def cameras(places: tuple[tuple[float, float], ...]) -> Array:
    """world_to_camera [N, 4, 4] that look at CENTRE from (azimuth, elevation) in degrees, all at DISTANCE."""
    matrices = np.tile(np.eye(4), (len(places), 1, 1))
    for matrix, (azimuth, elevation) in zip(matrices, np.radians(places)):
        outward = np.array(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        right = np.cross(-outward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        matrix[:3, :3] = np.stack([right, np.cross(-outward, right), -outward])
        matrix[:3, 3] = -matrix[:3, :3] @ (np.array(CENTRE) + DISTANCE * outward)
    return matrices


def photograph(seed: int, expressions: Array, places: tuple[tuple[float, float], ...], size: int) -> dict[str, Array]:
    """Views of every expression [F, 4] from every place, F x len(places) of them, expression by expression."""
    drawn = [
        vars(tabletop.render(subject(seed, expression), cameras(places), size, SUPERSAMPLING))
        for expression in expressions
    ]
    fields = {name: np.concatenate([view[name] for view in drawn]) for name in drawn[0]}
    return fields | {"expression": np.repeat(expressions, len(places), axis=0).astype(np.float32)}


def expressions(seed: int, count: int, split: str) -> Array:
    """[count, 4]. The first one of the training split is neutral; each other one uses two of the four movements."""
    rng = np.random.default_rng([seed, split == "test", 12])
    values = rng.uniform(0.2, 1.0, (count, 4)) * (rng.permuted(np.tile([1, 1, 0, 0], (count, 1)), axis=1))
    if split == "train":
        values[0] = 0.0
    return np.asarray(values)


def _rgb(hue: float, saturation: float, value: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), dtype=np.float32)[:, None]


def _tuple(point: Array) -> tuple[float, float, float]:
    return float(point[0]), float(point[1]), float(point[2])


def _about(axis: int, angle: float) -> Array:
    turn = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn[a, a] = turn[b, b] = np.cos(angle)
    turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
    return turn.astype(np.float32)


def _plain(colour: Array) -> Callable[[Array], Array]:
    return lambda point: np.broadcast_to(colour, point.shape)


def _speckled(noise: Callable[[Array], Array], colour: Array, strength: float) -> Callable[[Array], Array]:
    return lambda point: (colour * (1 + strength * (2 * noise(point / 0.05) - 1))).astype(np.float32)


def _eye(iris: Array) -> Callable[[Array], Array]:
    """White, with an iris and a pupil around the direction +x."""

    def colour(point: Array) -> Array:
        off = np.hypot(point[1], point[2])
        white = np.broadcast_to(np.float32(0.85), point.shape)
        front = point[0] > 0
        return np.where(front & (off < 0.022), np.float32(0.01), np.where(front & (off < 0.052), iris, white))

    return colour
