"""Omniglot's zips: ``SET/ALPHABET/characterNN/DDDD_PP.png``, one drawing of 105x105 black and white pixels each.

B. Lake, R. Salakhutdinov and J. Tenenbaum, Human-level concept learning through probabilistic program induction, 2015.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.images import decode_bits

SIZE = 105  # pixels a side
MAX_MEMBERS = 100_000  # all of Omniglot has 32,460 drawings
MAX_MEMBER = 1 << 20  # bytes of one picture, unpacked; they have about 300
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class Drawings:
    image: np.ndarray  # uint8 [N, 105, 105], 0 is ink and 255 paper, as stored
    label: np.ndarray  # int64 [N], index into ``classes``
    drawer: np.ndarray  # int64 [N], 1 to 20: who drew it
    classes: tuple[str, ...]  # "Greek/character07", sorted


def read_omniglot(path: Path) -> Drawings:
    """All drawings of one zip, by class, then by drawer. Raises DataError naming the zip and the member."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; put Omniglot's zip there")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            classes = tuple(sorted({name for name, _, _ in members}))
            place = {name: index for index, name in enumerate(classes)}
            members.sort(key=lambda member: (place[member[0]], member[1]))
            image = np.empty((len(members), SIZE, SIZE), dtype=np.uint8)
            for index, (_, _, member) in enumerate(members):
                image[index] = _picture(path, archive, member)
    except DAMAGE as error:
        raise DataError(f"{path} is damaged ({str(error)[:160] or type(error).__name__}); fetch it again") from None
    label = np.array([place[name] for name, _, _ in members], dtype=np.int64)
    return Drawings(image, label, np.array([drawer for _, drawer, _ in members], dtype=np.int64), classes)


def _members(path: Path, archive: zipfile.ZipFile) -> list[tuple[str, int, zipfile.ZipInfo]]:
    """(class, drawer, member) of every picture."""
    if len(archive.infolist()) > MAX_MEMBERS:
        raise DataError(f"{path} has {len(archive.infolist()):,} members; it is not a zip of Omniglot")
    found = []
    for member in archive.infolist():
        parts = PurePosixPath(member.filename).parts
        if member.is_dir() or parts[0] == "__MACOSX":
            continue
        drawer = parts[-1].removesuffix(".png").rpartition("_")[2]
        if len(parts) != 4 or ".." in parts or not drawer.isascii() or not drawer.isdecimal() or len(drawer) > 4:
            raise DataError(f"{path}: {member.filename!r} is not SET/ALPHABET/characterNN/DDDD_PP.png")
        if member.file_size > MAX_MEMBER:
            raise DataError(f"{path}: {member.filename!r} announces {member.file_size:,} bytes; too many for a drawing")
        found.append((f"{parts[1]}/{parts[2]}", int(drawer), member))
    if not found:
        raise DataError(f"{path} holds no drawings; fetch it again")
    return found


def _picture(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        content = file.read(MAX_MEMBER + 1)
    pixels = decode_bits(io.BytesIO(content), f"{path}: {member.filename}")
    if pixels.shape != (SIZE, SIZE):
        raise DataError(f"{path}: {member.filename} is {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIZE}x{SIZE}")
    return pixels
