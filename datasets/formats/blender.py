"""Blender ``transforms_*.json`` beside RGBA pictures, as published with NeRF (Mildenhall et al. 2020).

The file gives one horizontal field of view for all frames and, for each frame, a picture and a camera-to-world matrix
in OpenGL axes (x right, y up, looking along -z). What leaves this reader is the project's convention: world_to_camera
in OpenCV axes (x right, y down, z forward) and intrinsics in pixels with pixel centres at +0.5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import are_rigid, inside

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])  # the same camera: y turns down, z turns forward


@dataclass(frozen=True)
class Frames:
    """What one ``transforms_*.json`` says, pictures unread."""

    camera_angle_x: float  # horizontal field of view, radians
    camera_to_world: np.ndarray  # float64 [N, 4, 4], OpenGL axes, as in the file
    images: tuple[Path, ...]  # N paths
    times: np.ndarray | None = None  # float64 [N], where every frame has one (the moving scenes of D-NeRF)

    def __len__(self) -> int:
        return len(self.images)


def read_frames(path: Path) -> Frames:
    """Parse ``path``. Raises DataError when it is absent, is no JSON, or a frame is not a camera."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; a Blender scene is a folder with transforms_train.json and _test.json"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); copy the file again from its source") from None
    try:
        angle = float(content["camera_angle_x"])
        frames = list(content["frames"])
        names = [str(frame["file_path"]) for frame in frames]
        matrices = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64).reshape(-1, 4, 4)
        times = np.array([float(frame["time"]) for frame in frames if "time" in frame])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not a Blender transforms file ({type(error).__name__}: {error}); it needs camera_angle_x and "
            "frames, each with a file_path and a 4x4 transform_matrix"
        ) from None
    if len(matrices) != len(names) or not names:
        raise DataError(
            f"{path} holds {len(names)} frames and {len(matrices)} cameras; it needs one 4x4 matrix per frame"
        )
    if not 0.0 < angle < np.pi:
        raise DataError(f"{path}: camera_angle_x is {angle}; it must be an angle between 0 and pi, in radians")
    for name, rigid in zip(names, are_rigid(matrices, 1e-3)):
        if not rigid:
            raise DataError(
                f"{path}: the transform_matrix of frame {name!r} is not a rigid motion; export the scene without scale"
            )
    if len(times) not in (0, len(names)) or not np.isfinite(times).all():
        raise DataError(f"{path}: {len(times)} of {len(names)} frames have a time; every frame must have one, or none")
    images = tuple(_image_path(path, name) for name in names)
    return Frames(angle, matrices, images, times if len(times) else None)


def _image_path(transforms: Path, name: str) -> Path:
    path = inside(transforms.parent, name, transforms)
    # the published files leave the ending away; names such as "r_0.5" must not lose theirs
    return path if path.suffix.lower() in {".png", ".jpg", ".jpeg"} else path.with_name(path.name + ".png")


def image_size(frames: Frames, downscale: int = 1) -> tuple[int, int]:
    """(height, width) after downscaling, from the header of the first picture alone."""
    height, width = _open(frames.images[0], pixels=False).shape[:2]
    return _divided(frames.images[0], height, width, downscale)


def read_views(
    frames: Frames, downscale: int = 1, background: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> dict[str, np.ndarray]:
    """Pictures and cameras of all frames.

    ``image``            uint8 [N, H, W, 3], composited on ``background`` (in [0, 1])
    ``intrinsics``       float32 [N, 3, 3], pixels of the downscaled picture
    ``world_to_camera``  float32 [N, 4, 4], OpenCV axes

    Downscaling averages ``downscale`` x ``downscale`` pixels of colour times alpha: averaging the colours alone would
    let the arbitrary colour of transparent pixels bleed over the silhouette. Raises DataError for pictures that are
    absent, truncated, of different sizes, or not divisible by ``downscale``.
    """
    height, width = image_size(frames, downscale)
    images = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    for index, path in enumerate(frames.images):
        pixels = _open(path)
        if _divided(path, pixels.shape[0], pixels.shape[1], downscale) != (height, width):
            raise DataError(
                f"{path} is {pixels.shape[1]}x{pixels.shape[0]} and the first picture of its scene "
                f"{width * downscale}x{height * downscale}; all pictures of a scene must have one size"
            )
        images[index] = _composite(pixels, downscale, background)
    focal = 0.5 * width / np.tan(0.5 * frames.camera_angle_x)
    intrinsics = np.array([[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]], dtype=np.float32)
    world_to_camera = np.linalg.inv(frames.camera_to_world @ OPENGL_TO_OPENCV)
    return {
        "image": images,
        "intrinsics": np.repeat(intrinsics[None], len(frames), axis=0),
        "world_to_camera": world_to_camera.astype(np.float32),
    }


def _open(path: Path, pixels: bool = True) -> np.ndarray:
    """uint8 [H, W, 4]; with ``pixels=False`` only the header is read and the contents are undefined."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if not pixels:
                return np.empty((picture.height, picture.width, 4), dtype=np.uint8)
            return np.asarray(picture.convert("RGBA"))
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist, but its transforms file names it; copy the scene's pictures too"
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be decoded ({error}); it is damaged or truncated: copy it again") from None


def _divided(path: Path, height: int, width: int, downscale: int) -> tuple[int, int]:
    if downscale < 1 or height % downscale or width % downscale:
        raise DataError(
            f"{path} is {width}x{height}, which cannot be downscaled by {downscale}; give a factor that divides both"
        )
    return height // downscale, width // downscale


def _composite(pixels: np.ndarray, downscale: int, background: tuple[float, float, float]) -> np.ndarray:
    """uint8 RGBA with straight alpha [H, W, 4] -> uint8 [H / downscale, W / downscale, 3]."""
    rgba = pixels.astype(np.float64) / 255.0
    alpha = rgba[..., 3:]
    premultiplied = np.concatenate([rgba[..., :3] * alpha, alpha], axis=-1)
    height, width = pixels.shape[0] // downscale, pixels.shape[1] // downscale
    mean = premultiplied.reshape(height, downscale, width, downscale, 4).mean(axis=(1, 3))
    composited = mean[..., :3] + (1.0 - mean[..., 3:]) * np.asarray(background)
    return np.round(composited * 255.0).astype(np.uint8)
