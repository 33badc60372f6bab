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

from adlbench.benchmark.leaderboard.frame import no_collection
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
    frame: pd.DataFrame  # of all boards; methods are named as in their rows
    indices: NDArray[np.intp]  # of this board's rows in it

    @property
    def cells(self) -> pd.DataFrame:
        return self.frame.iloc[self.indices]


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
    result = []
    with no_collection():
        table = _SeedTable(frame)
        for key, indices in _groups(frame, GROUP):
            board, values = _board(dict(zip(GROUP, key)), frame, indices, table)
            result.append(FullBoard(board, values, frame, indices))
    _explain_splits([found.board for found in result])
    return result


def _groups(frame: pd.DataFrame, columns: list[str]) -> list[tuple[tuple[str, ...], NDArray[np.intp]]]:
    """Row numbers of each combination, in the order of the values as text."""
    codes, names = _combined(frame, columns)
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


def _combined(frame: pd.DataFrame, columns: list[str]) -> tuple[NDArray[np.int64], list[NDArray[Any]]]:
    """One number for each combination of values, in their order as text; the values of each column."""
    codes = np.zeros(len(frame), dtype=np.int64)
    names: list[NDArray[Any]] = []
    for column in columns:
        code, values = _coded(frame[column])
        names.append(values)
        codes = codes * len(values) + code
    return codes, names


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


def _data_versions(frame: pd.DataFrame) -> pd.Categorical:
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
    names = [f"version {number + 1}" for number in range(int(versions.max()) + 1)]
    return pd.Categorical.from_codes(versions, categories=names)  # type: ignore[call-overload]


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
        codes, names = _combined(frame, [*GROUP, "method"])
        found, self.group = np.unique(codes, return_inverse=True)  # of each row: its (board, method)
        self.methods = [str(name) for name in names[-1][found % len(names[-1])]]
        self.size = len(self.methods)
        self.seed = frame["seed"].to_numpy(dtype=np.int64)
        self.instance = _coded(frame["instance"])[0]
        self.status = frame["status"].astype(object).to_numpy()
        self.done = self.status == "done"
        self.cells = np.argsort(self.group, kind="stable")
        self.bounds = np.searchsorted(self.group[self.cells], np.arange(self.size + 1))  # of each group, in ``cells``
        done = np.flatnonzero(self.done)
        self.num_done = np.bincount(self.group[done], minlength=self.size)
        self.num_seeds = _num_distinct(self.group[done], self.seed[done], self.size)
        self.last_done = np.full(self.size, -1)
        self.last_done[self.group[done]] = done  # where several are assigned the last one stays
        self.trivial = frame["trivial"].to_numpy(dtype=bool)[self.cells[self.bounds[1:] - 1]]
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
        wanted = _num_distinct(group, self.instance[order], self.size)
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


def _num_distinct(group: NDArray[np.int64], value: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """How many different values (0 or more) each group has."""
    if len(value) == 0 or value.max() == 0:
        return np.minimum(np.bincount(group, minlength=size), 1)
    base = int(value.max()) + 1
    return np.bincount(np.unique(group * base + value) // base, minlength=size)


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
    groups = np.unique(table.group[indices])  # neighbours, because the method is the last part of their order
    board.rows = _rows(range(int(groups[0]), int(groups[-1]) + 1), table, specs)
    values = _rank(board, table, groups)
    _gaps(board, json.loads(last["references"]))
    sign = -1.0 if specs[primary]["direction"] == "up" else 1.0
    quality = {row.method: sign * row.metrics[primary].mean for row in board.rows if primary in row.metrics}
    board.rows.sort(key=lambda row: (row.rank is None, row.rank, quality.get(row.method, math.inf), row.method))
    _find_pareto_fronts(board, quality)
    return board, values


def _rows(groups: range, table: _SeedTable, specs: dict[str, Any]) -> list[Row]:
    metrics = [(name, table.values(f"metric.{name}")) for name in specs]
    latencies = [c for c in table.frame.columns if c.startswith("metric.latency_p50_ms/batch")]
    latencies = sorted(latencies, key=lambda column: int(column.rpartition("batch")[2]))
    throughput, seconds = table.values("metric.throughput"), table.values("metric.train_seconds")
    device, resident = table.values("metric.peak_device_memory_mb"), table.values("metric.peak_memory_mb")
    parameters = table.values("metric.num_parameters")
    rows = []
    for g in groups:
        row = Row(table.methods[g], None, bool(table.trivial[g]), int(table.num_seeds[g]))
        rows.append(row)
        low, high = table.bounds[g], table.bounds[g + 1]
        if table.num_done[g] < high - low:
            statuses = table.status[table.cells[low:high]].tolist()
            row.failures = dict(sorted(Counter(str(s) for s in statuses if s != "done").items()))
        if table.num_done[g] == 0:
            continue
        row.metrics = {name: value for name, values in metrics if (value := values[g]) is not None}
        absent = table.absent[table.last_done[g]]
        if absent != "{}":
            row.absent = {k: v for k, v in json.loads(absent).items() if k not in row.metrics}
        row.throughput, row.train_seconds = throughput[g], seconds[g]
        row.latency_ms = next((v for column in latencies if (v := table.values(column)[g]) is not None), None)
        row.memory_mb = device[g] or resident[g]
        count = parameters[g]
        row.num_parameters = count.mean if count else None
    return rows


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
    return math.nan if value is None else value.mean if type(value) is Value else value  # type: ignore[no-any-return]


def _find_pareto_fronts(board: Board, quality: dict[str, float]) -> None:
    better = [-quality.get(row.method, math.nan) for row in board.rows]
    for cost, direction in PARETO.items():
        sign = 1.0 if direction == "up" else -1.0
        points = np.array([better, [sign * quantity(row, cost) for row in board.rows]], dtype=np.float64)
        front = pareto_front(points.T).tolist()
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
