"""The IDX format of MNIST: a big-endian header (0, 0, type, number of dimensions, their lengths) and the raw array."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from adlbench.benchmark.api import DataError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 16
PIECE = 1 << 24  # bytes read at a time


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, plain or gzipped, in native byte order. Raises DataError when it is damaged."""
    try:
        with _open(path) as file:
            dtype, shape = _header(file, path)
            expected = math.prod(shape) * dtype.itemsize
            content = bytearray()
            while piece := file.read(min(expected - len(content), PIECE)):  # a damaged header may announce anything
                content += piece
            excess = file.read(1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); fetch it again") from error
    if len(content) < expected:
        raise DataError(f"{path} is truncated: {len(content):,} of {expected:,} bytes of data; fetch it again")
    if excess:
        raise DataError(f"{path} holds more than the {expected:,} bytes its header announces; fetch it again")
    try:
        return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    except ValueError as error:  # no items, of a size that no memory holds
        raise DataError(f"{path} announces the shape {shape} ({error}); fetch it again") from None


def idx_shape(path: Path) -> tuple[int, ...]:
    """The shape alone, from the header."""
    try:
        with _open(path) as file:
            return _header(file, path)[1]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); fetch it again") from error


def _open(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; put the IDX file there")
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if gzipped else path.open("rb")


def _header(file: IO[bytes], path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4:
        raise DataError(f"{path} is truncated: {len(magic)} bytes, not even an IDX header; fetch it again")
    if magic[:2] != b"\0\0" or magic[2] not in TYPES:
        raise DataError(f"{path} is not an IDX file: it begins with 0x{magic.hex()}, not 0x0000 and a known type")
    if magic[3] > MAX_DIMENSIONS:
        raise DataError(f"{path} announces {magic[3]} dimensions; it is damaged: fetch it again")
    dimensions = file.read(4 * magic[3])
    if len(dimensions) < 4 * magic[3]:
        raise DataError(f"{path} is truncated within its header of {magic[3]} dimensions; fetch it again")
    return np.dtype(TYPES[magic[2]]), struct.unpack(f">{magic[3]}I", dimensions)
