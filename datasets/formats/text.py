"""Plain text and JSON, read with a bound on size, and the two ways of cutting a text into tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from adlbench.benchmark.api import DataError

MAX_BYTES = 1 << 31  # of one file; COCO's largest annotation file has 0.5 GB
END_OF_LINE, UNKNOWN = "<eos>", "<unk>"


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The file's UTF-8 text, line ends as they are but for a byte order mark. Raises DataError naming file and place."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; put the file there")
    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(f"{path} has {size:,} bytes, more than the {max_bytes:,} that are read; is it the right file?")
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text at byte {error.start:,}; convert or fetch it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); put the file there again") from None


def read_lines(path: Path, max_bytes: int = MAX_BYTES) -> list[tuple[int, str]]:
    """(number, text) of the lines that are not blank, counted from 1."""
    lines = read_text(path, max_bytes).split("\n")
    return [(number, line.rstrip("\r")) for number, line in enumerate(lines, start=1) if line.strip()]


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """The file's value. NaN and Infinity, which are not JSON, are errors."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    try:
        return json.loads(read_text(path, max_bytes), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON ({str(error)[:160]}); it is damaged or another file: fetch it again"
        ) from None


def characters(text: str) -> tuple[str, ...]:
    """The distinct characters by code point, as char-rnn and nanoGPT count them."""
    return tuple(sorted(set(text)))


def words(text: str) -> list[str]:
    """Words as they are separated by blanks, and ``<eos>`` at the end of every line, as WikiText's authors count them."""
    tokens: list[str] = []
    lines = text.split("\n")
    for line in lines[:-1] if not lines[-1] else lines:
        tokens += line.split()
        tokens.append(END_OF_LINE)
    return tokens


def encode(tokens: str | list[str], vocabulary: Mapping[str, int], name: str) -> np.ndarray:
    """int64 [N]: each token's place in ``vocabulary``; one that is not in it counts as ``<unk>`` where that is in it."""
    fallback = vocabulary.get(UNKNOWN, -1)
    indices = np.fromiter((vocabulary.get(token, fallback) for token in tokens), dtype=np.int64, count=len(tokens))
    if fallback < 0 and (indices < 0).any():
        place = int(np.flatnonzero(indices < 0)[0])
        raise DataError(
            f"{name}: token {place:,}, {tokens[place]!r}, does not occur in the training text; correct the file"
        )
    return indices
