"""Keeps what a generator made, so that it is made once, whichever of several processes asks first.

A cache entry is a folder: one ``.npy`` a field, and ``manifest.json`` with the checksum of each. Entries are never changed
in place, so that whoever has one mapped keeps reading what it opened.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from adlbench.benchmark.api import DataError, data_cache

Arrays = dict[str, np.ndarray]
MANIFEST = "manifest.json"


class _Damaged(Exception):
    """The entry is absent, incomplete, or not what was written."""


def cached(name: str, version: int, parameters: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """``make()``, or what it returned before for the same ``name``, ``version`` of the generator and ``parameters``.

    The arrays are mapped from files, copy-on-write: all processes of a machine share the memory of what they only read,
    and nothing that a process writes reaches the file or another process. Of several processes that ask at once, one makes
    and the others wait; when the maker is killed the next one goes on in its place. A damaged entry is made again. Raises
    DataError where the cache cannot be written.
    """
    key = json.dumps({"version": version, **parameters}, sort_keys=True)
    folder = data_cache() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    try:
        return _open(folder)
    except _Damaged:
        pass
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")  # the system releases it however its holder ends
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise _unwritable(folder, error) from None
    try:
        try:
            return _open(folder)  # another process made it meanwhile
        except _Damaged:
            _write(folder, make())
            return _open(folder)
    finally:
        lock.release()


def _open(folder: Path) -> Arrays:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {field: _map(folder / f"{field}.npy", checksum) for field, checksum in manifest.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise _Damaged(str(error)) from None


def _map(path: Path, checksum: int) -> np.ndarray:
    # The sum is taken over the whole file, header included, before anything in it is believed. A power cut may leave a
    # file of the right length without its content.
    if _checksum(path) != checksum:
        raise _Damaged(f"{path} has changed")
    # "c" and not "r": torch takes no read-only memory, and pages nobody writes are shared all the same.
    array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


def _checksum(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return zlib.crc32(content)


def _write(folder: Path, arrays: Arrays) -> None:
    """Must hold the entry's lock."""
    for left in folder.parent.glob(f"{folder.name}.*.part"):  # by makers that were killed
        shutil.rmtree(left, ignore_errors=True)
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir()
        for field, array in arrays.items():
            np.save(part / f"{field}.npy", array, allow_pickle=False)
        manifest = {field: _checksum(part / f"{field}.npy") for field in arrays}
        (part / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unwritable(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"the cache {folder.parent} cannot be written ({error}); free some space there or set XDG_CACHE_HOME to another folder"
    )
