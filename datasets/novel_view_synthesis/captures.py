"""What the datasets of calibrated photographs share: from photographs with any camera to the views of one pinhole scene.

Photographs are resampled where their lens distorts, cut to one size, averaged to fewer pixels, and split by the rule that
their benchmark uses. Lengths stay in the reconstruction's own units.
"""

from __future__ import annotations

import difflib
import io
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.formats.camera_models import MODELS, Camera, resample, undistorted, undistortion_map
from adlbench.datasets.formats.files import AGAIN


@dataclass(frozen=True)
class Capture:
    """One scene, photographs unread."""

    images: tuple[Path, ...]  # N, in the order of their names
    cameras: tuple[Camera, ...]  # N, at the size of the photographs that were calibrated
    world_to_camera: np.ndarray  # float64 [N, 4, 4]
    near: float  # depths, world units
    far: float
    center: np.ndarray  # [3]
    radius: float
    points: np.ndarray | None = None  # float64 [P, 3], of structure from motion
    visible: tuple[np.ndarray, ...] = ()  # N times int64 [K], rows of ``points``
    splits: dict[str, tuple[int, ...]] = field(default_factory=dict)  # where the capture comes with its own
    archives: tuple[Path, ...] = ()  # N zip files, where ``images`` are names in them

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class CaptureDataset(Dataset):
    """Scenes of photographs. Every ``hold_out``-th by name, from the first on, is for testing, unless a scene has its own split."""

    folder: str = ""  # below the data root
    downscale: int = 1  # each pixel is the mean of downscale x downscale pixels of the file
    hold_out: int = 8

    @abstractmethod
    def is_scene(self, folder: Path) -> bool: ...

    @abstractmethod
    def capture(self, folder: Path) -> Capture: ...

    def scenes(self) -> list[str]:
        """The names of the scenes in ``root``, or its own name where it is one."""
        found = [path.name for path in self.root.glob("*") if path.is_dir() and self.is_scene(path)]
        return sorted(found) or ([self.root.name] if self.is_scene(self.root) else [])

    @property
    def root(self) -> Path:
        return data_root() / self.folder

    def instances(self) -> tuple[str, ...]:
        return tuple(self.scenes()) or ("none",)

    def schema(self, instance: str = "all") -> DataSchema:
        capture = self._capture(instance)
        height, width = common_size(capture, self.downscale)
        fields = ("image", "intrinsics", "world_to_camera")
        return DataSchema(
            modality=Modality.POSED_IMAGES,
            fields=fields if capture.points is None else (*fields, "points"),
            num_train=len(self._members(capture, "train")),
            num_test=len(self._members(capture, "test")),
            channels=3,
            image_size=(height, width),
            near=capture.near,
            far=capture.far,
            scene_center=tuple(float(x) for x in capture.center),  # type: ignore[arg-type]
            scene_radius=capture.radius,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        capture = self._capture(instance)
        return ArraySplit(**read_views(capture, self._members(capture, split), self.downscale))

    def _capture(self, instance: str) -> Capture:
        missing = self.missing()
        if missing:
            raise DataError(missing)
        found = self.scenes()
        scene = found[0] if instance == "all" else instance
        if scene not in found:
            near = difflib.get_close_matches(scene, found, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(f"there is no scene {scene!r} in {self.root}; {hint}found: {', '.join(found)}")
        return self.capture(
            self.root if scene == self.root.name and not (self.root / scene).is_dir() else self.root / scene
        )

    def _members(self, capture: Capture, split: str) -> tuple[int, ...]:
        if capture.splits:
            test = capture.splits.get("test") or capture.splits.get("val") or ()
            train = capture.splits.get("train") or tuple(i for i in range(len(capture)) if i not in test)
        else:
            test = tuple(range(0, len(capture), self.hold_out))
            train = tuple(i for i in range(len(capture)) if i % self.hold_out)
        if len(train) < 2 or not test:
            raise DataError(
                f"the scene of {capture.images[0]} has {len(train)} training and {len(test)} test photographs; "
                "novel view synthesis needs two of the former and one of the latter: add photographs"
            )
        return train if split == "train" else test


def common_size(capture: Capture, downscale: int) -> tuple[int, int]:
    """(height, width) after downscaling: what the smallest photograph has."""
    height = min(camera.height for camera in capture.cameras)
    width = min(camera.width for camera in capture.cameras)
    largest = max(camera.height * camera.width for camera in capture.cameras)
    if 2 * height * width < largest:
        raise DataError(
            f"the photographs of {capture.images[0].parent} share only {width}x{height} pixels, less than half of the largest; "
            "use those of one size and orientation"
        )
    if downscale < 1 or min(height, width) // downscale < 1:
        raise DataError(f"{width}x{height} pixels cannot be downscaled by {downscale}; give a smaller factor")
    return height // downscale, width // downscale


def read_views(capture: Capture, members: Sequence[int], downscale: int = 1) -> dict[str, np.ndarray]:
    """The photographs ``members`` as pinhole views.

    ``image``            uint8 [V, H, W, 3]
    ``intrinsics``       float32 [V, 3, 3], pixels of what is in ``image``
    ``world_to_camera``  float32 [V, 4, 4], OpenCV axes
    ``points``           float32 [V, M, 3], if the capture has any: those a view observes, repeated to the length of the longest

    Photographs may be stored smaller than they were calibrated, by one factor in both directions. Larger ones than the
    smallest of the scene lose their border.
    """
    height, width = common_size(capture, downscale)
    images = np.empty((len(members), height, width, 3), dtype=np.uint8)
    intrinsics = np.zeros((len(members), 3, 3), dtype=np.float32)
    rows, columns = height * downscale, width * downscale
    lenses: dict[bytes, tuple[np.ndarray, np.ndarray | None]] = {}  # most scenes have one
    for index, member in enumerate(members):
        camera = capture.cameras[member]
        key = repr((camera.model, camera.width, camera.height)).encode() + camera.params.tobytes()
        if key not in lenses:
            pinhole = undistorted(camera)
            lenses[key] = pinhole, undistortion_map(camera, pinhole) if camera.distorted else None
        (fx, fy, cx, cy), place = lenses[key]
        pixels = _read_photograph(capture, member)
        if place is not None:
            pixels = resample(pixels, place)
        top, left = (camera.height - rows) // 2, (camera.width - columns) // 2
        pixels = pixels[top : top + rows, left : left + columns]
        if downscale > 1:
            blocks = pixels.reshape(height, downscale, width, downscale, 3)
            pixels = np.round(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
        images[index] = pixels
        scale = 1 / downscale
        intrinsics[index] = [[fx * scale, 0, (cx - left) * scale], [0, fy * scale, (cy - top) * scale], [0, 0, 1]]
    views: dict[str, np.ndarray] = {
        "image": images,
        "intrinsics": intrinsics,
        "world_to_camera": capture.world_to_camera[list(members)].astype(np.float32),
    }
    if capture.points is not None:
        views["points"] = _visible_points(capture, members)
    return views


def _visible_points(capture: Capture, members: Sequence[int]) -> np.ndarray:
    assert capture.points is not None
    seen = [np.unique(capture.visible[member]) for member in members]
    everything = np.unique(np.concatenate(capture.visible))
    seen = [rows if len(rows) else everything for rows in seen]
    longest = max(len(rows) for rows in seen)
    return np.stack([capture.points[np.resize(rows, longest)] for rows in seen]).astype(np.float32)


def _read_photograph(capture: Capture, member: int) -> np.ndarray:
    """uint8 [H, W, 3] at the camera's size."""
    path, camera = capture.images[member], capture.cameras[member]
    try:
        with _opened(capture, member) as file, Image.open(file) as picture:
            if picture.size != (camera.width, camera.height):
                raise DataError(
                    f"{path} is {picture.width}x{picture.height} and its camera {camera.width}x{camera.height}; "
                    "put the photographs of that size there"
                )
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist, but the scene's cameras name it; copy the photographs too") from None
    except DataError:
        raise
    except Exception as error:  # Pillow lets through what its decoders raise on damaged bytes
        raise DataError(f"{path} cannot be decoded ({type(error).__name__}: {error}); {AGAIN}") from None


def _opened(capture: Capture, member: int) -> IO[bytes]:
    path = capture.images[member]
    if not capture.archives:
        return path.open("rb")
    with zipfile.ZipFile(capture.archives[member]) as archive:
        limit = 100 << 20  # no photograph is larger
        with archive.open(path.as_posix()) as file:
            return io.BytesIO(file.read(limit))


def resized(camera: Camera, width: int, height: int, where: str) -> Camera:
    """The camera of the same photograph stored at another size."""
    sx, sy = width / camera.width, height / camera.height
    if abs(sx * camera.height - height) > 1.5:  # rounding to whole pixels is not distortion
        raise DataError(
            f"{where} is {width}x{height} and its camera {camera.width}x{camera.height}: another shape of picture"
        )
    scale = np.array([(sx + sy) / 2, sx, sy] if MODELS[camera.model].single_focal else [sx, sy, sx, sy])
    params = camera.params.copy()
    params[: len(scale)] *= scale
    return replace(camera, width=width, height=height, params=params)


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except FileNotFoundError:
        raise DataError(f"{path} does not exist, but the scene's cameras name it; copy the photographs too") from None
    except Exception as error:
        raise DataError(f"{path} cannot be decoded ({type(error).__name__}: {error}); {AGAIN}") from None


def focus(world_to_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point [3] nearest to all optical axes, and the cameras' distances [N] from it."""
    rotation = world_to_camera[:, :3, :3]
    axes = rotation[:, 2]
    positions = -(rotation.transpose(0, 2, 1) @ world_to_camera[:, :3, 3:])[..., 0]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    point = np.linalg.lstsq(across.sum(0), (across @ positions[..., None]).sum(0)[:, 0], rcond=None)[0]
    return point, np.linalg.norm(positions - point, axis=1)


def depths(points: np.ndarray, world_to_camera: np.ndarray, visible: Sequence[np.ndarray]) -> np.ndarray:
    """z-depths [K] of all observations of points."""
    found = [points[rows] @ pose[2, :3] + pose[2, 3] for pose, rows in zip(world_to_camera, visible)]
    return np.concatenate(found)
