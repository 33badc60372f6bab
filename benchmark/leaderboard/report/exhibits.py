"""Exhibits of a record -> what the page shows: addresses of pictures and of arrays, sizes, captions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlbench.benchmark.exhibits import read_exhibits
from adlbench.benchmark.leaderboard.report.assets import Assets, quantised, sheet

MAX_VERTICES = 6000  # of one mesh; finer ones are merged on a grid
Arrays = dict[str, NDArray[Any]]
Shown = dict[str, Any]


def shown_exhibits(folder: Path, assets: Assets) -> list[Shown]:
    """What the page shows of the cell in ``folder``; exhibits that are not as their kind says are left out."""
    result = []
    for title, kind, meta, arrays in read_exhibits(folder):
        convert = CONVERTERS.get(kind)
        if convert is None:
            continue
        try:
            result.append({"title": title, "kind": kind, **convert(arrays, meta, assets)})
        except (KeyError, ValueError, IndexError, TypeError):
            continue
    return result


def shown_pictures(folder: Path, assets: Assets) -> list[Shown]:
    """The pictures of ``folder/images``, by their names."""
    found = sorted((folder / "images").glob("*.png"))
    return [
        {"title": path.stem.replace("_", " "), "kind": "picture", "src": assets.file(path.read_bytes(), "png")}
        for path in found
        if path.stat().st_size < 4_000_000
    ]


def _views(arrays: Arrays, meta: Shown, assets: Assets) -> Shown:
    names = [name for name in ("truth", "prediction", "error", "depth") if name in arrays]
    count, height, width, _ = arrays["truth"].shape
    items = [{name: assets.picture(arrays[name][i]) for name in names} for i in range(count)]
    return {"items": items, "height": height, "width": width}


def _samples(arrays: Arrays, meta: Shown, assets: Assets) -> Shown:
    count, height, width, _ = arrays["image"].shape
    sheets = {name: assets.picture(sheet(arrays[name], 8)) for name in ("image", "nearest")}
    return {**sheets, "count": count, "columns": 8, "height": height, "width": width}


def _strip(arrays: Arrays, meta: Shown, assets: Assets) -> Shown:
    rows, steps, height, width, _ = arrays["image"].shape
    flat = arrays["image"].reshape(rows * steps, height, width, 3)
    return {"src": assets.picture(sheet(flat, steps)), "rows": rows, "steps": steps, "height": height, "width": width}


def _clouds(arrays: Arrays, meta: Shown, assets: Assets) -> Shown:
    items = []
    for points, truth, prediction in zip(arrays["points"], arrays["truth"], arrays["prediction"], strict=True):
        centre, extent = _frame(points)
        bundle: Arrays = {"points": quantised(points, centre, extent), "truth": truth, "prediction": prediction}
        items.append({"bundle": assets.bundle(bundle), "right": round(float((truth == prediction).mean()), 4)})
    return {"items": items, "labels": [str(label) for label in meta["labels"]]}


def _meshes(arrays: Arrays, meta: Shown, assets: Assets) -> Shown:
    items = []
    for index in range(sum(name.startswith("true_points_") for name in arrays)):
        points, normals = arrays[f"true_points_{index}"], arrays[f"true_normals_{index}"]
        vertices, faces = simplified(arrays[f"vertices_{index}"], arrays[f"faces_{index}"])
        centre, extent = _frame(points)
        bundle: Arrays = {
            "points": quantised(points, centre, extent),
            "normals": np.round(np.clip(normals, -1, 1) * 127).astype(np.int8),
            "vertices": quantised(vertices.reshape(-1, 3), centre, extent),
            "faces": faces.astype(np.uint16),
        }
        items.append({"bundle": assets.bundle(bundle), "faces": len(faces)})
    return {"items": items}


def _frame(points: NDArray[np.floating]) -> tuple[NDArray[np.floating], float]:
    """Centre of the bounding box, and the largest distance from it with a little room."""
    centre = (points.min(0) + points.max(0)) / 2
    return centre, 1.15 * float(np.linalg.norm(points - centre, axis=1).max())


def simplified(vertices: NDArray, faces: NDArray, limit: int = MAX_VERTICES) -> tuple[NDArray, NDArray]:
    """At most ``limit`` vertices: those in one cell of a grid become their mean, and faces that collapse are dropped."""
    vertices, faces = np.asarray(vertices, dtype=np.float32).reshape(-1, 3), np.asarray(faces).reshape(-1, 3)
    cells = 96
    while len(vertices) > limit:
        low, high = vertices.min(0), vertices.max(0)
        index = np.floor((vertices - low) / max(float((high - low).max()), 1e-9) * (cells - 1e-3)).astype(np.int64)
        _, place = np.unique(index, axis=0, return_inverse=True)
        place = place.reshape(-1)
        weight = np.bincount(place)[:, None]
        merged = np.stack([np.bincount(place, vertices[:, axis]) for axis in range(3)], axis=1) / weight
        faces = place[faces]
        distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
        vertices, faces, cells = merged.astype(np.float32), faces[distinct], max(2, cells * 3 // 4)
    return vertices, faces


def _confusion(arrays: Arrays, meta: Shown, assets: Assets) -> Shown:
    return {"counts": arrays["counts"].astype(int).tolist(), "labels": [str(label) for label in meta["labels"]]}


def _embedding(arrays: Arrays, meta: Shown, assets: Assets) -> Shown:
    xy = arrays["xy"] - arrays["xy"].mean(0)
    shown: Shown = {
        "xy": (1000 * xy / max(float(np.abs(xy).max()), 1e-9)).round().astype(int).tolist(),
        "truth": arrays["truth"].tolist(),
        "prediction": arrays["prediction"].tolist(),
        "labels": [str(label) for label in meta["labels"]],
    }
    if "image" in arrays:
        _, height, width, _ = arrays["image"].shape
        shown |= {"src": assets.picture(sheet(arrays["image"], 20)), "columns": 20, "height": height, "width": width}
    return shown


def _maps(arrays: Arrays, meta: Shown, assets: Assets) -> Shown:
    count, height, width, _ = arrays["image"].shape
    names = list(arrays)
    items = [{name: assets.picture(arrays[name][i]) for name in names} for i in range(count)]
    captions = [str(text) for text in meta["captions"]]
    return {"items": items, "names": names, "captions": captions, "height": height, "width": width}


CONVERTERS: dict[str, Callable[[Arrays, Shown, Assets], Shown]] = {
    "views": _views,
    "samples": _samples,
    "strip": _strip,
    "clouds": _clouds,
    "meshes": _meshes,
    "confusion": _confusion,
    "embedding": _embedding,
    "maps": _maps,
}
