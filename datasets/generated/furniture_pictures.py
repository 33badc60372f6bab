"""Pictures of furniture: plain and striped, with part labels and edges; and its voxel grids, complete and as one view tells.

Every shape is turned by any angle about the up axis and seen from above by 10 to 40 degrees.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from adlbench.datasets.generated.cache import Arrays, cached
from adlbench.datasets.generated.furniture import PARTS, VERSION, Shape, make_shape, shape_rng, voxel_centres
from adlbench.datasets.generated.rasterizing import Array, Light, Model, draw, look_at, pinhole, rasterize

PICTURE_VERSION = 1000 * VERSION + 1  # raise the last number when a change here moves the arrays
DISTANCE, FIELD_OF_VIEW = 3.4, np.radians(36.0)  # the unit sphere fills the picture


@lru_cache(maxsize=4)
def picture_set(classes: tuple[str, ...], per_class: int, split: str, size: int, seed: int) -> Arrays:
    """``per_class`` pictures of each class, one a shape, in random order.

    Returns uint8 ``image``, ``striped`` [N, 3, S, S] (the same shapes, the second with stripes around the up axis),
    ``edges`` [N, 1, S, S] (0 on edges of parts and jumps of depth, else 255), ``mask`` [N, S, S] (index into PARTS, 255
    is background), and ``label`` int64 [N].
    """
    parameters = {"classes": classes, "per_class": per_class, "split": split, "size": size, "seed": seed}

    def make() -> Arrays:
        items = []
        for label, name in enumerate(classes):
            for number in range(per_class):
                rng = shape_rng(seed + 3, name, split, number)
                items.append((*_pictures(make_shape(name, split, number, seed), size, rng), np.int64(label)))
        order = np.random.default_rng([seed, per_class, split == "test"]).permutation(len(items))
        fields = ("image", "striped", "edges", "mask", "label")
        return {name: np.stack([items[i][place] for i in order]) for place, name in enumerate(fields)}

    return cached("furniture-pictures", PICTURE_VERSION, parameters, make)


def camera_around(rng: np.random.Generator) -> Array:
    angle, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(10, 40))
    eye = DISTANCE * np.array([np.cos(height) * np.sin(angle), np.sin(height), np.cos(height) * np.cos(angle)])
    return look_at(eye, np.zeros(3))


def _pictures(shape: Shape, size: int, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    vertices, faces, parts = shape.mesh()
    base = rng.dirichlet(np.ones(3)) * rng.uniform(0.8, 1.6)
    colours = np.clip(base + rng.uniform(-0.15, 0.15, (len(PARTS), 3)), 0.04, 0.9)
    model = Model(vertices, faces, colours[parts], parts, np.zeros_like(parts))
    camera = camera_around(rng)
    light = Light(np.array([*rng.uniform(-2, 2, 1), 3.0, *rng.uniform(1, 3, 1)]))
    view = (camera, pinhole((size, size), FIELD_OF_VIEW), (size, size), light)
    plain = draw(model, *view)
    striped = draw(model, *view, texture=lambda p: np.where(np.sin(22 * (p[:, 1] + 0.4 * p[:, 0])) > 0, 1.15, 0.12))
    mask = np.where(plain.label < 0, 255, plain.label).astype(np.uint8)
    return (
        plain.image.transpose(2, 0, 1),
        striped.image.transpose(2, 0, 1),
        np.where(edges(plain.label, plain.depth), 0, 255).astype(np.uint8)[None],
        mask,
    )


def edges(label: Array, depth: Array) -> Array:
    """bool [H, W]: pixels whose right or lower neighbour is of another label or at a depth that differs by 5 %."""
    found = np.zeros(label.shape, dtype=bool)
    for axis in (0, 1):
        here = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        after = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        jump = np.abs(depth[here] - depth[after]) > 0.05 * np.maximum(depth[here], depth[after])
        found[here] |= (label[here] != label[after]) | jump
    return found


@lru_cache(maxsize=4)
def grid_set(classes: tuple[str, ...], per_class: int, split: str, resolution: int, seed: int) -> Arrays:
    """Voxels of ``per_class`` shapes of each class, each turned about the up axis, in random order.

    Returns ``occupancy`` bool, ``sdf_grid`` float32 and ``ternary`` uint8 [N, R, R, R], ``label`` int64 [N].
    """
    parameters = {"classes": classes, "per_class": per_class, "split": split, "resolution": resolution, "seed": seed}

    def make() -> Arrays:
        count = len(classes) * per_class
        sdf = np.empty((count, resolution, resolution, resolution), dtype=np.float32)
        ternary = np.empty(sdf.shape, dtype=np.uint8)
        label = np.empty(count, dtype=np.int64)
        order = np.random.default_rng([seed, per_class, split == "test"]).permutation(count)
        for place, item in enumerate(order):
            label[place], number = divmod(item, per_class)
            name = classes[label[place]]
            rng = shape_rng(seed + 4, name, split, number)
            shape = make_shape(name, split, number, seed).posed(rng.uniform(0, 2 * np.pi))
            sdf[place] = shape.sdf_grid(resolution)
            ternary[place] = seen_from(shape, camera_around(rng), resolution)
        return {"occupancy": sdf < 0, "sdf_grid": sdf, "ternary": ternary, "label": label}

    return cached("furniture-grids", PICTURE_VERSION, parameters, make)


def seen_from(shape: Shape, world_to_camera: Array, resolution: int) -> Array:
    """uint8 [R, R, R] of the cube [-1, 1]^3: 0 free, 1 surface, 2 unknown, as a depth map from one camera tells them.

    Wu et al., 3D ShapeNets, CVPR 2015, section 3. A voxel is surface where the depth at its centre's pixel is its own within
    half a voxel's diagonal, free where it lies before that or where nothing is seen, unknown behind.
    """
    size = 4 * resolution
    intrinsics = pinhole((size, size), np.radians(70.0))  # holds the whole cube
    vertices, faces, _ = shape.mesh()
    depth = rasterize(vertices, faces, world_to_camera, intrinsics, (size, size))[1]
    camera = voxel_centres(resolution) @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    pixel = camera[:, :2] / camera[:, 2:] * intrinsics[0, 0] + size / 2
    column, row = np.clip(np.floor(pixel).astype(np.int64), 0, size - 1).T
    seen = depth[row, column]
    behind = camera[:, 2] - np.where(seen > 0, seen, np.inf)
    half = np.sqrt(3) / resolution
    state = np.where(behind > half, 2, np.where(behind >= -half, 1, 0))
    return state.astype(np.uint8).reshape(resolution, resolution, resolution)
