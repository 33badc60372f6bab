"""Keeps what a generator made, so that it is made once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adlbench.benchmark.api import data_cache

Arrays = dict[str, np.ndarray]


def cached(name: str, version: int, parameters: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """``make()``, or what it returned before for the same ``name``, ``version`` of the generator and ``parameters``.

    The file appears under its name only when it is whole, so that several processes may ask at once and one may be
    killed. A file that cannot be read is made again.
    """
    key = json.dumps({"version": version, **parameters}, sort_keys=True)
    path = data_cache() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {field: archive[field] for field in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        arrays = make()
        _write(path, arrays)
        return arrays


def _write(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
