"""The tabletop under changing light, and the tabletop in motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adlbench.datasets.generated import tabletop
from adlbench.datasets.generated.raytracing import Array, Scene, Thing

VERSION = 1  # of what is drawn, besides tabletop's own
SUPERSAMPLING = 3

Fields = dict[str, Array]


def lit(seed: int, size: int, num_train: int, num_test: int, lights: int) -> tuple[Fields, Fields]:
    """Training and test views, each under one of ``lights`` lights: ``appearance`` int64 [N] says which.

    The lights take turns, so that each is seen from all sides; test views use the same lights.
    """
    rng = np.random.default_rng(seed)
    scene = tabletop.make_scene(rng)
    turn = rng.uniform(0, 2 * np.pi)
    under = [_relit(scene, rng) for _ in range(lights)]
    splits = []
    for cameras in (tabletop.orbit(num_train, turn), tabletop.orbit(num_test, turn + 1.0)):
        appearance = rng.permutation(np.arange(len(cameras)) % lights)
        fields = _each([(under[light], camera) for light, camera in zip(appearance, cameras)], size)
        splits.append(fields | {"appearance": appearance.astype(np.int64)})
    return splits[0], splits[1]


def _relit(scene: Scene, rng: np.random.Generator) -> Scene:
    """Another place and strength of the lamp, another colour of the sky: from noon to evening to lamplight."""
    angle, height, power = rng.uniform(0, 2 * np.pi), rng.uniform(1.6, 3.6), rng.uniform(0.45, 0.95)
    warm = rng.uniform(-1, 1)
    tint = np.array([1 + 0.35 * warm, 1.0, 1 - 0.35 * warm]) * rng.uniform(0.55, 1.25)
    up, down = (tuple((np.array(colour) * tint).tolist()) for colour in (scene.ambient_up, scene.ambient_down))
    centre = (2.2 * np.cos(angle), 2.2 * np.sin(angle), height)
    return replace(scene, lamp_centre=centre, lamp_power=power, ambient_up=up, ambient_down=down)


def moving(seed: int, size: int, num_train: int, num_test: int) -> tuple[Fields, Fields]:
    """Training and test views, each at another ``time`` float32 [N] in [0, 1], one camera at a time as in D-NeRF.

    Training times are evenly spread over [0, 1] and unrelated to the camera's place; test times lie between them.
    """
    rng = np.random.default_rng(seed)
    scene = tabletop.make_scene(rng)
    turn = rng.uniform(0, 2 * np.pi)
    splits = []
    for cameras, shift in ((tabletop.orbit(num_train, turn), 0.0), (tabletop.orbit(num_test, turn + 1.0), 0.5)):
        count = len(cameras)
        times = (np.arange(count) + shift) / (count - 1 + 2 * shift) if count > 1 else np.array([0.5])
        time = rng.permutation(times)
        fields = _each([(at(scene, moment), camera) for moment, camera in zip(time, cameras)], size)
        splits.append(fields | {"time": time.astype(np.float32)})
    return splits[0], splits[1]


def at(scene: Scene, time: float) -> Scene:
    """The scene at ``time``: the stone hops once, the pearl three times, the box turns, the ring rolls on the spot."""
    things = list(scene.things)
    things[2] = _lifted(things[2], 0.28 * np.sin(np.pi * time))
    things[3] = _turned(things[3], np.pi * time, 2)
    things[5] = _turned(things[5], 2 * np.pi * time, 2)
    things[6] = _lifted(things[6], 0.35 * np.abs(np.sin(3 * np.pi * time)))
    return replace(scene, things=things)


def _lifted(thing: Thing, height: float) -> Thing:
    x, y, z = thing.centre
    return replace(thing, centre=(x, y, z + float(height)))


def _turned(thing: Thing, angle: float, axis: int) -> Thing:
    turn = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn[a, a] = turn[b, b] = np.cos(angle)
    turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
    return replace(thing, rotation=(turn @ thing.rotation).astype(np.float32))


def _each(views: list[tuple[Scene, Array]], size: int) -> Fields:
    """One picture of each scene from its camera."""
    drawn = [vars(tabletop.render(scene, camera[None], size, SUPERSAMPLING)) for scene, camera in views]
    return {name: np.concatenate([view[name] for view in drawn]) for name in drawn[0]}
