from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from fuzz_formats import read_or_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.idx import idx_shape, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    code = CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("compress", [False, True])
def test_round_trip(tmp_path: Path, dtype: str, compress: bool):
    array = (np.random.default_rng(0).normal(size=(5, 4, 3)) * 50).astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx_bytes(array)) if compress else idx_bytes(array))
    read = read_idx(path)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert (read == array).all()
    assert idx_shape(path) == (5, 4, 3)


def test_an_empty_array_is_read(tmp_path: Path):
    path = tmp_path / "empty"
    path.write_bytes(idx_bytes(np.zeros((0, 28, 28), dtype=np.uint8)))
    assert read_idx(path).shape == (0, 28, 28)


WHOLE = idx_bytes(np.arange(60, dtype=np.uint8).reshape(5, 12))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WHOLE[:-1], "59 of 60 bytes"),
        (WHOLE[:7], "truncated within its header"),
        (WHOLE[:2], "not even an IDX header"),
        (b"", "not even an IDX header"),
        (WHOLE + b"x", "holds more"),
        (b"\x89PNG" + WHOLE, "not an IDX file"),
        (b"\0\0\x07\x01" + WHOLE[4:], "not an IDX file"),
        (gzip.compress(WHOLE)[:-10], "truncated"),
        (gzip.compress(WHOLE)[:20], "truncated"),
        (gzip.compress(WHOLE[:-1]), "59 of 60 bytes"),
        (gzip.compress(WHOLE)[:-6] + b"\0" * 6, "truncated or damaged"),  # the checksum
        (b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff" + b"1234", "truncated"),  # announces 2^64 bytes
        (b"\0\0\x08\x41" + b"\0\0\0\x01" * 65 + b"x", "announces 65 dimensions"),
        (b"\0\0\x08\x04" + b"\xff" * 12 + b"\0" * 4, "announces the shape"),  # nothing, 2^96 times
        (b"\0\0\x08\x02\x05\0\0\0\x0c\0\0\0" + WHOLE[12:], "truncated"),  # lengths in the wrong byte order
    ],
)
def test_damaged_files_are_errors_that_name_the_file(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "digits-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_idx(path)
    assert str(path) in str(error.value)


QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(dtype=st.sampled_from(list(CODES)), shape=array_shapes(min_side=0, max_dims=5), compress=st.booleans())
def test_every_shape_and_type_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...], compress: bool):
    array = (np.random.default_rng(0).normal(size=shape) * 50).astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx_bytes(array)) if compress else idx_bytes(array))
    assert read_idx(path).shape == array.shape == idx_shape(path)
    assert (read_idx(path) == array).all()


@QUICK
@given(position=st.integers(0, 200), value=st.integers(0, 255), compress=st.booleans())
def test_another_byte_is_read_or_refused(tmp_path: Path, position: int, value: int, compress: bool):
    content = bytearray(gzip.compress(WHOLE) if compress else WHOLE)
    content[position % len(content)] = value
    path = tmp_path / "file"
    path.write_bytes(content)
    found = read_or_refused(read_idx, path)
    assert found is None or found.nbytes <= 60


def test_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        read_idx(tmp_path / "none")
