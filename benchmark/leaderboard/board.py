"""Leaderboards: one for each group of cells that may be compared, with the reason where the cells of a task had to split."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from adlbench.benchmark.leaderboard.statistics import shared_ranks, t_interval

GROUP = ["task", "protocol", "dataset", "fidelity", "hardware", "fingerprints"]


@dataclass
class Value:
    mean: float
    interval: float | None = None  # half-width of the 95 % t-interval over seeds; None for one seed
    n: int = 1


@dataclass
class Row:
    method: str
    rank: int | None
    trivial: bool
    n: int  # seeds
    metrics: dict[str, Value] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # metric -> why it has no value
    throughput: Value | None = None  # of training, in the task's unit per second
    latency_ms: Value | None = None  # p50 of one inference at the smallest batch
    train_seconds: Value | None = None
    memory_mb: Value | None = None  # on the device where there is one
    num_parameters: float | None = None
    gap_to_trivial: float | None = None  # primary metric, positive is better than the best trivial method
    gap_to_reference: float | None = None  # primary metric, positive is better than the published number
    reference_source: str = ""
    failures: dict[str, int] = field(default_factory=dict)  # status -> cells


@dataclass
class Board:
    task: str
    dataset: str
    protocol: str
    fidelity: str
    hardware: str
    fingerprint: str  # of the data; several instances are joined by a hash
    instances: list[str]
    primary: str
    metrics: dict[str, dict[str, Any]]  # direction, unit, ...
    throughput_unit: str
    rows: list[Row]
    split_because: str = ""  # why this task and dataset have more than one board

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def boards(frame: pd.DataFrame) -> list[Board]:
    """All leaderboards in ``frame`` (one row for each cell), in the order of their names."""
    if frame.empty:
        return []
    frame = frame.copy()
    # A method in another precision is another row: it is the method's choice, and a part of what is compared.
    frame["method"] = frame["method"].where(frame["precision"] == "fp32", frame["method"] + " " + frame["precision"])
    frame["fingerprints"] = _joined_fingerprints(frame)
    result = [_board(dict(zip(GROUP, key)), cells) for key, cells in frame.groupby(GROUP, dropna=False, sort=True)]
    for (_, _), group in _by_pair(result):
        if len(group) > 1:
            axes = [
                axis
                for axis in ("protocol", "fidelity", "hardware", "fingerprint")
                if len({getattr(b, axis) for b in group}) > 1
            ]
            for board in group:
                board.split_because = f"not comparable: {', '.join(axes)} differ"
    return result


def _by_pair(found: list[Board]) -> Iterator[tuple[tuple[str, str], list[Board]]]:
    pairs: dict[tuple[str, str], list[Board]] = {}
    for board in found:
        pairs.setdefault((board.task, board.dataset), []).append(board)
    yield from pairs.items()


def _joined_fingerprints(frame: pd.DataFrame) -> pd.Series:
    """A version of the data for each row: rows of one instance with different bytes never share a board.

    Rows that failed before the data was read have no fingerprint; they go with the latest version of their instance.
    """
    keys = ["task", "dataset", "instance"]
    known = frame[frame["fingerprint"] != ""]
    versions = {
        key: {value: index for index, value in enumerate(dict.fromkeys(group["fingerprint"]))}
        for key, group in known.groupby(keys)
    }

    def version(row: pd.Series) -> str:
        mine = versions.get((row["task"], row["dataset"], row["instance"]), {"": 0})
        index = mine.get(row["fingerprint"], max(mine.values()))
        return f"version {index + 1}" if index else "version 1"

    return frame.apply(version, axis=1)


def _board(group: dict[str, Any], cells: pd.DataFrame) -> Board:
    last = cells.iloc[-1]
    specs = json.loads(last["metric_specs"])
    primary = next((name for name, spec in specs.items() if spec["primary"]), next(iter(specs)))
    rows = [_row(str(method), group_cells, specs) for method, group_cells in cells.groupby("method", sort=True)]
    board = Board(
        task=group["task"],
        dataset=group["dataset"],
        protocol=group["protocol"],
        fidelity=group["fidelity"],
        hardware=group["hardware"],
        fingerprint=group["fingerprints"] if cells["instance"].nunique() > 1 else str(last["fingerprint"])[:12],
        instances=sorted(cells["instance"].unique()),
        primary=primary,
        metrics=specs,
        throughput_unit=last["throughput_unit"],
        rows=rows,
    )
    _rank(board, cells)
    _gaps(board, json.loads(last["references"]))
    board.rows.sort(key=lambda row: (row.rank is None, row.rank, _signed(row, primary, specs), row.method))
    return board


def _signed(row: Row, primary: str, specs: dict[str, Any]) -> float:
    sign = -1.0 if specs[primary]["direction"] == "up" else 1.0
    return sign * row.metrics[primary].mean if primary in row.metrics else math.inf


def by_seed(cells: pd.DataFrame, column: str) -> dict[int, float]:
    """Mean over instances for each seed. Only seeds that have every instance count, so that means compare like with like."""
    if column not in cells:
        return {}
    valid = cells.dropna(subset=[column])
    if valid.empty:
        return {}
    wanted = valid["instance"].nunique()
    grouped = valid.groupby("seed")[column]
    means, counts = grouped.mean(), grouped.count()
    return {seed: float(means[seed]) for seed in map(int, means.index.to_numpy()) if counts[seed] == wanted}


def _value(cells: pd.DataFrame, column: str) -> Value | None:
    values = list(by_seed(cells, column).values())
    if not values:
        return None
    interval = t_interval(values)
    return Value(float(np.mean(values)), None if math.isnan(interval) else interval, len(values))


def _row(method: str, cells: pd.DataFrame, specs: dict[str, Any]) -> Row:
    done = cells[cells["status"] == "done"]
    statuses = cells["status"].value_counts()
    row = Row(
        method=method,
        rank=None,
        trivial=bool(cells["trivial"].iloc[-1]),
        n=int(done["seed"].nunique()),
        failures={str(status): int(count) for status, count in statuses.items() if status != "done"},
    )
    if done.empty:
        return row
    for name in specs:
        value = _value(done, f"metric.{name}")
        if value is not None:
            row.metrics[name] = value
    row.absent = {k: v for k, v in json.loads(done["absent"].iloc[-1]).items() if k not in row.metrics}
    row.throughput = _value(done, "metric.throughput")
    latencies = sorted(
        (c for c in done.columns if c.startswith("metric.latency_p50_ms/batch")),
        key=lambda c: int(c.rpartition("batch")[2]),
    )
    row.latency_ms = next((v for v in (_value(done, c) for c in latencies) if v is not None), None)
    row.train_seconds = _value(done, "metric.train_seconds")
    row.memory_mb = _value(done, "metric.peak_device_memory_mb") or _value(done, "metric.peak_memory_mb")
    parameters = _value(done, "metric.num_parameters")
    row.num_parameters = parameters.mean if parameters else None
    return row


def _rank(board: Board, cells: pd.DataFrame) -> None:
    done = cells[cells["status"] == "done"]
    values = {
        str(method): seeds
        for method, group in done.groupby("method")
        if (seeds := by_seed(group, f"metric.{board.primary}"))
    }
    ranks = shared_ranks(values, board.metrics[board.primary]["direction"])
    for row in board.rows:
        row.rank = ranks.get(row.method)


def _gaps(board: Board, references: list[dict[str, Any]]) -> None:
    sign = 1.0 if board.metrics[board.primary]["direction"] == "up" else -1.0
    trivial = [row.metrics[board.primary].mean for row in board.rows if row.trivial and board.primary in row.metrics]
    best = max(trivial, key=lambda value: sign * value) if trivial else None
    for row in board.rows:
        if board.primary not in row.metrics:
            continue
        mean = row.metrics[board.primary].mean
        if best is not None and not row.trivial:
            row.gap_to_trivial = sign * (mean - best)
        for reference in references:
            if (
                reference["method"] == row.method.partition(" ")[0]
                and reference["dataset"] == board.dataset
                and board.primary in reference
            ):
                instance = reference.get("instance")
                if instance is None or board.instances == [instance]:
                    row.gap_to_reference = sign * (mean - float(reference[board.primary]))
                    row.reference_source = reference["source"]
