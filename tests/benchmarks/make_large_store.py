"""Writes a store as a large benchmark would leave it: MLflow makes the tables, SQL fills them in bulk.

python tests/benchmarks/make_large_store.py FOLDER [datasets methods seeds]     default: 50 400 5, 100,000 runs
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adlbench.benchmark.tracking import ROW_TAG, Tracker, row_tag

TASKS = 5  # experiments
METRICS = {
    "top1": {"direction": "up", "unit": "", "primary": True, "margin": 0.01},
    "mean_accuracy": {"direction": "up", "unit": "", "primary": False, "margin": 0.01},
    "nll": {"direction": "down", "unit": "nats", "primary": False, "margin": 0.05},
    "ece": {"direction": "down", "unit": "", "primary": False, "margin": 0.02},
}
COSTS = {
    "throughput": 1000.0,
    "train_seconds": 100.0,
    "train_cpu_seconds": 100.0,
    "wall_seconds": 120.0,
    "peak_memory_mb": 500.0,
    "num_parameters": 1e5,
    "train_step_flops": 1e9,
    "inference_flops": 1e6,
    "latency_p50_ms/batch1": 1.0,
    "latency_p95_ms/batch1": 2.0,
    "inference_throughput/batch1": 1000.0,
    "latency_p50_ms/batch32": 10.0,
    "latency_p95_ms/batch32": 20.0,
    "inference_throughput/batch32": 3000.0,
    "steps": 1000.0,
    "seconds/setup": 1.0,
    "seconds/train": 90.0,
    "seconds/data": 5.0,
    "seconds/evaluate": 5.0,
    "seconds/measure": 1.0,
    "seconds/checkpoint": 1.0,
    "seconds/log": 1.0,
    "seconds/other": 1.0,
    "train/loss": 0.1,
    "train/accuracy": 0.9,
}
REFERENCES = [{"method": "method_0001", "dataset": "dataset_00", "top1": 0.99, "source": "a paper, table 1"}]


SECONDARY = ("index_tags_run_uuid", "index_latest_metrics_run_uuid")


def cells(datasets: int, methods: int, seeds: int) -> Iterator[tuple[int, int, int, int]]:
    number = 0
    for dataset in range(datasets):
        for method in range(methods):
            for seed in range(seeds):
                yield number, dataset, method, seed
                number += 1


def make_store(folder: Path, datasets: int = 50, methods: int = 400, seeds: int = 5) -> Path:
    """``folder/mlflow.db`` with datasets x methods x seeds runs, with every tag and metric that the tracker writes."""
    folder.mkdir(parents=True, exist_ok=True)
    tracker = Tracker(folder, "large", "2026-01-01T00:00:00Z")
    experiments = [int(tracker._experiment(f"task_{index}")) for index in range(TASKS)]
    rng = np.random.default_rng(0)
    skill = rng.normal(0.8, 0.05, methods)
    difficulty = rng.normal(0.0, 0.05, datasets)
    path = folder / "mlflow.db"
    with sqlite3.connect(path) as connection:
        for pragma in ("synchronous = OFF", "journal_mode = OFF", "cache_size = -2000000"):
            connection.execute(f"PRAGMA {pragma}")
        indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE name IN (?, ?)", SECONDARY).fetchall()
        for name, _ in indexes:  # made again at the end: filled row by row they take ten times as long
            connection.execute(f"DROP INDEX {name}")
        runs: list[tuple[object, ...]] = []
        tags: list[tuple[str, str, str]] = []
        metrics: list[tuple[object, ...]] = []
        for number, dataset, method, seed in cells(datasets, methods, seeds):
            run, task, at = f"{rng.integers(2**62):032x}", dataset % TASKS, 1_700_000_000_000 + 1000 * number
            name = f"task_{task}/dataset_{dataset:02}/method_{method:04}/short/seed{seed}"
            runs.append((run, name, "FINISHED", at, at + 100_000, "active", f"file:///{run}", experiments[task]))
            values = {
                "kind": "cell",
                "task": f"task_{task}",
                "task_kind": "classification",
                "protocol": "top1@1",
                "dataset": f"dataset_{dataset:02}",
                "instance": "all",
                "method": f"method_{method:04}",
                "trivial": str(method == 0).lower(),
                "fidelity": "short",
                "seed": str(seed),
                "cell_key": f"{number:012x}",
                "status": "done",
                "reason": "",
                "device": "cpu",
                "precision": "fp32",
                "hardware": "Intel(R) Xeon(R) Processor, 1 thread",
                "fingerprint": f"{dataset:064x}",
                "git_commit": "0" * 40,
                "throughput_unit": "items",
                "metric_specs": json.dumps(METRICS),
                "references": json.dumps(REFERENCES),
                "absent": "{}",
                "invocation": "2026-01-01T00:00:00Z",
                "mlflow.parentRunId": "0" * 32,
                "mlflow.runName": name,
                "adlbench.delivered": "whole",
            }
            quality = float(np.clip(skill[method] + difficulty[dataset] + rng.normal(0, 0.01), 0.05, 0.999))
            scores = {"top1": quality, "mean_accuracy": quality - 0.01, "nll": 2 * (1 - quality), "ece": 0.02}
            spread = float(rng.lognormal(0, 0.2)) * (1 + method % 17)
            scores |= {key: value * spread for key, value in COSTS.items()}
            values[ROW_TAG] = row_tag(values, scores, {})
            tags += [(key, value, run) for key, value in values.items()]
            metrics += [(key, value, at, 1000, 0, run) for key, value in scores.items()]
        _insert(connection, runs, tags, metrics)
        for _, sql in indexes:
            connection.execute(sql)
    return path


def _insert(
    connection: sqlite3.Connection,
    runs: list[tuple[object, ...]],
    tags: list[tuple[str, str, str]],
    metrics: list[tuple[object, ...]],
) -> None:
    connection.executemany(
        "INSERT INTO runs (run_uuid, name, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id,"
        " source_type) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'UNKNOWN')",
        runs,
    )
    connection.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", tags)
    connection.executemany(
        "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)", metrics
    )


if __name__ == "__main__":
    print(make_store(Path(sys.argv[1]), *map(int, sys.argv[2:5])))
