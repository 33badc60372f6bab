"""YOLO labels, lists, captions, Omniglot's zip and plain text: what they hold, and what a damaged one must not do."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats_images_text import ATTRIBUTES, CAPTIONS, omniglot_zip, picture
from fuzz_formats import read_or_refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.lists import (
    padded_captions,
    read_captions,
    read_celeba_attributes,
    read_celeba_partition,
    read_names,
    read_segnet_list,
)
from adlbench.datasets.formats.omniglot import read_omniglot
from adlbench.datasets.formats.text import characters, encode, read_json, read_text, words
from adlbench.datasets.formats.yolo import read_yolo_classes, read_yolo_labels

QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refuses(read: Callable[[Path], Any], path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read(path)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


# ----------------------------------------------------------------------------------------------------------------- yolo
def boxes(path: Path) -> Any:
    return read_yolo_labels(path, {0: 0, 17: 1})


def test_yolo(tmp_path: Path) -> None:
    path = tmp_path / "1.txt"
    path.write_text("17 0.5 0.4 0.2 0.4\n\n0 0.25 0.25 0.5 0.5\r\n")
    found = boxes(path)
    np.testing.assert_allclose(found.boxes, [[0.4, 0.2, 0.6, 0.6], [0, 0, 0.5, 0.5]], atol=1e-7)
    assert found.label.tolist() == [1, 0]
    path.write_text("0 0.1 0.2 0.5 0.2 0.5 0.9")
    found = boxes(path)
    np.testing.assert_allclose(found.boxes, [[0.1, 0.2, 0.5, 0.9]], atol=1e-7)
    assert found.polygons[0].shape == (3, 2)
    assert boxes(tmp_path / "none.txt").boxes.shape == (0, 4)  # no objects, no file


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "neither a box"),
        ("0", "neither a box"),
        ("0 1 2 3 4 5 6 7", "neither a box"),
        ("0 0.5 0.5 -0.2 0.2", "negative size"),
        ("0 nan 0.5 0.2 0.2", "not finite"),
        ("0 1e999 0.5 0.2 0.2", "not finite"),
        ("0 320 240 64 48", "must be shares"),
        ("0 0.95 0.5 0.4 0.2", "must be shares"),
        ("3 0.5 0.5 0.2 0.2", "class 3 is not one"),
        ("-1 0.5 0.5 0.2 0.2", "class -1 is not one"),
        ("0.5 0.5 0.5 0.2 0.2", "not a class and numbers"),
        ("dog 0.5 0.5 0.2 0.2", "not a class and numbers"),
        ("0 0.5 0.5 0.2 0.2\n0 0 0 1 0 1 1", "mixes boxes and polygons"),
        ("\x00\x00\x00\x00", "not a class and numbers"),
    ],
)
def test_damaged_yolo_labels(tmp_path: Path, line: str, message: str) -> None:
    assert message in refuses(boxes, tmp_path / "1.txt", b"17 0.5 0.5 0.1 0.1\n" + line.encode())


def test_yolo_classes(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("names: {5: dog, 1: cat}\n")
    assert read_yolo_classes(path) == {1: "cat", 5: "dog"}
    path.write_text("names: [dog, cat]\n")
    assert read_yolo_classes(path) == {0: "dog", 1: "cat"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"names:",
        b"names: []",
        b"names: {a: dog}",
        b"names: {0: [1]}",
        b"names: {-1: dog}",
        b"names: {true: dog}",
        b"names: [" + b"a," * 300 + b"]",
        b"names: {0: 'dog",
        b"names:\n\t- dog",
        b"- 1",
        b"!!python/object/apply:os.system [touch it_ran]",
        b"[" * 100_000,
        b"\xff\xfe",
        b"a: &a [x]\nb: &b [*a,*a]\nnames: *b",
    ],
)
def test_damaged_yolo_classes(tmp_path: Path, content: bytes) -> None:
    refuses(read_yolo_classes, tmp_path / "config.yaml", content)
    assert not Path("it_ran").exists()


# ---------------------------------------------------------------------------------------------------------------- lists
def test_segnet_list(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\n")
    assert read_segnet_list(path) == [(tmp_path / "train/a.png", tmp_path / "trainannot/a.png")]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"a/b.png",
        b"a/b.png c/d.png e/f.png",
        b"b.png d.png",
        b"../b.png a/d.png",
        b"a/.. a/d.png",
        b"/b.png /d.png",
        b"a/\0.png a/d.png",
        b"\xff\xfe",
    ],
)
def test_damaged_segnet_lists(tmp_path: Path, line: bytes) -> None:
    refuses(read_segnet_list, tmp_path / "train.txt", line)


def test_celeba_lists(tmp_path: Path) -> None:
    (tmp_path / "attributes").write_bytes(ATTRIBUTES)
    found = read_celeba_attributes(tmp_path / "attributes")
    assert (found.files, found.names) == (("000001.jpg", "000002.jpg"), ("Smiling", "Male"))
    assert found.values.tolist() == [[False, True], [True, False]]
    (tmp_path / "partition").write_text("000001.jpg 0\n000002.jpg 2\n")
    assert read_celeba_partition(tmp_path / "partition") == {"000001.jpg": 0, "000002.jpg": 2}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"2\n",
        b"two\n" + ATTRIBUTES[2:],
        ATTRIBUTES.replace(b"2\n", b"3\n", 1),
        ATTRIBUTES.replace(b"2\n", b"99999999999999\n", 1),
        ATTRIBUTES.replace(b"2\n", b"-2\n", 1),
        ATTRIBUTES[:-3],
        ATTRIBUTES.replace(b"-1", b"nan"),
        ATTRIBUTES.replace(b"-1", b"0"),
        ATTRIBUTES.replace(b"000002", b"../002"),
        ATTRIBUTES.replace(b"000002", b"000001"),
        ATTRIBUTES.replace(b"Male", b"Smiling"),
        ATTRIBUTES.replace(b" Male", b""),
        ATTRIBUTES.decode().encode("utf-16"),
    ],
)
def test_damaged_celeba_attributes(tmp_path: Path, content: bytes) -> None:
    refuses(read_celeba_attributes, tmp_path / "attributes.txt", content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a.jpg",
        b"a.jpg 3",
        b"a.jpg -1",
        b"a.jpg 0 1",
        b"a.jpg nan",
        b"../a.jpg 0",
        b"/etc/passwd 0",
        b"a\\b 0",
        b"\xff 0",
    ],
)
def test_damaged_celeba_partitions(tmp_path: Path, content: bytes) -> None:
    refuses(read_celeba_partition, tmp_path / "partition.txt", content)


def test_captions_in_both_layouts(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_bytes(CAPTIONS)
    assert read_captions(tmp_path / "captions.txt") == {
        "a.jpg": ("A dog .", "A dog , and a cat ."),
        "b.jpg": ("Two cats .",),
    }
    (tmp_path / "token.txt").write_text("a.jpg#0\tA dog .\na.jpg#1\tA cat , too .\n")
    found = read_captions(tmp_path / "token.txt")
    assert found == {"a.jpg": ("A dog .", "A cat , too .")}
    array = padded_captions([found["a.jpg"], ("É",)])
    assert array.shape == (2, 2, 13)
    assert bytes(array[1, 0]).rstrip(b"\0").decode() == "É"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"image,caption\n",
        b"image,caption\na.jpg\n",
        b"image,caption\na.jpg,A dog, a cat\n",
        b'image,caption\na.jpg,"A dog\n',
        b'image,caption\na.jpg,"A" dog\n',
        b"image,caption\na.jpg, \n",
        b"image,caption\n../a.jpg,A dog\n",
        b"image,caption\n/etc/passwd,A dog\n",
        b"image,caption\na.jpg," + b"x" * 200_000,
        b"image,caption\na.jpg,\xff\xfe\n",
        b"a.jpg A dog\n",
        b"a.jpg#x\tA dog\n",
        b"#0\tA dog\n",
    ],
)
def test_damaged_captions(tmp_path: Path, content: bytes) -> None:
    refuses(read_captions, tmp_path / "captions.txt", content)


def test_names_are_plain(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg \n\n")
    assert read_names(tmp_path / "list.txt") == ("a.jpg", "b.jpg")
    for content in (b"", b"..", b"../a.jpg", b"/a.jpg", b"a\\b.jpg", b"a\0.jpg", b"x" * 300, b"\xff"):
        refuses(read_names, tmp_path / "list.txt", content)


# ------------------------------------------------------------------------------------------------------------- omniglot
def with_member(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


WHOLE = omniglot_zip()


def test_omniglot(tmp_path: Path) -> None:
    names = ("Greek/character02/0002_10", "Greek/character02/0002_02", "Balinese/character01/0001_01")
    (tmp_path / "set.zip").write_bytes(omniglot_zip(names))
    found = read_omniglot(tmp_path / "set.zip")
    assert found.classes == ("Balinese/character01", "Greek/character02")
    assert (found.label.tolist(), found.drawer.tolist()) == ([0, 1, 1], [1, 2, 10])
    assert found.image.shape == (3, 105, 105)
    assert set(np.unique(found.image)) == {0, 255}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:-10],
        WHOLE[:200] + b"\0" * 50 + WHOLE[250:],
        with_member("images/Greek/character01/0001_01.png", b""),
        with_member("images/Greek/character01/0001_01.png", picture("png", "1", (105, 104))),
        with_member("images/Greek/character01/0001_01.png", b"\0" * (2 << 20)),
        with_member("images/Greek/character01/0001_xx.png", picture("png", "1", (105, 105))),
        with_member("images/../../0001_01.png", picture("png", "1", (105, 105))),
        with_member("0001_01.png", picture("png", "1", (105, 105))),
        with_member("__MACOSX/x", b""),
        omniglot_zip().replace(b"\x08\x00", b"\x63\x00"),  # a compression that nobody knows
    ],
)
def test_damaged_omniglot_zips(tmp_path: Path, content: bytes) -> None:
    refuses(read_omniglot, tmp_path / "set.zip", content)


@QUICK
@given(position=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
def test_another_byte_of_a_zip_is_read_or_refused(tmp_path: Path, position: int, value: int) -> None:
    content = bytearray(WHOLE)
    content[position] = value
    path = tmp_path / "set.zip"
    path.write_bytes(content)
    found = read_or_refused(read_omniglot, path)
    assert found is None or found.image.shape[1:] == (105, 105)


# ----------------------------------------------------------------------------------------------------------------- text
@QUICK
@given(text=st.text(max_size=200))
def test_text_comes_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "input.txt"
    path.write_bytes(text.encode())
    assert read_text(path) == text.removeprefix("\ufeff")
    vocabulary = characters(text)
    indices = encode(text, {character: index for index, character in enumerate(vocabulary)}, "x")
    assert "".join(vocabulary[index] for index in indices) == text


def test_words_are_counted_as_wikitext_does() -> None:
    assert words(" = a b = \n \n c\n") == ["=", "a", "b", "=", "<eos>", "<eos>", "c", "<eos>"]
    assert words("a\nb") == ["a", "<eos>", "b", "<eos>"]
    assert encode(["a", "x"], {"<unk>": 0, "a": 1}, "text").tolist() == [1, 0]
    with pytest.raises(DataError, match=r"text: token 1, 'x'"):
        encode(["a", "x"], {"a": 1}, "text")


def test_text_that_is_not_read(tmp_path: Path) -> None:
    assert "byte 3" in refuses(read_text, tmp_path / "a.txt", b"abc\xff")
    refuses(lambda path: read_text(path, 10), tmp_path / "a.txt", b"x" * 11)
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for name in ("none", "pipe", "."):
        with pytest.raises(DataError, match="does not exist"):
            read_text(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": NaN}', b"[-Infinity]", b"[" * 100_000, b"9" * 10_000, b"\xff", b"'a'"]
)
def test_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    refuses(read_json, tmp_path / "a.json", content)
