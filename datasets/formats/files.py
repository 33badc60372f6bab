"""What the readers share: whole files, numbers in text, bytes in order, and names that must stay in their folder.

Every function raises DataError with the file, the place in it and the remedy, and reads no more than the file holds: what a
header announces is compared with the bytes that are there before anything is allocated.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from adlbench.benchmark.api import DataError

AGAIN = "copy it again from its source"
MAX_EXPANSION = 1100  # deflate cannot expand by more than 1032


def read_bytes(path: Path) -> bytes:
    """The whole file; what ends in .gz is unpacked, to at most what its size allows."""
    try:
        if not path.is_file():
            raise DataError(f"{path} does not exist or is no file; put it there")
        if path.suffix != ".gz":
            return path.read_bytes()
        limit = MAX_EXPANSION * path.stat().st_size
        with gzip.open(path) as file:
            return file.read(limit)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {AGAIN}") from None


def read_text(path: Path) -> str:
    """UTF-8 text. A zero byte is refused: text does not have it, and damaged text often does."""
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: byte {error.start} is no UTF-8; {AGAIN}") from None
    if "\0" in text:
        raise DataError(f"{path} is not text: byte {text.index(chr(0))} is zero; {AGAIN}")
    return text


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); {AGAIN}") from None


def table(lines: Sequence[str], columns: int | tuple[int, ...], path: Path, first: int = 1) -> np.ndarray:
    """float64 [N, C] from lines of C numbers each, C among ``columns``; ``first`` is the line number of the first."""
    allowed = (columns,) if isinstance(columns, int) else columns
    if not lines:
        return np.empty((0, allowed[0]))
    width = len(lines[0].split())
    if width not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise DataError(f"{path}, line {first}: {width} columns where {wanted} must be; {AGAIN}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values = np.loadtxt(lines, dtype=np.float64, ndmin=2, comments=None, max_rows=len(lines))
        if values.shape == (len(lines), width):
            return values
    except (ValueError, UserWarning, OverflowError):
        pass
    for number, line in enumerate(lines, first):  # again, slowly, to say where
        words = line.split()
        if len(words) != width:
            raise DataError(f"{path}, line {number}: {len(words)} columns where {width} must be; {AGAIN}")
        for word in words:
            try:
                float(word)
            except ValueError:
                raise DataError(f"{path}, line {number}: {word[:40]!r} is no number; {AGAIN}") from None
    raise DataError(f"{path}, from line {first}: not a table of {width} columns; {AGAIN}")


def check_finite(values: np.ndarray, name: str, path: Path) -> None:
    """``values`` [N, ...]: raises for the first row with NaN, infinity, or more than float32 could square."""
    bad = ~(np.abs(values) < 1e18).reshape(len(values), -1).all(axis=1) if values.size else np.zeros(0, dtype=bool)
    if bad.any():
        raise DataError(f"{path}: {name} {int(bad.argmax())} is NaN or infinite ({bad.sum()} in all); {AGAIN}")


def check_indices(values: np.ndarray, count: int, name: str, path: Path) -> None:
    """``values`` [N, ...]: raises for the first row with an index outside [0, count)."""
    bad = ((values < 0) | (values >= count)).reshape(len(values), -1).any(axis=1) if values.size else np.zeros(0, bool)
    if bad.any():
        where = int(bad.argmax())
        raise DataError(
            f"{path}: {name} {where} holds {values[where].tolist()}, which must lie in 0..{count - 1}; {AGAIN}"
        )


def are_rotations(matrices: np.ndarray, tolerance: float) -> np.ndarray:
    """bool [N]: which of [N, 3, 3] are rotations, R R^T = 1 to ``tolerance`` and no reflection."""
    small = (np.abs(matrices) <= 1 + tolerance).all(axis=(1, 2))  # false for NaN
    sound = np.where(small[:, None, None], matrices, 0.0)
    off = np.abs(sound @ sound.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    result: np.ndarray = (off <= tolerance) & (np.linalg.det(sound) > 0)
    return result


def are_rigid(poses: np.ndarray, tolerance: float) -> np.ndarray:
    """bool [N]: which of [N, 4, 4] turn and move, and do nothing else."""
    small = (np.abs(poses) < 1e9).all(axis=(1, 2))  # false for NaN
    last = (np.abs(poses[:, 3] - [0, 0, 0, 1]) < 1e-6).all(axis=1)
    result: np.ndarray = small & last & are_rotations(poses[:, :3, :3], tolerance)
    return result


def named(folder: Path, name: str, source: Path) -> Path:
    """The path of ``name``, which the file ``source`` gives relative to ``folder`` and which must stay in it."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or pure.is_absolute() or ".." in pure.parts or ":" in name:
        raise DataError(f"{source} names {name[:80]!r}, which is not a path inside {folder}; correct the name")
    return folder / pure


def inside(folder: Path, name: str, source: Path) -> Path:
    """As ``named``; links must not lead out of ``folder`` either."""
    path = named(folder, name, source)
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(
                f"{path}, named in {source}, is a link that leads out of {folder}; put the file itself there"
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}, named in {source}, cannot be followed ({error}); put the file itself there") from None
    return path


class ByteReader:
    """Reads little-endian records one after the other and knows where it is."""

    def __init__(self, content: bytes, path: Path, position: int = 0):
        self.content, self.path, self.position = content, path, position

    @property
    def left(self) -> int:
        return len(self.content) - self.position

    def take(self, size: int, what: str) -> bytes:
        if size < 0 or size > self.left:
            raise DataError(
                f"{self.path}, byte {self.position}: {what} takes {size:,} bytes and {self.left:,} are left; {AGAIN}"
            )
        self.position += size
        return self.content[self.position - size : self.position]

    def unpack(self, layout: str, what: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))

    def count(self, smallest: int, what: str) -> int:
        """An uint64 number of records that take ``smallest`` bytes or more each."""
        (number,) = self.unpack("<Q", f"the number of {what}")
        if number * smallest > self.left:
            raise DataError(
                f"{self.path}, byte {self.position - 8}: {number:,} {what} are announced and {self.left:,} bytes are left; "
                f"the file is cut off or of another format: {AGAIN}"
            )
        return int(number)

    def array(self, dtype: Any, count: int, what: str) -> np.ndarray:
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(count * kind.itemsize, what), kind)

    def text(self, what: str, longest: int = 4096) -> str:
        """Up to a zero byte."""
        end = self.content.find(b"\0", self.position, self.position + longest)
        if end < 0:
            raise DataError(f"{self.path}, byte {self.position}: {what} does not end within {longest} bytes; {AGAIN}")
        try:
            text = self.content[self.position : end].decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{self.path}, byte {self.position}: {what} is no UTF-8; {AGAIN}") from None
        self.position = end + 1
        return text

    def end(self) -> None:
        if self.left:
            raise DataError(f"{self.path}: {self.left:,} bytes follow its last record, at {self.position}; {AGAIN}")


def read_npy(content: bytes, path: Path) -> np.ndarray:
    """The array of an .npy file that was read into ``content``. Objects, which would be pickled, are refused."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
    except Exception as error:  # numpy lets through what Python's parser raises on a damaged header
        raise DataError(f"{path} is no .npy array ({type(error).__name__}); {AGAIN}") from None
    if dtype.hasobject:
        raise DataError(f"{path} holds pickled objects, which are never loaded; it must hold plain numbers")
    size = dtype.itemsize
    for length in shape:
        size *= length
    left = len(content) - stream.tell()
    if any(length < 0 for length in shape) or size != left:
        raise DataError(
            f"{path}: the header announces shape {shape} of {dtype}, {size:,} bytes, and {left:,} follow; {AGAIN}"
        )
    array = np.frombuffer(content, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if fortran else "C")
