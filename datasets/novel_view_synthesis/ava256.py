"""Ava-256 (Martinez et al. 2024): heads under some eighty synchronised cameras. An instance is a capture, seen in one frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.ava256 import read_calibration, read_frames
from adlbench.datasets.formats.camera_models import make_camera
from adlbench.datasets.novel_view_synthesis.captures import Capture, CaptureDataset, focus

SENSOR = (2668, 4096)  # width, height
HEAD = 0.25  # metres, around the point all cameras look at


@dataclass(frozen=True)
class Ava256(CaptureDataset):
    """``folder/<capture>/decoder`` as the authors' download script leaves it; pictures are at a quarter of the sensor's size."""

    stored: int = 4  # how much smaller than the sensor the pictures are
    segment: str = "EXP_neutral_peak"
    frame: int = 0  # of the segment, by number

    def is_scene(self, folder: Path) -> bool:
        return (folder / "decoder" / "camera_calibration.json").is_file()

    def missing(self) -> str | None:
        if self.scenes():
            return None
        return f"put captures into {self.root}, each with decoder/camera_calibration.json, frame_list.csv and image/cam*.zip"

    def capture(self, folder: Path) -> Capture:
        root = folder / "decoder"
        calibration = read_calibration(root / "camera_calibration.json")
        frames = sorted(number for segment, number in read_frames(root / "frame_list.csv") if segment == self.segment)
        if not 0 <= self.frame < len(frames):
            raise DataError(
                f"{root}: segment {self.segment!r} has {len(frames)} frames; there is none with number {self.frame}"
            )
        number = frames[self.frame]
        there = [i for i, name in enumerate(calibration.names) if (root / "image" / f"cam{name}.zip").is_file()]
        if not there:
            raise DataError(f"{root}/image has no cam*.zip of a calibrated camera; put the pictures there")
        width, height = (side // self.stored for side in SENSOR)
        scale = np.array([1 / self.stored, 1 / self.stored])
        cameras = []
        for index in there:
            intrinsics = calibration.intrinsics[index]
            params = np.concatenate([np.diag(intrinsics)[:2] * scale, intrinsics[:2, 2] * scale])
            cameras.append(make_camera("PINHOLE", width, height, params, f"{root}, camera {calibration.names[index]}"))
        poses = calibration.world_to_camera[there]
        center, distances = focus(poses)
        names = [calibration.names[index] for index in there]
        return Capture(
            tuple(Path(f"cam{name}/{number:06d}.avif") for name in names),
            tuple(cameras),
            poses,
            near=float(max(distances.min() - 2 * HEAD, 0.05)),
            far=float(distances.max() + 2 * HEAD),
            center=center,
            radius=HEAD,
            archives=tuple(root / "image" / f"cam{name}.zip" for name in names),
        )
