"""Records on disk -> the pages of runs, learning curves, per-item results and seconds to quality."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from adlbench.benchmark.leaderboard.statistics import seconds_to_quality
from adlbench.benchmark.records import EVALUATED, read_arrays

CURVE_POINTS = 120  # of a learning curve on the page
LOG_LINES = 40
QUANTILES = 41


def folder_of(results_dir: Path, cell: Mapping[str, Any]) -> Path:
    """Where the runner puts a cell; names are its own, so that the path stays below ``results_dir``."""
    instance = "" if cell["instance"] == "all" else f".{cell['instance']}"
    method = str(cell["method"]).removesuffix(f" {cell['precision']}")  # as rows of another precision are named
    parts = (str(cell["task"]), f"{cell['dataset']}{instance}", method, str(cell["fidelity"]))
    name = f"seed{int(cell['seed'])}-{cell['cell_key']}"
    return results_dir.joinpath("runs", *parts, name)


def existing_folder(results_dir: Path, cell: Mapping[str, Any]) -> Path | None:
    folder, root = folder_of(results_dir, cell), (results_dir / "runs").resolve()
    if folder.resolve().is_relative_to(root) and (folder / "record.json").is_file():
        return folder
    return None


def read_json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default


def run_details(folder: Path, pool: Pool) -> dict[str, Any] | None:
    """What the page of one run shows. Parts that many runs share go into ``pool``."""
    record = read_json(folder / "record.json", None)
    if not isinstance(record, dict):
        return None
    specification = record.get("specification", {})
    overrides = [f"task={record['task']}", f"dataset={record['dataset']}", f"method={record['method']}"]
    overrides += [f"instance={record['instance']}"] if record["instance"] != "all" else []
    overrides += [
        f"seed={record['seed']}",
        f"fidelity={record['fidelity']}",
        f"device={specification.get('device', 'auto')}",
    ]
    kept = ("name", "status", "reason", "started", "metrics", "absent", "notes", "accounts", "wall_seconds", "cpu_seconds",
            "steps", "samples", "throughput", "throughput_unit", "latency", "peak_memory_mb", "peak_device_memory_mb",
            "num_parameters", "train_step_flops", "inference_flops", "energy_joules", "num_resumes", "hardware",
            "applied_presets", "data_fingerprint")  # fmt: skip
    details = {key: record.get(key) for key in kept}
    details["parameters"] = specification.get("parameters", {})
    details["budget"] = specification.get("budget", {})
    details["precision"] = specification.get("precision")
    for key in ("environment", "code"):
        details[key] = pool.add(record.get(key, {}))
    for key in ("method", "dataset"):
        card = {
            k: v for k, v in specification.get(key, {}).items() if k not in ("parameters", "presets", "budget") and v
        }
        details[f"{key}_card"] = pool.add(card)
    details["command"] = "adlbench run " + " ".join(shlex.quote(text) for text in overrides)
    details["curve"] = curve(folder)
    details["log"] = log_tail(folder)
    return details


class Pool:
    """Values that repeat, once each."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[str, int] = {}

    def add(self, value: Any) -> int:
        text = json.dumps(value, sort_keys=True, default=str)
        if text not in self._known:
            self._known[text] = len(self.values)
            self.values.append(value)
        return self._known[text]


def curve(folder: Path) -> dict[str, list[float | None]]:
    """Series by name, at most CURVE_POINTS points: means over equal parts of the curve, ends kept.

    What a protocol computed is not averaged: a part stands at its last evaluation, or at its end where it has none.
    """
    points = [p for p in read_json(folder / "curve.json", []) if isinstance(p, dict)]
    if not points:
        return {}
    names = list(dict.fromkeys(name for point in points for name in point))
    parts = np.array_split(np.arange(len(points)), min(CURVE_POINTS, len(points)))
    evaluated = np.array([any(name.startswith(EVALUATED) for name in point) for point in points])
    places = [part[evaluated[part]][-1] if evaluated[part].any() else part[-1] for part in parts]
    result = {}
    for name in names:
        values = np.array([point.get(name, np.nan) for point in points], dtype=np.float64)
        exact = name in ("step", "seconds") or name.startswith(EVALUATED)
        thinned = values[places].tolist() if exact else [_finite_mean(values[part]) for part in parts]
        result[name] = [rounded(value) for value in thinned]
    return result


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def rounded(value: float | None, digits: int = 5) -> float | None:
    """Fewer digits for a smaller page; None for what JSON cannot hold."""
    if value is None or not np.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def log_tail(folder: Path) -> str:
    try:
        data = (folder / "log.txt").read_bytes()[-8000:]
    except OSError:
        return ""
    return "\n".join(data.decode("utf-8", "replace").splitlines()[-LOG_LINES:])


def item_quantiles(folder: Path, metric: str) -> list[float | None] | None:
    """The metric's values over the test items at equal steps from the lowest to the highest; None for less than three
    different values, where a distribution says nothing."""
    try:
        values = read_arrays(folder / "items.npz").get(metric)
    except (OSError, ValueError):
        return None
    if values is None or len(values) < 8 or len(np.unique(values[np.isfinite(values)])) < 3:
        return None
    quantiles = np.nanquantile(values.astype(np.float64), np.linspace(0, 1, QUANTILES))
    return [rounded(float(value), 4) for value in quantiles]


def time_to_quality(
    series: Mapping[str, list[float | None]],
    metric: str,
    direction: str,
    target: float,
    final: float | None,
    seconds: float | None,
) -> tuple[float | None, bool] | None:
    """(seconds, exact): when ``target`` was first reached. From a curve of evaluations where there is one; else the end of
    training is an upper bound, if the final value is as good. None where it was not reached."""
    values = series.get(EVALUATED + metric)
    if values:
        pairs = [(s, v) for s, v in zip(series["seconds"], values) if s is not None and v is not None]
        reached = seconds_to_quality([s for s, _ in pairs], [v for _, v in pairs], target, direction)
        if reached is not None:
            return reached, True
    sign = 1.0 if direction == "up" else -1.0
    if final is not None and seconds is not None and sign * final >= sign * target:
        return seconds, False
    return None


def instance_means(cells: pd.DataFrame, metric: str) -> dict[str, dict[str, float]]:
    """method -> instance -> mean over seeds."""
    column = f"metric.{metric}"
    done = cells[cells["status"] == "done"]
    if column not in done:
        return {}
    means = done.dropna(subset=[column]).groupby(["method", "instance"], observed=True)[column].mean()
    result: dict[str, dict[str, float]] = {}
    for key, value in means.items():
        method, instance = cast(tuple[str, str], key)
        result.setdefault(str(method), {})[str(instance)] = float(value)
    return result
