"""A results folder with records and exhibits of every kind, some of them with hostile names, and its frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adlbench.benchmark.exhibits import write_exhibits
from adlbench.benchmark.records import Latency, Record, write_arrays, write_json, write_record
from adlbench.benchmark.tasks.base import Exhibit

EVIL = "<script>alert(1)</script>"
PATH = "../../x"
QUOTES = "\"'></script><img src=x onerror=alert(2)>&amp;\u2028"
SPECS = {
    "psnr": {"direction": "up", "unit": "dB", "primary": True, "margin": None},
    "lpips": {"direction": "down", "unit": "", "primary": False, "margin": None},
}
METHODS = {"sharp": 31.0, "blurred": 27.5, "nearest": 20.0, "also_sharp": 30.9}
BY_SEED = {"sharp": (0.0, 0.3, -0.2), "also_sharp": (0.2, 0.1, 0.0)}  # too near to each other to be separated


def exhibits(rng: np.random.Generator) -> dict[str, Exhibit]:
    pictures = rng.integers(0, 255, (4, 3, 20, 24, 3), dtype=np.uint8)
    views = dict(zip(("truth", "prediction", "error", "depth"), pictures))
    points = rng.normal(size=(2, 300, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (2, 300)).astype(np.uint8)
    sphere = points[0] / np.linalg.norm(points[0], axis=1, keepdims=True)
    vertices = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=np.float32)
    faces = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    mesh = {"true_points_0": sphere, "true_normals_0": sphere, "vertices_0": vertices, "faces_0": faces}
    names = ["cup", EVIL, QUOTES]
    small = rng.integers(0, 255, (12, 8, 8, 3), dtype=np.uint8)
    three = rng.integers(0, 3, 12)
    return {
        "views": Exhibit("views", views),
        "samples": Exhibit("samples", {"image": small, "nearest": small}),
        "paths": Exhibit("strip", {"image": small.reshape(2, 6, 8, 8, 3)}),
        "parts": Exhibit(
            "clouds", {"points": points, "truth": labels, "prediction": labels[::-1].copy()}, {"labels": names}
        ),
        "shapes": Exhibit("meshes", mesh),
        "confusion matrix": Exhibit("confusion", {"counts": np.diag([5, 3, 2]) + 1}, {"labels": names}),
        EVIL: Exhibit(
            "embedding",
            {"xy": rng.normal(size=(12, 2)), "truth": three, "prediction": three[::-1].copy(), "image": small},
            {"labels": names},
        ),
        PATH: Exhibit("maps", {"image": small[:2], "occlusion": small[2:4]}, {"captions": [EVIL, QUOTES]}),
        "unknown": Exhibit("of the future", {"a": np.zeros(3)}),
    }


def make_world(results_dir: Path) -> pd.DataFrame:
    """Four methods with three seeds on two scenes' tables, one of them also in another fidelity; and hostile rows."""
    rng = np.random.default_rng(0)
    cells: list[dict[str, Any]] = []
    for dataset, shift in (("scene", 0.0), ("hall", -3.0)):
        for method, quality in METHODS.items():
            for seed in range(3):
                values = {
                    "psnr": quality + shift + BY_SEED.get(method, (0.0, 0.1, -0.1))[seed],
                    "lpips": 0.5 - quality / 100,
                }
                cells.append(_cell(dataset=dataset, method=method, seed=seed, values=values, number=len(cells)))
    cells.append(_cell(dataset="scene", method="sharp", fidelity="full", values={"psnr": 35.0}, number=len(cells)))
    cells.append(_cell(dataset="scene", method=EVIL, values={"psnr": 25.0}, number=len(cells), hardware=QUOTES))
    cells.append(_cell(dataset=PATH, method=PATH, task=EVIL, values={"psnr": 25.0}, number=len(cells)))
    cells.append(_cell(dataset="hall", method=QUOTES, status="failed", values={}, number=len(cells)))
    for index, cell in enumerate(cells):
        if cell["method"] in METHODS and cell["fidelity"] == "short":
            _write_folder(results_dir, cell, exhibits(rng) if index < 6 else {}, rng)
    return pd.DataFrame(cells)


def earlier_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """All runs: of each commit b... one, and before it one of commit a... that was worse by 5 dB and as fast."""
    earlier = frame.assign(git_commit="a" * 40, start_time=frame["start_time"] - 10**8)
    earlier["metric.psnr"] -= 5
    return pd.concat([earlier, frame], ignore_index=True)


def write_comparison(path: Path) -> Path:
    """What ``adlbench compare`` writes of two commits, with findings of every kind."""
    interval = {"low": 0.06, "estimate": 0.08, "high": 0.1}
    control = {"low": -0.01, "estimate": 0.0, "high": 0.01}
    verdict = {"change": interval, "control": control, "rounds": 40}
    speed = [
        {"group": EVIL, "what": "train", "outcome": "slower", "reason": QUOTES, "verdict": verdict, "memory_mb": None},
        {"group": "a/b", "what": "memory", "outcome": "heavier", "reason": "", "verdict": None, "memory_mb": [100.0, 100.0, 125.0]},
        {"group": "a/b", "what": "inference", "outcome": "could not run", "reason": PATH, "verdict": None, "memory_mb": None},
    ]  # fmt: skip
    values = {"base": 0.9, "head": 0.8, "change": -0.1, "low": -0.12, "high": float("nan"), "margin": 0.01, "seeds": 5}
    accuracy = [
        {"group": QUOTES, "metric": "psnr", "outcome": "worse", "reason": "", "verdict": values},
        {"group": "a/b", "metric": "", "outcome": "pass", "reason": "equal to the bit", "verdict": None},
    ]
    text = {"verdict": "slower or less accurate", "hardware": EVIL, "started": "2026-01-01T00:00:00", "command": QUOTES}
    commits = {side: {"name": EVIL, "commit": letter * 40} for side, letter in (("base", "a"), ("head", "b"))}
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**text, **commits, "speed": speed, "accuracy": accuracy}), encoding="utf-8")
    return path


def _cell(*, values: dict[str, float], number: int, **axes: Any) -> dict[str, Any]:
    base = {
        "task": "nvs", "protocol": "p@1", "dataset": "scene", "instance": "all", "fidelity": "short", "seed": 0,
        "hardware": "cpu", "precision": "fp32", "fingerprint": "aa", "status": "done", "throughput_unit": "rays",
        "metric_specs": json.dumps(SPECS), "references": "[]", "absent": json.dumps({"lpips": EVIL}),
        "start_time": 1_790_000_000_000 + number, "cell_key": f"key{number}", "run": "0" * 32,
        "git_commit": "b" * 40, "experiment_id": "7",
    }  # fmt: skip
    cell = {**base, **axes}
    cell["trivial"] = cell["method"] == "nearest"
    costs = {"throughput": 1000.0 + 300 * number, "train_seconds": 10.0 + number, "num_parameters": 1e4}
    costs |= {"peak_memory_mb": 500.0, "latency_p50_ms/batch1": 3.0 + number}
    return cell | {f"metric.{name}": value for name, value in (values | costs).items()}


def _write_folder(results_dir: Path, cell: dict[str, Any], shown: dict[str, Exhibit], rng: np.random.Generator) -> None:
    folder = results_dir / "runs" / cell["task"] / cell["dataset"] / cell["method"] / cell["fidelity"]
    folder /= f"seed{cell['seed']}-{cell['cell_key']}"
    specification = {
        "parameters": {"learning_rate": 1e-3, EVIL: QUOTES},
        "budget": {"steps": 100, "seconds": None},
        "precision": "fp32",
        "device": "cpu",
        "method": {"title": EVIL, "paper": QUOTES},
        "dataset": {"title": PATH},
    }
    record = Record(
        cell_key=cell["cell_key"], name=PATH, status="done", task=cell["task"], kind="nvs", protocol="p@1",
        dataset=cell["dataset"], instance="all", method=cell["method"], fidelity="short", seed=cell["seed"],
        started="2026-01-01T00:00:00+00:00", metrics={"psnr": cell["metric.psnr"]}, absent={"lpips": QUOTES},
        notes={EVIL: EVIL}, specification=specification, accounts={"setup": 1.0, "train": 9.0}, wall_seconds=10.0,
        latency=[Latency(1, 1, 2.0, 3.0, 500.0)], hardware="cpu", code={"commit": EVIL, "version": QUOTES},
        environment={"packages": {EVIL: "1.0"}, "gpu": QUOTES},
    )  # fmt: skip
    write_record(folder, record)
    steps = np.arange(1, 41)
    curve = [{"step": int(s), "seconds": s / 4, "loss": float(1 / s), "eval/psnr": float(20 + 0.4 * s)} for s in steps]
    write_json(folder / "curve.json", curve)
    write_arrays(folder / "items.npz", {"psnr": rng.normal(cell["metric.psnr"], 2, 30)})
    (folder / "log.txt").write_text(f"{EVIL}\n{QUOTES}\nlast line\n", encoding="utf-8")
    write_exhibits(folder, shown)
