"""Pictures: round trips against Pillow's own writer, PGM by hand, and what a damaged file must not do."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_formats import formats, read_or_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.images import (
    fit_image,
    image_size,
    in_order,
    list_classes,
    list_images,
    read_image,
    read_indices,
)
from adlbench.datasets.translation.paired_images import read_pair

QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FILES = {form.name: next(iter(form.files.values())) for form in formats()}
GIF = io.BytesIO()
Image.new("L", (2, 2)).save(GIF, "gif")
PNG, JPEG, PGM = FILES["png"], FILES["jpeg"], FILES["pgm"]


@QUICK
@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 999), comment=st.booleans())
def test_pgm_by_hand(tmp_path: Path, width: int, height: int, seed: int, comment: bool) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    path = tmp_path / "1.pgm"
    path.write_bytes(b"P5\n" + b"# xv\n" * comment + f"{width} {height}\n255\n".encode() + pixels.tobytes())
    assert (read_image(path, grey=True)[0] == pixels).all()
    assert image_size(path) == (height, width)


@QUICK
@given(
    kind=st.sampled_from(["png", "jpeg", "pgm", "label png"]),
    position=st.integers(0, 10_000),
    value=st.integers(0, 255),
    cut=st.booleans(),
)
def test_another_byte_is_read_or_refused(tmp_path: Path, kind: str, position: int, value: int, cut: bool) -> None:
    content = bytearray(FILES[kind])
    position %= len(content)
    content[position] = value
    path = tmp_path / "picture.bin"
    path.write_bytes(content[:position] if cut else content)
    for read in (read_image, read_indices, image_size):
        read_or_refused(read, path)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def test_the_png_below_is_one(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(2, 2, b"\0\1\2\0\3\4"))
    assert read_indices(tmp_path / "x.png").tolist() == [[1, 2], [3, 4]]


DAMAGED = {
    "empty": b"",
    "text": b"<html>404 not found</html>",
    "only a magic number": PNG[:8],
    "png cut off": PNG[: len(PNG) // 2],
    "jpeg cut off": JPEG[: len(JPEG) // 2],
    "pgm cut off": PGM[:-5],
    "png of 2^31 pixels a side": png(2**31 - 1, 2**31 - 1, b"\0"),
    "png of 20000 pixels a side": png(20_000, 20_000, b"\0"),
    "png of no pixels": png(0, 0, b""),
    "png with a wrong checksum": PNG[:40] + bytes([PNG[40] ^ 1]) + PNG[41:],
    "png that unpacks to nothing": png(4, 4, b""),
    "pgm of 10^9 pixels a side": b"P5\n1000000000 1000000000\n255\n\0",
    "pgm with a negative size": b"P5\n-4 4\n255\n" + b"\0" * 16,
    "pgm with NaN for a size": b"P5\nnan 4\n255\n" + b"\0" * 16,
    "pgm with another range": b"P5\n4 4\n99999999\n" + b"\0" * 64,
    "pgm without a size": b"P5\n",
    "pgm in letters, cut off": b"P2\n4 4\n255\n1 2 3",
    "pgm in letters, out of range": b"P2\n2 1\n255\n1 256\n",
    "a gif": GIF.getvalue(),
    "postscript, which others would run": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_pictures_are_errors_that_name_the_file(tmp_path: Path, case: str, recwarn: Any) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(DAMAGED[case])
    with pytest.raises(DataError) as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert not recwarn.list  # nothing that a user cannot act on


def test_absent_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    for name in ("none.png", "pipe.png", "folder.png", "link.png"):
        with pytest.raises(DataError, match="does not exist"):
            read_image(tmp_path / name)
    assert list_images(tmp_path) == []


def test_labels_are_read_as_stored(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [11, 255]], dtype=np.uint8)
    grey, palette = Image.fromarray(labels), Image.fromarray(labels)
    palette.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    for name, picture in (("grey", grey), ("palette", palette)):
        picture.save(tmp_path / f"{name}.png")
        assert (read_indices(tmp_path / f"{name}.png") == labels).all()
    Image.new("RGB", (2, 2)).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match="mode RGB"):
        read_indices(tmp_path / "colour.png")


def test_a_picture_is_fitted_whole(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), (200, 100, 50)).save(tmp_path / "wide.png")
    fitted = fit_image(tmp_path / "wide.png", 10)
    assert (fitted[:, :5] == np.array([200, 100, 50])[:, None, None]).all()
    assert (fitted[:, 5:] == 0).all()


def test_pairs(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, 3:] = 9
    Image.fromarray(pixels).save(tmp_path / "1.png")
    left, right = read_pair(tmp_path / "1.png")
    assert (left.max(), right.min(), left.shape, right.shape) == (0, 9, (3, 4, 3), (3, 4, 3))
    Image.new("RGB", (5, 4)).save(tmp_path / "odd.png")
    with pytest.raises(DataError, match="not two images side by side"):
        read_pair(tmp_path / "odd.png")


def test_folders_are_listed_as_people_count(tmp_path: Path) -> None:
    for name in ("s10", "s2", "s1", ".git"):
        (tmp_path / name).mkdir()
    for name in ("10.png", "9.PNG", "notes.txt", ".9.png"):
        (tmp_path / name).write_bytes(b"")
    assert list_classes(tmp_path) == ("s1", "s2", "s10")
    assert [path.name for path in list_images(tmp_path)] == ["9.PNG", "10.png"]
    assert list_images(tmp_path / "none") == []
    with pytest.raises(DataError, match="is not a folder"):
        list_classes(tmp_path / "none")


@QUICK
@given(names=st.lists(st.text(max_size=8), max_size=6, unique=True))
def test_any_names_have_one_order(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=in_order) == sorted(backwards, key=in_order)
