"""Leaderboards: one for each group of cells that may be compared, with the reason where the cells of a task had to split."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adlbench.benchmark.leaderboard.statistics import pareto_front, shared_ranks, t_critical

GROUP = ["task", "protocol", "dataset", "fidelity", "hardware", "fingerprints"]
SPLITS = ("protocol", "fidelity", "hardware", "fingerprint")  # what two boards of one task and dataset may differ in
PARETO = {
    "throughput": "up",
    "latency_ms": "down",
    "memory_mb": "down",
    "train_seconds": "down",
    "num_parameters": "down",
}


SeedValues = dict[str, dict[int, float]]  # method -> seed -> mean over instances
SeedMeans = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]  # group, seed, mean over instances


@dataclass(slots=True)
class Value:
    mean: float
    interval: float | None = None  # half-width of the 95 % t-interval over seeds; None for one seed
    n: int = 1


@dataclass(slots=True)
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
    pareto: dict[str, list[str]] = field(default_factory=dict)  # cost -> methods that none beats in it and in quality

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def boards(frame: pd.DataFrame) -> list[Board]:
    """All leaderboards in ``frame`` (one row for each cell), in the order of their names."""
    return [found.board for found in full_boards(frame)]


@dataclass
class FullBoard:
    board: Board
    values: SeedValues  # of the primary metric
    cells: pd.DataFrame  # methods are named as in the board's rows


def full_boards(frame: pd.DataFrame) -> list[FullBoard]:
    """Each board with what it was made of."""
    if frame.empty:
        return []
    frame = frame.copy(deep=False)
    # A method in another precision is another row: it is the method's choice, and a part of what is compared.
    other = (frame["precision"] != "fp32").to_numpy()
    if other.any():
        named = frame["method"].astype(object)
        frame["method"] = named.where(~other, named + " " + frame["precision"].astype(object))
    frame["fingerprints"] = _data_versions(frame)
    table = _SeedTable(frame)
    result = []
    for key, indices in _groups(frame, GROUP):
        board, values = _board(dict(zip(GROUP, key)), frame, indices, table)
        result.append(FullBoard(board, values, frame.iloc[indices]))
    _explain_splits([found.board for found in result])
    return result


def _groups(frame: pd.DataFrame, columns: list[str]) -> list[tuple[tuple[str, ...], NDArray[np.intp]]]:
    """Row numbers of each combination, in the order of the values as text."""
    codes = np.zeros(len(frame), dtype=np.int64)
    names: list[NDArray[Any]] = []
    for column in columns:
        code, values = _coded(frame[column])
        names.append(values)
        codes = codes * len(values) + code
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    found = []
    for indices in np.split(order, starts[1:]):
        rest, key = int(codes[indices[0]]), []
        for values in reversed(names):
            rest, place = divmod(rest, len(values))
            key.append(str(values[place]))
        found.append((tuple(reversed(key)), indices))
    return found


def _coded(column: pd.Series) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Codes and values, the values sorted. A categorical column has its codes already."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        values = column.cat.categories.to_numpy().astype(object)
        codes = column.cat.codes.to_numpy().astype(np.int64)
    else:
        codes, found = pd.factorize(column.astype(object).fillna(""))
        values = np.asarray(found, dtype=object)
    order = np.argsort(values.astype(str), kind="stable")
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return places[codes], values[order]


def _data_versions(frame: pd.DataFrame) -> NDArray[Any]:
    """A version of the data for each row: rows of one instance with different bytes never share a board.

    Rows that failed before the data was read have no fingerprint; they go with the latest version of their instance.
    """
    prints, values = _coded(frame["fingerprint"])
    versions = np.zeros(len(frame), dtype=np.int64)
    for _, indices in _groups(frame, ["task", "dataset", "instance"]):
        seen = {int(p): i for i, p in enumerate(x for x in dict.fromkeys(prints[indices].tolist()) if values[x] != "")}
        if len(seen) > 1:
            latest = len(seen) - 1
            versions[indices] = [seen.get(p, latest) for p in prints[indices].tolist()]
    return np.char.add("version ", (versions + 1).astype(str)).astype(object)


def _explain_splits(found: list[Board]) -> None:
    pairs: dict[tuple[str, str], list[Board]] = {}
    for board in found:
        pairs.setdefault((board.task, board.dataset), []).append(board)
    for group in pairs.values():
        if len(group) == 1:
            continue
        reasons = []
        for axis in SPLITS:
            values = sorted({getattr(board, axis) for board in group})
            if len(values) > 1:
                listed = ", ".join(values[:4]) + (", ..." if len(values) > 4 else "")
                reasons.append(f"{axis} ({listed})")
        for board in group:
            board.split_because = f"not comparable: cells differ in {' and in '.join(reasons)}"


class _SeedTable:
    """Means over instances for each (board, method, seed), for one metric at a time and all boards at once.

    Only seeds that have every instance count, so that means compare like with like.
    """

    def __init__(self, frame: pd.DataFrame):
        self.frame = frame
        self.group = np.zeros(len(frame), dtype=np.int64)  # of each row: its (board, method)
        self.methods: dict[int, str] = {}
        for number, (key, indices) in enumerate(_groups(frame, [*GROUP, "method"])):
            self.group[indices] = number
            self.methods[number] = key[-1]
        self.size = len(self.methods)
        self.seed = frame["seed"].to_numpy(dtype=np.int64)
        self.instance = _coded(frame["instance"])[0]
        self.status = frame["status"].astype(object).to_numpy()
        self.done = self.status == "done"
        self.trivial = frame["trivial"].to_numpy(dtype=bool)
        self.absent = frame["absent"].astype(object).to_numpy()
        self._order = np.lexsort((self.seed, self.group))
        self._values: dict[str, list[Value | None]] = {}
        self._by_seed: dict[str, SeedMeans] = {}

    def by_seed(self, column: str) -> SeedMeans:
        if column not in self._by_seed:
            self._by_seed[column] = self._means(column)
        return self._by_seed[column]

    def _means(self, column: str) -> SeedMeans:
        """(group, seed, mean over instances), sorted by group and seed."""
        if column not in self.frame:
            empty = np.empty(0, dtype=np.int64)
            return empty, empty, np.empty(0)
        values = self.frame[column].to_numpy(dtype=np.float64)
        order = self._order[(self.done & ~np.isnan(values))[self._order]]
        group, seed, value = self.group[order], self.seed[order], values[order]
        starts = np.flatnonzero((np.diff(group, prepend=-1) != 0) | (np.diff(seed, prepend=-1) != 0))
        if len(starts) == 0:
            return group, seed, value
        pairs = np.unique(group * (self.instance.max() + 1) + self.instance[order]) // (self.instance.max() + 1)
        wanted = np.bincount(pairs, minlength=self.size)
        count = np.diff(starts, append=len(order))
        means = np.add.reduceat(value, starts) / count
        whole = count == wanted[group[starts]]
        return group[starts][whole], seed[starts][whole], means[whole]

    def values(self, column: str) -> list[Value | None]:
        """Mean over seeds with its t-interval, for each group."""
        if column not in self._values:
            group, _, means = self.by_seed(column)
            n = np.bincount(group, minlength=self.size)
            total = np.bincount(group, weights=means, minlength=self.size)
            mean = total / np.maximum(n, 1)
            square = np.bincount(group, weights=(means - mean[group]) ** 2, minlength=self.size)
            critical = np.array([t_critical(k - 1) if k > 1 else np.nan for k in range(int(n.max(initial=0)) + 1)])
            interval = critical[n] * np.sqrt(square / np.maximum(n - 1, 1) / np.maximum(n, 1))
            self._values[column] = [
                None if k == 0 else Value(m, None if k == 1 else i, k)
                for m, i, k in zip(mean.tolist(), interval.tolist(), n.tolist())
            ]
        return self._values[column]


def _board(
    group: dict[str, Any], frame: pd.DataFrame, indices: NDArray[np.intp], table: _SeedTable
) -> tuple[Board, SeedValues]:
    last = frame.iloc[indices[-1]]
    specs = json.loads(last["metric_specs"])
    primary = next((name for name, spec in specs.items() if spec["primary"]), next(iter(specs)))
    instances = sorted(map(str, frame["instance"].iloc[indices].unique()))
    fingerprints = [text for text in frame["fingerprint"].iloc[indices].unique() if text]
    board = Board(
        task=group["task"],
        dataset=group["dataset"],
        protocol=group["protocol"],
        fidelity=group["fidelity"],
        hardware=group["hardware"],
        fingerprint=group["fingerprints"] if len(instances) > 1 else "".join(fingerprints[-1:])[:12],
        instances=instances,
        primary=primary,
        metrics=specs,
        throughput_unit=str(last["throughput_unit"]),
        rows=[],
    )
    members = indices[np.argsort(table.group[indices], kind="stable")]
    starts = np.flatnonzero(np.diff(table.group[members], prepend=-1))
    latencies = sorted(
        (c for c in frame.columns if c.startswith("metric.latency_p50_ms/batch")),
        key=lambda c: int(c.rpartition("batch")[2]),
    )
    board.rows = [_row(cells, table, specs, latencies) for cells in np.split(members, starts[1:])]
    values = _rank(board, table, np.unique(table.group[members]))
    _gaps(board, json.loads(last["references"]))
    sign = -1.0 if specs[primary]["direction"] == "up" else 1.0
    quality = {row.method: sign * row.metrics[primary].mean for row in board.rows if primary in row.metrics}
    board.rows.sort(key=lambda row: (row.rank is None, row.rank, quality.get(row.method, math.inf), row.method))
    for cost, direction in PARETO.items():
        _find_pareto_front(board, cost, direction, quality)
    return board, values


def _row(cells: NDArray[np.intp], table: _SeedTable, specs: dict[str, Any], latencies: list[str]) -> Row:
    group = int(table.group[cells[0]])
    done = cells[table.done[cells]]
    row = Row(
        method=table.methods[group],
        rank=None,
        trivial=bool(table.trivial[cells[-1]]),
        n=len(set(table.seed[done].tolist())),
    )
    if len(done) < len(cells):
        row.failures = dict(sorted(Counter(str(s) for s in table.status[cells] if s != "done").items()))
    if len(done) == 0:
        return row
    for name in specs:
        value = table.values(f"metric.{name}")[group]
        if value is not None:
            row.metrics[name] = value
    absent = table.absent[done[-1]]
    if absent != "{}":
        row.absent = {k: v for k, v in json.loads(absent).items() if k not in row.metrics}
    row.throughput = table.values("metric.throughput")[group]
    row.latency_ms = next((v for v in (table.values(c)[group] for c in latencies) if v is not None), None)
    row.train_seconds = table.values("metric.train_seconds")[group]
    row.memory_mb = table.values("metric.peak_device_memory_mb")[group] or table.values("metric.peak_memory_mb")[group]
    parameters = table.values("metric.num_parameters")[group]
    row.num_parameters = parameters.mean if parameters else None
    return row


def _rank(board: Board, table: _SeedTable, groups: NDArray[np.int64]) -> SeedValues:
    group, seed, means = table.by_seed(f"metric.{board.primary}")
    low, high = np.searchsorted(group, [groups[0], groups[-1] + 1])
    values: SeedValues = {}
    for g, s, mean in zip(group[low:high].tolist(), seed[low:high].tolist(), means[low:high].tolist()):
        values.setdefault(table.methods[g], {})[s] = mean
    ranks = shared_ranks(values, board.metrics[board.primary]["direction"])
    for row in board.rows:
        row.rank = ranks.get(row.method)
    return values


def quantity(row: Row, name: str) -> float:
    """A row's cost as a number, NaN where there is none."""
    value = getattr(row, name)
    return math.nan if value is None else float(value.mean if isinstance(value, Value) else value)


def _find_pareto_front(board: Board, cost: str, direction: str, quality: dict[str, float]) -> None:
    sign = 1.0 if direction == "up" else -1.0
    points = [(-quality.get(row.method, math.nan), sign * quantity(row, cost)) for row in board.rows]
    front = pareto_front(np.array(points, dtype=np.float64).reshape(-1, 2))
    board.pareto[cost] = [row.method for row, on in zip(board.rows, front) if on]


def _gaps(board: Board, references: list[dict[str, Any]]) -> None:
    sign = 1.0 if board.metrics[board.primary]["direction"] == "up" else -1.0
    trivial = [row.metrics[board.primary].mean for row in board.rows if row.trivial and board.primary in row.metrics]
    best = max(trivial, key=lambda value: sign * value) if trivial else None
    references = [r for r in references if r["dataset"] == board.dataset and board.primary in r]
    for row in board.rows:
        if board.primary not in row.metrics:
            continue
        mean = row.metrics[board.primary].mean
        if best is not None and not row.trivial:
            row.gap_to_trivial = sign * (mean - best)
        for reference in references:
            if reference["method"] == row.method.partition(" ")[0]:
                instance = reference.get("instance")
                if instance is None or board.instances == [instance]:
                    row.gap_to_reference = sign * (mean - float(reference[board.primary]))
                    row.reference_source = reference["source"]
