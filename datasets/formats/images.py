"""One picture in a file (PNG, JPEG, PGM / PPM), and folders of pictures sorted by class."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from adlbench.benchmark.api import DataError

SUFFIXES = (".jpeg", ".jpg", ".pgm", ".png", ".ppm")
FORMATS = ("JPEG", "PNG", "PPM")  # Pillow's names; its other decoders are never reached
MAX_PIXELS = 1 << 26  # of one picture: 8192 x 8192


def read_image(path: Path, size: int = 0, grey: bool = False) -> np.ndarray:
    """uint8 [1 or 3, H, W], top row first.

    With ``size``, the shorter side is scaled to it (bicubic, without aliasing) and the middle is kept. 16-bit pictures
    keep their upper byte, transparency is dropped. Raises DataError when the file is absent, truncated or no picture.
    """
    with _opened(path) as (opened, name):
        image = _convert(opened, name, "L" if grey else "RGB")
    if size:
        image = _middle_square(image, size)
    pixels = np.asarray(image)
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def fit_image(path: Path, size: int) -> np.ndarray:
    """uint8 [3, size, size]: the whole picture, its longer side scaled to ``size``, black to the right or below."""
    with _opened(path) as (opened, name):
        image = _convert(opened, name, "RGB")
    scale = size / max(image.size)
    width, height = fitted(image.width, scale), fitted(image.height, scale)
    result = np.zeros((3, size, size), dtype=np.uint8)
    result[:, :height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    return result


def fitted(length: int, scale: float) -> int:
    """The length of a picture's side after scaling, in whole pixels."""
    return max(1, round(length * scale))


def read_indices(path: Path) -> np.ndarray:
    """The numbers of a label picture, as stored: uint8 [H, W] of a grey or palette PNG."""
    with _opened(path) as (opened, name):
        if opened.mode not in ("L", "P", "1"):
            raise DataError(
                f"{name} has pixels of mode {opened.mode}, not one byte each; labels need a grey or palette PNG"
            )
        return np.array(opened, dtype=np.uint8)


def read_colours(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], as stored."""
    with _opened(path) as (opened, name):
        return np.asarray(_convert(opened, name, "RGB"))


def decode_bits(file: IO[bytes], name: str) -> np.ndarray:
    """uint8 [H, W], 0 or 255, of a black and white PNG that is already open."""
    with _opened(file, name) as (opened, _):
        return np.asarray(_convert(opened, name, "L"))


def image_size(path: Path) -> tuple[int, int]:
    """(height, width), from the header alone."""
    with _opened(path, load=False) as (opened, _):
        return opened.height, opened.width


def list_classes(folder: Path) -> tuple[str, ...]:
    """The folders in ``folder``, hidden ones left out, in alphabetical order with numbers counted: s2 before s10."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; put the images of each class in a folder of its own there")
    with os.scandir(folder) as entries:
        return tuple(sorted((e.name for e in entries if e.is_dir() and not e.name.startswith(".")), key=in_order))


def list_images(folder: Path) -> list[Path]:
    """The pictures in ``folder`` by name, numbers counted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # a million files: no call to the system for each
        names = [e.name for e in entries if e.name.lower().endswith(SUFFIXES) and e.name[0] != "." and e.is_file()]
    return [folder / name for name in sorted(names, key=in_order)]


def in_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts as people do: runs of digits by their value."""
    return tuple(
        (1, int(part), part) if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name) if part
    )


class _opened:
    """Pillow's picture of a file. Whatever its decoders stumble over in a damaged file is a DataError."""

    def __init__(self, source: Path | IO[bytes], name: str = "", load: bool = True):
        self.source, self.name, self.load = source, name or str(source), load

    def __enter__(self) -> tuple[Image.Image, str]:
        if isinstance(self.source, Path) and not self.source.is_file():
            raise DataError(f"{self.source} does not exist; put the image there")
        try:
            self.image = Image.open(self.source, formats=FORMATS)
            if self.image.width * self.image.height > MAX_PIXELS:
                raise DataError(
                    f"{self.name} announces {self.image.width}x{self.image.height} pixels, more than {MAX_PIXELS:,}; "
                    "scale it down or remove it"
                )
            if self.load:
                self.image.load()
        except (DataError, MemoryError):
            raise
        except Exception as error:
            raise self._unreadable(error) from None
        return self.image, self.name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.image.close()
        if isinstance(error, (OSError, ValueError, SyntaxError)):
            raise self._unreadable(error) from None

    def _unreadable(self, error: BaseException) -> DataError:
        text = (str(error) or type(error).__name__).replace(str(self.source), "the file")[:160]
        return DataError(f"{self.name} cannot be read as an image ({text}); replace or remove the file")


def _convert(image: Image.Image, name: str, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow's own conversion of 16 bits would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return image.convert(mode)


def _middle_square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)  # Pillow's resize does not alias
