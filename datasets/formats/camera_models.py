"""COLMAP's camera models: from directions to pixels, and the resampling of photographs to pinhole cameras.

The formulas are those of COLMAP's ``src/colmap/sensor/models.h``. Their sources: OpenCV's calib3d for the OPENCV models;
Devernay and Faugeras 2001 for FOV; Weng et al. 1992 for the thin prism; Fitzgibbon 2001 for the division model; Project Aria
for RAD_TAN_THIN_PRISM_FISHEYE; Khomutenko et al. 2016 for EUCM. A direction is given where it meets the plane z = 1 of the
camera (OpenCV axes: x right, y down); pixel centres lie at +0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError

Array = np.ndarray
Pair = tuple[Array, Array]


@dataclass(frozen=True)
class Camera:
    model: str
    width: int  # pixels
    height: int
    params: Array  # float64, in the model's order

    def project(self, xy: Array) -> Array:
        """Pixels [..., 2] of directions [..., 2] on the plane z = 1."""
        model = MODELS[self.model]
        u, v = model.distort(xy[..., 0], xy[..., 1], self.params[3 if model.single_focal else 4 :])
        fx, fy, cx, cy = self.pinhole
        return np.stack([fx * u + cx, fy * v + cy], axis=-1)

    @property
    def pinhole(self) -> Array:
        """fx, fy, cx, cy without the distortion."""
        p = self.params
        return np.array([p[0], p[0], p[1], p[2]]) if MODELS[self.model].single_focal else p[:4]

    @property
    def distorted(self) -> bool:
        """Whether pixels are elsewhere than the pinhole with the same focal length sees them."""
        if self.model in {"SIMPLE_PINHOLE", "PINHOLE"}:
            return False
        grid = np.stack(np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 5)), -1) * [self.width, self.height]
        fx, fy, cx, cy = self.pinhole
        return bool(np.abs(self.project((grid - [cx, cy]) / [fx, fy]) - grid).max() > 1e-3)


# ------------------------------------------------------------------------------------------------- distortion functions
def _none(x: Array, y: Array, _: Array) -> Pair:
    return x, y


def _radial(x: Array, y: Array, k: Array) -> Pair:
    r2 = x * x + y * y
    factor = 1 + sum(c * r2 ** (i + 1) for i, c in enumerate(k))
    return x * factor, y * factor


def _tangential(x: Array, y: Array, factor: Array, p1: float, p2: float) -> Pair:
    r2 = x * x + y * y
    return x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * factor + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)


def _opencv(x: Array, y: Array, p: Array) -> Pair:
    r2 = x * x + y * y
    return _tangential(x, y, 1 + p[0] * r2 + p[1] * r2**2, p[2], p[3])


def _full_opencv(x: Array, y: Array, p: Array) -> Pair:
    r2 = x * x + y * y
    k1, k2, p1, p2, k3, k4, k5, k6 = p
    factor = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return _tangential(x, y, factor, p1, p2)


def _equidistant(x: Array, y: Array) -> Pair:
    """The image of an ideal fisheye lens: the distance from the centre is the angle to the axis."""
    r = np.hypot(x, y)
    factor = np.where(r > 1e-8, np.arctan(r) / np.maximum(r, 1e-12), 1.0)
    return x * factor, y * factor


def _fisheye(x: Array, y: Array, k: Array) -> Pair:
    return _radial(*_equidistant(x, y), k)


def _thin_prism(x: Array, y: Array, p: Array) -> Pair:
    k1, k2, p1, p2, k3, k4, sx, sy = p
    x, y = _equidistant(x, y)
    r2 = x * x + y * y
    u, v = _tangential(x, y, 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + k4 * r2**4, p1, p2)
    return u + sx * r2, v + sy * r2


def _rad_tan_thin_prism(x: Array, y: Array, p: Array) -> Pair:
    x, y = _radial(*_equidistant(x, y), p[:6])
    r2 = x * x + y * y
    shared = 2 * (p[6] * x + p[7] * y)
    u = x + x * shared + p[6] * r2 + p[8] * r2 + p[9] * r2**2
    v = y + y * shared + p[7] * r2 + p[10] * r2 + p[11] * r2**2
    return u, v


def _fov(x: Array, y: Array, p: Array) -> Pair:
    omega = float(p[0])
    r = np.hypot(x, y)
    if abs(omega) < 1e-4:  # the limit
        factor = 1 + omega**2 / 12 - omega**2 * r * r / 3
    else:
        slope = 2 * np.tan(omega / 2)
        factor = np.where(r > 1e-8, np.arctan(r * slope) / np.maximum(r * omega, 1e-12), slope / omega)
    return x * factor, y * factor


def _division(x: Array, y: Array, p: Array) -> Pair:
    # the undistorted radius is r / (1 + k r^2): a quadratic equation for r
    root = 1 - 4 * p[0] * (x * x + y * y)
    factor = np.where(root >= 0, 2 / (1 + np.sqrt(np.maximum(root, 0))), np.nan)
    return x * factor, y * factor


def _eucm(x: Array, y: Array, p: Array) -> Pair:
    alpha, beta = p
    depth = alpha * np.sqrt(beta * (x * x + y * y) + 1) + (1 - alpha)
    return x / depth, y / depth


class Model(NamedTuple):
    number: int  # in COLMAP's binary files
    num_params: int
    single_focal: bool  # f, cx, cy first; else fx, fy, cx, cy
    distort: Callable[[Array, Array, Array], Pair]


MODELS = {
    "SIMPLE_PINHOLE": Model(0, 3, True, _none),
    "PINHOLE": Model(1, 4, False, _none),
    "SIMPLE_RADIAL": Model(2, 4, True, _radial),
    "RADIAL": Model(3, 5, True, _radial),
    "OPENCV": Model(4, 8, False, _opencv),
    "OPENCV_FISHEYE": Model(5, 8, False, _fisheye),
    "FULL_OPENCV": Model(6, 12, False, _full_opencv),
    "FOV": Model(7, 5, False, _fov),
    "SIMPLE_RADIAL_FISHEYE": Model(8, 4, True, _fisheye),
    "RADIAL_FISHEYE": Model(9, 5, True, _fisheye),
    "THIN_PRISM_FISHEYE": Model(10, 12, False, _thin_prism),
    "RAD_TAN_THIN_PRISM_FISHEYE": Model(11, 16, False, _rad_tan_thin_prism),
    "SIMPLE_DIVISION": Model(12, 4, True, _division),
    "DIVISION": Model(13, 5, False, _division),
    "SIMPLE_FISHEYE": Model(14, 3, True, _fisheye),
    "FISHEYE": Model(15, 4, False, _fisheye),
    "EUCM": Model(16, 6, False, _eucm),
}


def make_camera(model: str, width: int, height: int, params: Array, where: str) -> Camera:
    """Raises DataError, which begins with ``where``, for what is no camera."""
    if model not in MODELS:
        reason = "a panorama, which no pinhole can show" if model == "EQUIRECTANGULAR" else "none that is known here"
        raise DataError(f"{where}: its camera model is {model[:40]!r}, {reason}; known are {', '.join(MODELS)}")
    params = np.asarray(params, dtype=np.float64)
    if params.shape != (MODELS[model].num_params,) or not np.isfinite(params).all():
        raise DataError(f"{where}: {model} needs {MODELS[model].num_params} finite parameters, not {params.tolist()}")
    camera = Camera(model, width, height, params)
    if not (0 < width <= 100_000 and 0 < height <= 100_000 and (camera.pinhole[:2] > 0).all()):
        raise DataError(f"{where}: {width}x{height} pixels, focal length {camera.pinhole[:2].tolist()} are no camera")
    return camera


# --------------------------------------------------------------------------------------------------------- resampling
def undistorted(camera: Camera) -> Array:
    """fx, fy, cx, cy of the pinhole camera of the same size and centre with the widest view the photograph fills."""
    fx, fy, cx, cy = camera.pinhole
    if not camera.distorted:
        return camera.pinhole
    column, row = np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5
    border = np.concatenate(
        [np.stack([column, np.full_like(column, y)], -1) for y in (row[0], row[-1])]
        + [np.stack([np.full_like(row, x), row], -1) for x in (column[0], column[-1])]
    )
    plane = (border - [cx, cy]) / [fx, fy]

    def filled(zoom: float) -> bool:
        with np.errstate(all="ignore"):
            pixel = camera.project(plane / zoom)
        return bool(((pixel >= 0.5) & (pixel <= [camera.width - 0.5, camera.height - 0.5])).all())

    # From narrow to wide, because the polynomials fold back onto the photograph far outside their range.
    best = None
    for zoom in np.geomspace(4, 0.25, 400):
        if not filled(zoom):
            if best is not None:
                break
            continue
        best = zoom
    if best is None:
        raise DataError(
            f"a {camera.model} camera with parameters {camera.params.tolist()} has no pinhole view inside its "
            f"{camera.width}x{camera.height} pixels; correct its calibration"
        )
    return np.array([fx * best, fy * best, cx, cy])


def undistortion_map(camera: Camera, pinhole: Array) -> Array:
    """Where the ``pinhole`` (fx, fy, cx, cy) of the camera's size finds its pixels: [H, W, 2], column and row in the photograph."""
    row, column = np.mgrid[: camera.height, : camera.width] + 0.5
    fx, fy, cx, cy = pinhole
    return camera.project(np.stack([(column - cx) / fx, (row - cy) / fy], axis=-1))


def resample(image: Array, place: Array) -> Array:
    """uint8 [H, W, 3] of ``image`` at ``place`` [H, W, 2] (column, row; pixel centres at +0.5), bilinear, border repeated."""
    height, width = image.shape[:2]
    last = [width - 1, height - 1]
    position = (place - 0.5).clip(0, last).astype(np.float32)
    low = position.astype(np.int64)
    share = (position - low)[..., None]
    right, down = share[..., 0, :], share[..., 1, :]
    column, row = low[..., 0], low[..., 1]
    next_column, next_row = np.minimum(column + 1, last[0]), np.minimum(row + 1, last[1])
    above = image[row, column] * (1 - right) + image[row, next_column] * right
    below = image[next_row, column] * (1 - right) + image[next_row, next_column] * right
    return np.round(above * (1 - down) + below * down).astype(np.uint8)
