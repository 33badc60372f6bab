"""Pictures and arrays of the page: files in a folder beside it, named by their content, or embedded in it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "report_files"


class Assets:
    """Gives each picture or bundle of arrays an address that the page can use from disk."""

    def __init__(self, out: Path, *, embed: bool):
        self.folder, self.embed = out / FOLDER, embed
        self.bundles: dict[str, dict[str, Any]] = {}  # embedded ones, by name
        self.bytes = 0

    def picture(self, pixels: NDArray[np.uint8]) -> str:
        """Address of a picture uint8 [H, W, 3]: a relative path or a data: URI."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        return self.file(buffer.getvalue(), "png")

    def file(self, data: bytes, suffix: str) -> str:
        self.bytes += len(data)
        if self.embed:
            return f"data:image/{suffix};base64,{base64.b64encode(data).decode()}"
        name = f"{hashlib.sha256(data).hexdigest()[:16]}.{suffix}"
        self._write(name, data)
        return f"{FOLDER}/{name}"

    def bundle(self, arrays: dict[str, NDArray[Any]]) -> str:
        """Name of a bundle of arrays, which the page loads as a script (a page on disk may not fetch)."""
        content = {name: packed(array) for name, array in arrays.items()}
        text = json.dumps(content, separators=(",", ":"), sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.bytes += len(text)
        if self.embed:
            self.bundles[name] = content
        else:
            self._write(f"{name}.js", f'adlbenchBundle("{name}",{text});\n'.encode())
        return name

    def _write(self, name: str, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        if not path.exists() or path.stat().st_size != len(data):  # named by content; made again at any time: no fsync
            path.write_bytes(data)


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """An array as base64, little endian, with its type and shape."""
    array = np.ascontiguousarray(array)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {"type": array.dtype.name, "shape": list(array.shape), "data": base64.b64encode(little.tobytes()).decode()}


def quantised(points: NDArray[np.floating], centre: NDArray[np.floating], extent: float) -> NDArray[np.int16]:
    """Positions as int16: ``extent`` from ``centre`` is 32767. A thousandth of a picture's pixel is not seen."""
    return np.round(np.clip((points - centre) / max(extent, 1e-12), -1, 1) * 32767).astype(np.int16)


def sheet(pictures: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """[N, H, W, 3] side by side, row by row, without gaps; the page cuts them out again."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    padded = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
    padded[:count] = pictures
    return padded.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
