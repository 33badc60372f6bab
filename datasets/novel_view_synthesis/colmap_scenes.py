"""Any scenes that COLMAP has reconstructed: ``SCENE/images`` and ``SCENE/sparse/0``, as 3DGS, mip-NeRF 360 and many others have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.colmap import read_reconstruction
from adlbench.datasets.formats.files import inside
from adlbench.datasets.novel_view_synthesis.captures import Capture, CaptureDataset, depths, picture_size, resized

SPARSE = ("sparse/0", "sparse", "colmap/sparse/0")


@dataclass(frozen=True)
class ColmapScenes(CaptureDataset):
    """Instances are the folders below ``folder`` that hold a sparse model, or ``folder`` itself.

    Near and far are those of LLFF: the 0.1 and 99.9 percentiles of the depths of the points, a little widened. The scene's
    sphere is centred at the points' median and holds nine tenths of them.
    """

    images: str = "images"  # e.g. images_4 where smaller copies are published; cameras follow
    images_of: dict[str, str] = field(default_factory=dict)  # scenes that have another

    def is_scene(self, folder: Path) -> bool:
        return sparse_model(folder) is not None

    def missing(self) -> str | None:
        if self.scenes():
            return None
        return (
            f"put scenes into {self.root}, each with its photographs in {self.images}/ and COLMAP's model in sparse/0/"
        )

    def capture(self, folder: Path) -> Capture:
        model = read_reconstruction(sparse_model(folder) or folder)
        if not len(model.points):
            raise DataError(
                f"{folder} has cameras and no points, so its depths are not known; run COLMAP's mapper on it"
            )
        photographs = folder / self.images_of.get(folder.name, self.images)
        paths = [inside(photographs, image.name, folder) for image in model.images]
        cameras = [model.cameras[image.camera] for image in model.images]
        if photographs.name != "images":
            sizes = [picture_size(path) for path in paths]
            cameras = [resized(camera, *size, str(path)) for camera, size, path in zip(cameras, sizes, paths)]
        poses = np.stack([image.world_to_camera for image in model.images])
        visible = tuple(image.points[image.points >= 0] for image in model.images)
        depth = depths(model.points, poses, visible)
        depth = depth[depth > 0]
        if not len(depth):
            raise DataError(f"{folder}: no photograph observes a point in front of it; its model is damaged")
        near, far = np.percentile(depth, [0.1, 99.9])
        center = np.median(model.points, axis=0)
        radius = float(np.quantile(np.linalg.norm(model.points - center, axis=1), 0.9))
        return Capture(
            tuple(paths),
            tuple(cameras),
            poses,
            float(0.9 * near),
            float(1.1 * far),
            center,
            radius,
            model.points,
            visible,
        )


def sparse_model(folder: Path) -> Path | None:
    """Where a scene keeps its cameras."""
    return next((folder / name for name in SPARSE if any((folder / name).glob("cameras.*"))), None)
