"""PCD, the Point Cloud Library's format, version 0.7: ascii, binary, and binary_compressed (fields one after the other, LZF)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, read_bytes, table

TYPES = {
    "F4": "<f4",
    "F8": "<f8",
    "I1": "i1",
    "I2": "<i2",
    "I4": "<i4",
    "I8": "<i8",
    "U1": "u1",
    "U2": "<u2",
    "U4": "<u4",
    "U8": "<u8",
}
LZF_EXPANSION = 264 // 3 + 1  # a copy of 264 bytes takes three


@dataclass(frozen=True)
class PointCloud:
    """Where the sensor saw nothing, an organised cloud (``height`` above 1) has NaN: coordinates need not be finite."""

    fields: dict[str, np.ndarray]  # [N], or [N, count], in the file's types
    width: int
    height: int  # 1 for clouds without an order
    viewpoint: tuple[float, ...]  # of the sensor: translation, quaternion (w, x, y, z)

    def __len__(self) -> int:
        return self.width * self.height

    @property
    def points(self) -> np.ndarray:
        """float64 [N, 3], in the file's units (metres by convention); rows of NaN where there is no return."""
        return np.column_stack([self.fields[name] for name in ("x", "y", "z")]).astype(np.float64)

    @property
    def colours(self) -> np.ndarray | None:
        """uint8 [N, 3] from the packed field ``rgb`` or ``rgba`` (0xAARRGGBB in the bits of an uint32 or a float32)."""
        packed = self.fields.get("rgba", self.fields.get("rgb"))
        if packed is None or packed.dtype.itemsize != 4 or packed.ndim != 1:
            return None
        bits = packed.view(np.uint32)
        return np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=1).astype(np.uint8)


def read_pcd(path: Path) -> PointCloud:
    """Raises DataError when the header is none, or does not fit the bytes that follow."""
    content = read_bytes(path)
    header, start = _header(content, path)
    try:
        names = header["FIELDS"]
        sizes = [int(word) for word in header["SIZE"]]
        counts = [int(word) for word in header.get("COUNT", ["1"] * len(names))]
        width, height = int(header["WIDTH"][0]), int(header["HEIGHT"][0])
        points = int(header["POINTS"][0]) if "POINTS" in header else width * height
        viewpoint = tuple(float(word) for word in header.get("VIEWPOINT", ["0", "0", "0", "1", "0", "0", "0"]))
        kinds = [np.dtype(TYPES[f"{kind}{size}"]) for kind, size in zip(header["TYPE"], sizes, strict=True)]
        form = header["DATA"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path}: its header is no PCD header ({type(error).__name__}: {error}); {AGAIN}") from None
    if (
        not names
        or len({len(names), len(kinds), len(counts)}) != 1
        or len(set(names) - {"_"}) + names.count("_") != len(names)
    ):
        raise DataError(f"{path}: FIELDS, SIZE, TYPE and COUNT must name equally many, different fields; {AGAIN}")
    if min(width, height, points, *counts) < 0 or width * height != points:
        raise DataError(f"{path}: WIDTH {width} x HEIGHT {height} must be its POINTS, {points}; {AGAIN}")
    layout = [(name, kind, count) for name, kind, count in zip(names, kinds, counts)]
    body = content[start:]
    if form == "ascii":
        fields = _ascii(body, layout, points, path)
    elif form == "binary":
        fields = _binary(body, layout, points, path)
    elif form == "binary_compressed":
        fields = _compressed(body, layout, points, path)
    else:
        raise DataError(f"{path}: its DATA is {form!r}; it must be ascii, binary or binary_compressed")
    fields.pop("_", None)  # padding
    return PointCloud(fields, width, height, viewpoint)


Layout = list[tuple[str, np.dtype, int]]


def _header(content: bytes, path: Path) -> tuple[dict[str, list[str]], int]:
    header: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in header:
        end = content.find(b"\n", position, position + 10_000)
        if end < 0:
            raise DataError(f"{path}, byte {position}: the header ends without DATA; it is cut off or no PCD: {AGAIN}")
        words = content[position:end].decode("latin-1").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
    return header, position


def _shaped(values: np.ndarray, count: int) -> np.ndarray:
    return values if count == 1 else values.reshape(-1, count)


def _ascii(body: bytes, layout: Layout, points: int, path: Path) -> dict[str, np.ndarray]:
    lines = body.decode("latin-1").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) != points:
        raise DataError(f"{path}: {points:,} points are announced and {len(lines):,} lines follow; {AGAIN}")
    values = table(lines, sum(count for *_, count in layout), path)
    fields, column = {}, 0
    for name, kind, count in layout:
        part = values[:, column : column + count]
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            if not ((part >= limits.min) & (part <= limits.max) & (part == np.floor(part))).all():
                raise DataError(f"{path}: field {name!r} holds numbers that are not of its type {kind}; {AGAIN}")
        with np.errstate(over="ignore"):
            fields[name] = _shaped(part.astype(kind).ravel(), count)
        column += count
    return fields


def _binary(body: bytes, layout: Layout, points: int, path: Path) -> dict[str, np.ndarray]:
    size = sum(kind.itemsize * count for _, kind, count in layout)
    if size * points > len(body) or len(body) - size * points > 4096:  # some writers pad to a page
        raise DataError(
            f"{path}: {points:,} points of {size} bytes are announced and {len(body):,} bytes follow; {AGAIN}"
        )
    rows = np.frombuffer(body, np.uint8, size * points).reshape(points, size)
    fields, column = {}, 0
    for name, kind, count in layout:
        width = kind.itemsize * count
        part = np.ascontiguousarray(rows[:, column : column + width])
        fields[name] = _shaped(part.view(kind).ravel() if part.size else np.empty(0, kind), count)
        column += width
    return fields


def _compressed(body: bytes, layout: Layout, points: int, path: Path) -> dict[str, np.ndarray]:
    if len(body) < 8:
        raise DataError(f"{path}: the sizes of its compressed data are cut off; {AGAIN}")
    packed, size = struct.unpack("<II", body[:8])
    expected = points * sum(kind.itemsize * count for _, kind, count in layout)
    if packed > len(body) - 8 or size != expected or size > LZF_EXPANSION * packed:
        raise DataError(
            f"{path}: {packed:,} compressed bytes for {size:,} are announced; {len(body) - 8:,} follow and "
            f"{expected:,} are needed; {AGAIN}"
        )
    content = decompress_lzf(body[8 : 8 + packed], size, path)
    fields, position = {}, 0
    for name, kind, count in layout:  # all values of a field stand together
        values = np.frombuffer(content, kind, points * count, position)
        fields[name] = _shaped(values, count)
        position += values.nbytes
    return fields


def decompress_lzf(content: bytes, size: int, path: Path) -> bytes:
    """``size`` bytes from Marc Lehmann's LZF: literal runs (control below 32) and copies from at most 8 KiB back."""
    out = bytearray()
    position, end = 0, len(content)
    try:
        while position < end and len(out) <= size:
            control = content[position]
            position += 1
            if control < 32:
                run = content[position : position + control + 1]
                if len(run) != control + 1:
                    raise IndexError
                out += run
                position += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += content[position]
                position += 1
            start = len(out) - ((control & 31) << 8) - content[position] - 1
            position += 1
            if start < 0:
                raise IndexError
            length += 2
            if start + length <= len(out):
                out += out[start : start + length]
            else:  # it repeats what it is writing
                piece = out[start:]
                out += (piece * (length // len(piece) + 1))[:length]
    except IndexError:
        raise DataError(f"{path}: its compressed data is damaged at byte {position} of {end}; {AGAIN}") from None
    if len(out) != size:
        raise DataError(f"{path}: its compressed data gives {len(out):,} bytes where {size:,} are announced; {AGAIN}")
    return bytes(out)
