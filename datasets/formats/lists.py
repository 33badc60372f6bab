"""Lists that go with folders of pictures: SegNet's pairs of paths, CelebA's attributes and partition, captions."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.text import read_lines, read_text

MAX_LIST_BYTES = 1 << 28
MAX_FIELD = 1 << 16  # characters of one caption


def read_segnet_list(path: Path) -> list[tuple[Path, Path]]:
    """(image, labels) for each line of a SegNet list, as paths below the list's folder.

    The published lists name files by the authors' absolute paths (``/SegNet/CamVid/train/x.png``): the last folder and the
    file name are taken. Raises DataError for lines that are not two such paths, and for an empty list.
    """
    pairs = []
    for number, line in read_lines(path, MAX_LIST_BYTES):
        names = line.split()
        if len(names) != 2:
            raise DataError(f"{path}, line {number}: {len(names)} paths, not an image and its labels; correct the line")
        image, labels = (_below(path, number, name) for name in names)
        pairs.append((image, labels))
    if not pairs:
        raise DataError(f"{path} is empty; it must have a line for each image")
    return pairs


def _below(path: Path, number: int, name: str) -> Path:
    parts = PurePosixPath(name).parts[-2:]
    if len(parts) < 2 or ".." in parts or parts[0] == "/" or "\0" in name:
        raise DataError(f"{path}, line {number}: {name!r} is not FOLDER/FILE; correct the line")
    return path.parent.joinpath(*parts)


@dataclass(frozen=True)
class CelebAttributes:
    files: tuple[str, ...]  # N names
    names: tuple[str, ...]  # A attributes
    values: np.ndarray  # bool [N, A]


def read_celeba_attributes(path: Path) -> CelebAttributes:
    """``list_attr_celeba.txt``: the number of images, the attributes' names, then a line of 1 and -1 for each image."""
    lines = read_lines(path, MAX_LIST_BYTES)
    if len(lines) < 3 or not lines[0][1].strip().isdecimal():
        raise DataError(f"{path} does not begin with a number of images and names of attributes; fetch it again")
    count, names = lines[0][1].strip(), tuple(lines[1][1].split())
    if count != str(len(lines) - 2):
        raise DataError(f"{path} announces {count[:20]} images and has {len(lines) - 2}; fetch it again")
    files, values = [], np.empty((len(lines) - 2, len(names)), dtype=bool)
    for row, (number, line) in enumerate(lines[2:]):
        file, *words = line.split()
        if len(words) != len(names) or not set(words) <= {"1", "-1"}:
            raise DataError(
                f"{path}, line {number}: not {len(names)} times 1 or -1; correct the line or fetch it again"
            )
        files.append(_plain_name(path, number, file))
        values[row] = [word == "1" for word in words]
    if len(set(files)) != len(files) or len(set(names)) != len(names):
        raise DataError(f"{path} names an image or an attribute twice; fetch it again")
    return CelebAttributes(tuple(files), names, values)


def read_celeba_partition(path: Path) -> dict[str, int]:
    """``list_eval_partition.txt``: 0 (train), 1 (validation) or 2 (test) for each image."""
    partition = {}
    for number, line in read_lines(path, MAX_LIST_BYTES):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise DataError(f"{path}, line {number}: not a file and 0, 1 or 2; correct the line or fetch it again")
        partition[_plain_name(path, number, words[0])] = int(words[1])
    if not partition:
        raise DataError(f"{path} is empty; fetch it again")
    return partition


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Image -> its captions, in the file's order.

    ``captions.txt`` is a CSV with the header ``image,caption``; ``Flickr8k.token.txt`` has ``IMAGE#0<tab>CAPTION`` lines.
    """
    text = read_text(path, MAX_LIST_BYTES)
    captions: dict[str, list[str]] = {}
    for number, name, caption in _csv_rows(path, text) if text.startswith("image,caption") else _token_rows(path, text):
        if not caption.strip() or len(caption) > MAX_FIELD:
            raise DataError(f"{path}, line {number}: {name!r} has an empty or endless caption; correct the line")
        captions.setdefault(_plain_name(path, number, name), []).append(caption.strip())
    if not captions:
        raise DataError(f"{path} holds no captions; fetch it again")
    return {name: tuple(lines) for name, lines in captions.items()}


def _csv_rows(path: Path, text: str) -> list[tuple[int, str, str]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    rows = []
    try:
        for row in reader:
            if reader.line_num == 1 or not row:
                continue
            if len(row) != 2:
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} columns, not image and caption; quote the caption"
                )
            rows.append((reader.line_num, row[0], row[1]))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error}); fetch it again") from None
    return rows


def _token_rows(path: Path, text: str) -> list[tuple[int, str, str]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        key, tab, caption = line.rstrip("\r").partition("\t")
        name, mark, index = key.rpartition("#")
        if not tab or not mark or not index.isdecimal():
            raise DataError(
                f"{path}, line {number}: neither 'image,caption' at the top nor IMAGE#N<tab>CAPTION; fetch it again"
            )
        rows.append((number, name, caption))
    return rows


def read_names(path: Path) -> tuple[str, ...]:
    """One file name a line, as in ``Flickr_8k.trainImages.txt``."""
    names = tuple(_plain_name(path, number, line.strip()) for number, line in read_lines(path, MAX_LIST_BYTES))
    if not names:
        raise DataError(f"{path} is empty; fetch it again")
    return names


def _plain_name(path: Path, number: int, name: str) -> str:
    if not name or name in (".", "..") or any(c in name for c in "/\\\0") or len(name) > 255:
        raise DataError(f"{path}, line {number}: {name[:80]!r} is not a plain file name; correct the line")
    return name


def padded_captions(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """uint8 [N, K, B]: UTF-8, filled up with 0 to the most captions of an image and the most bytes of a caption."""
    lines = [[line.encode() for line in image] for image in captions]
    count = max(map(len, lines))
    result = np.zeros((len(lines), count, max(len(line) for image in lines for line in image)), dtype=np.uint8)
    for row, image in enumerate(lines):
        for column, content in enumerate(image):
            result[row, column, : len(content)] = np.frombuffer(content, dtype=np.uint8)
    return result
