"""Which files a dataset was read from, so that a change of the data is noticed without reading it again.

The first cell that loads a dataset instance notes every file and folder that was opened, with size and time of change.
Later a look at those is enough; only when one differs are the arrays loaded and their fingerprint computed anew.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from adlbench.benchmark.records import write_json

FILE = "inputs.json"
MOST = 5000  # files that are listed; of more, the first, and the folders that were listed
OUTSIDE = ("/proc/", "/sys/", "/dev/", sysconfig.get_paths()["stdlib"] + os.sep + "encodings")
EVENTS = ("open", "os.listdir", "os.scandir")
_watchers: list[set[str]] = []


@cache
def _install() -> None:
    """Python cannot take an audit hook away again, so there is one, which does nothing while nobody listens."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if _watchers and event in EVENTS and isinstance(arguments[0], (str, bytes, os.PathLike)):
            for seen in _watchers:
                seen.add(os.fsdecode(arguments[0]))

    sys.addaudithook(hook)


@contextmanager
def watching() -> Iterator[set[str]]:
    """Collects the paths that are opened inside."""
    _install()
    seen: set[str] = set()
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)


def note(folder: Path, seen: set[str], code: str) -> None:
    """Write what was read into the cell's folder, with a hash of the code that read it.

    Code and what the system tells of itself are not data.
    """
    paths = sorted({os.path.abspath(path) for path in seen if not path.endswith((".py", ".pyc", ".so"))})
    paths = [path for path in paths if not path.startswith(OUTSIDE)]
    files = [path for path in paths if os.path.isfile(path)][:MOST]
    _write(folder, [*files, *filter(os.path.isdir, paths)], code)


def changed(folder: Path, code: str) -> list[str]:
    """What is not as it was noted; empty where nothing was noted."""
    try:
        noted = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return []
    changes = [path for path, *stamp in noted["files"] if stamp != _stamp(path)]
    return [*changes, *(["the code that reads it"] if noted["code"] != code else [])]


def refresh(folder: Path, code: str) -> None:
    """What had changed was checked and means the same data: note it as it is now."""
    _write(folder, [path for path, *_ in json.loads((folder / FILE).read_text())["files"]], code)


def _write(folder: Path, paths: list[str], code: str) -> None:
    write_json(folder / FILE, {"code": code, "files": [[path, *_stamp(path)] for path in paths]})


def _stamp(path: str) -> list[int]:
    with suppress(OSError):
        found = os.stat(path)
        return [found.st_size, found.st_mtime_ns]
    return [-1, -1]
