"""Captures with a ``transforms.json`` of instant-ngp or nerfstudio, such as instant-ngp's fox and the scenes of DL3DV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.datasets.formats.transforms import read_transforms
from adlbench.datasets.novel_view_synthesis.captures import Capture, CaptureDataset, focus, picture_size, resized


@dataclass(frozen=True)
class TransformsScenes(CaptureDataset):
    """Instances are the folders below ``folder`` that hold ``layout`` (a path with the transforms file), or ``folder`` itself.

    The files say nothing about depths: the scene's centre is the point nearest to all optical axes, its sphere reaches to
    the nearest camera; near is a tenth of that camera's distance, and far is the distance of the farthest camera beyond the
    centre, times ``far_factor``.
    """

    layout: str = "transforms.json"
    images: str = ""  # e.g. images_4, in place of the files' images/ folder; cameras follow
    far_factor: float = 3.0

    def is_scene(self, folder: Path) -> bool:
        return (folder / self.layout).is_file()

    def missing(self) -> str | None:
        if self.scenes():
            return None
        return f"put scenes into {self.root}, each a folder with {self.layout} and the photographs it names"

    def capture(self, folder: Path) -> Capture:
        path = folder / self.layout
        content = read_transforms(path)
        images, cameras = list(content.images), list(content.cameras)
        if self.images:
            images = [path.parent / self.images / image.name for image in images]
            sizes = [picture_size(image) for image in images]
            cameras = [resized(camera, *size, str(image)) for camera, size, image in zip(cameras, sizes, images)]
        center, distances = focus(content.world_to_camera)
        nearest, farthest = float(distances.min()), float(distances.max())
        return Capture(
            tuple(images),
            tuple(cameras),
            content.world_to_camera,
            near=0.1 * nearest,
            far=self.far_factor * farthest,
            center=np.asarray(center),
            radius=nearest,
            splits=content.splits,
        )
