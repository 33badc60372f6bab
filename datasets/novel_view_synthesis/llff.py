"""LLFF's forward-facing scenes: ``SCENE/poses_bounds.npy`` and ``SCENE/images_8`` (Mildenhall et al. 2019; NeRF's Real set)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.camera_models import make_camera
from adlbench.datasets.formats.llff import read_poses_bounds
from adlbench.datasets.novel_view_synthesis.captures import Capture, CaptureDataset, focus, picture_size, resized

ENDINGS = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class LLFF(CaptureDataset):
    """Near and far as NeRF has them without normalised device coordinates: 0.9 of the least, 1.0 of the greatest bound."""

    images: str = "images_8"  # NeRF's table is at images_8 of what 4032x3024 photographs were calibrated at

    def is_scene(self, folder: Path) -> bool:
        return (folder / "poses_bounds.npy").is_file()

    def missing(self) -> str | None:
        if self.scenes():
            return None
        return f"put the scenes (fern/poses_bounds.npy, fern/{self.images}/*.png, ...) into {self.root}"

    def capture(self, folder: Path) -> Capture:
        poses = read_poses_bounds(folder / "poses_bounds.npy")
        images = self._photographs(folder / self.images)
        if len(images) != len(poses.focal):
            raise DataError(
                f"{folder / self.images} has {len(images)} photographs and poses_bounds.npy {len(poses.focal)} poses"
            )
        width, height = picture_size(images[0])
        cameras = []
        for row, focal in enumerate(poses.focal):
            params = np.array([focal, poses.width / 2, poses.height / 2])
            camera = make_camera(
                "SIMPLE_PINHOLE", poses.width, poses.height, params, f"{folder}/poses_bounds.npy, row {row}"
            )
            cameras.append(resized(camera, width, height, str(images[row])))
        near, far = 0.9 * poses.bounds.min(), poses.bounds.max()
        center, _ = focus(poses.world_to_camera)
        return Capture(
            images, tuple(cameras), poses.world_to_camera, float(near), float(far), center, radius=float(far - near) / 2
        )

    def _photographs(self, folder: Path) -> tuple[Path, ...]:
        if not folder.is_dir():
            raise DataError(f"{folder} does not exist; put the photographs of that size there")
        return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS))
