"""CIFAR's pickles: read as data. What else a pickle can do must not happen."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_formats import formats, read_or_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.cifar import read_cifar_batch, read_cifar_names, read_cifar_pickle

QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
BATCH = next(form for form in formats() if form.name == "cifar 2").files["batch"]


def batch(data: Any = None, labels: Any = (0, 1), protocol: int = 2) -> bytes:
    data = np.zeros((2, 3072), np.uint8) if data is None else data
    return pickle.dumps({b"data": data, b"labels": list(labels)}, protocol)


@QUICK
@given(
    count=st.integers(1, 4),
    protocol=st.integers(2, 5),
    order=st.sampled_from("CF"),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_pickle_wrote_is_read(tmp_path: Path, count: int, protocol: int, order: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = np.asarray(rng.integers(0, 256, (count, 3072), dtype=np.uint8), order=order)
    labels = rng.integers(0, 10, count).tolist()
    path = tmp_path / "batch"
    path.write_bytes(batch(data, labels, protocol))
    image, label = read_cifar_batch(path)
    assert (image.reshape(count, 3072) == data).all()
    assert label.tolist() == labels
    assert (image.dtype, label.dtype) == (np.uint8, np.int64)


def test_as_python_2_wrote_it(tmp_path: Path) -> None:
    """The published files: strings of Python 2, numpy.core, no bytes at all. Written by hand, instruction by instruction."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
    dtype = b"cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x02M\x00\x0c\x86" + dtype + b"\x89T" + struct.pack("<I", pixels.size) + pixels.tobytes() + b"tb"
    labels = b"U\x06labelsq\x02]q\x03(K\x06K\x09e"
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x02}q\x01(" + labels + b"U\x04dataq\x04" + array + state + b"u.")
    assert (pickle.loads(path.read_bytes(), encoding="bytes")[b"data"] == pixels).all()  # a pickle, for pickle too
    image, label = read_cifar_batch(path)
    assert (image.reshape(2, 3072) == pixels).all()
    assert label.tolist() == [6, 9]


@QUICK
@given(position=st.integers(0, 400), value=st.integers(0, 255))
def test_another_byte_is_read_or_refused(tmp_path: Path, position: int, value: int) -> None:
    path = tmp_path / "batch"
    content = bytearray(BATCH)
    content[position] = value
    path.write_bytes(content)
    found = read_or_refused(read_cifar_batch, path)
    assert found is None or len(found[0]) == len(found[1])


class Evil:
    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["alone", "as a value", "as the data"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, protocol: int, place: str) -> None:
    mark = tmp_path / "it_ran"
    evil = Evil(os.system, f"touch {mark}")
    content = {
        "alone": evil,
        "as a value": {b"labels": [0], b"x": evil},
        "as the data": {b"data": evil, b"labels": [0]},
    }
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(content[place], protocol))
    with pytest.raises(DataError, match="batch"):
        read_cifar_batch(path)
    assert not mark.exists()
    if protocol == 2 and place == "alone":  # the file is what it is meant to be: pickle itself runs it
        pickle.loads(path.read_bytes())
        assert mark.exists()


def test_numpy_itself_cannot_be_called(tmp_path: Path) -> None:
    """Names that batches do need are allowed, and even they are not called: 8 TB are not allocated."""
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({b"data": Evil(np.ndarray, (1 << 43,), np.dtype("u1")), b"labels": [0]}, 2))
    with pytest.raises(DataError):
        read_cifar_batch(path)


class Array:
    """Pickles as numpy's array would, with any state."""

    def __init__(self, shape: Any, raw: Any, kind: str):
        self.state = (1, shape, np.dtype(kind), False, raw)

    def __reduce__(self) -> tuple[Any, ...]:
        return (np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), self.state)


def with_state(shape: Any, raw: Any = b"\0" * 3072, kind: str = "u1") -> bytes:
    return pickle.dumps({b"data": Array(shape, raw, kind), b"labels": [0]}, 4)


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"(" * depth + b"t" * depth + b"."


def hash_bomb(end: bytes = b"K\x01s.") -> bytes:
    """A key that is a pair of the same pair, sixty times over: to hash it, or to print it, would take 2^60 steps."""
    return b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 60 + end


def data_of_one() -> bytes:
    return pickle.dumps(np.zeros((1, 3072), np.uint8), 2)[2:-1]


DAMAGED = {
    "empty": b"",
    "one byte": b"\x80",
    "cut off": BATCH[: len(BATCH) // 2],
    "without its end": BATCH[:-1],
    "text": b"this is not a pickle\n",
    "a picture": b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
    "a list": pickle.dumps([1, 2], 2),
    "without data": pickle.dumps({b"labels": [0]}, 2),
    "without labels": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8)}, 2),
    "fewer labels": batch(labels=[0]),
    "a negative label": batch(labels=[0, -1]),
    "a label that is no number": batch(labels=[0, "cat"]),
    "a label that is true": batch(labels=[0, True]),
    "a huge label": batch(labels=[0, 10**30]),
    "other width": batch(np.zeros((2, 3071), np.uint8)),
    "floats": batch(np.zeros((2, 3072), np.float32)),
    "NaN": batch(np.full((2, 3072), np.nan, np.float64)),
    "big-endian numbers": batch(np.zeros((2, 3072), ">i2")),
    "an object array": batch(np.array([["x"] * 2], dtype=object)),
    "a shape that is too large": with_state((1 << 40, 3072)),
    "a negative shape": with_state((-1, 3072)),
    "a shape that is no tuple": with_state(3072),
    "a shape that is not whole": with_state((1.0, 3072)),
    "fewer bytes than its shape": with_state((1, 3072), b"\0" * 100),
    "content that is a list": with_state((1, 3072), [0] * 3072),
    "announces 4 GB": b"\x80\x02}B\xff\xff\xff\xff.",
    "announces 2^62 bytes": b"\x80\x04}\x8e" + struct.pack("<Q", 1 << 62) + b".",
    "a memo of 2^31 entries": b"\x80\x02}r\xff\xff\xff\x7f.",
    "nested 50,000 deep": nested(50_000),
    "a key that hashes for ever": hash_bomb(),
    "a name that hashes for ever": hash_bomb(b"q\x01h\x01\x93."),
    "a label that prints for ever": b"\x80\x02}(U\x06labels]("
    + hash_bomb(b"")[3:]
    + b"eU\x04data"
    + data_of_one()
    + b"u.",
    "values are missing": b"\x80\x02s.",
    "a mark is missing": b"\x80\x02}u.",
    "something not in the memo": b"\x80\x02h\x05.",
    "an extension": b"\x80\x02\x82\x01.",
    "an instance of a class": b"\x80\x02cos\nsystem\n)\x81.",
    "a persistent object": b"\x80\x02K\x01Q.",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_batches_are_errors_that_name_the_file(tmp_path: Path, case: str) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(DAMAGED[case])
    with pytest.raises(DataError) as error:
        read_cifar_batch(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_cases_above_damage_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(with_state((1, 3072)))
    assert read_cifar_batch(path)[0].shape == (1, 3, 32, 32)


def test_names(tmp_path: Path) -> None:
    path = tmp_path / "batches.meta"
    path.write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog"], b"num_vis": 3072}, 2))
    assert read_cifar_names(path) == ("cat", "dog")
    path.write_bytes(pickle.dumps({b"label_names": [b"cat", 3]}, 2))
    with pytest.raises(DataError, match="no list 'label_names'"):
        read_cifar_names(path)
    assert read_cifar_pickle(path)["label_names"] == ["cat", 3]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_cifar_batch(tmp_path / "data_batch_1")
    with pytest.raises(DataError, match="does not exist"):
        read_cifar_batch(tmp_path)
