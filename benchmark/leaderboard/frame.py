"""MLflow -> one pandas row for each cell. Read-only SQL on the sqlite store, tag-filtered searches on a server."""

from __future__ import annotations

import contextlib
import gc
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from pydantic_core import from_json

from adlbench.benchmark.tracking import EXPERIMENT_PREFIX, ROW_AXES, ROW_TAG, default_uri, search_cells

AXES = ["task", "protocol", "dataset", "instance", "method", "fidelity", "seed", "hardware", "fingerprint"]
SHARED = ("metric_specs", "references")  # long, and the same for all cells of a task: read once for each

_RUNS = """
SELECT r.run_uuid, r.start_time FROM runs r JOIN experiments e USING (experiment_id)
WHERE e.name LIKE ? AND r.lifecycle_stage = 'active'
"""
# In the order of the file: in that of the index, which is by run, it takes a third longer.
_ROWS = "SELECT run_uuid, value FROM tags WHERE rowid IN (SELECT rowid FROM tags WHERE key = ? ORDER BY rowid)"
# Runs of an earlier version, and what did not fit into one tag. NaN and curves are left out.
_TAGS = "SELECT run_uuid AS run, key, value FROM tags WHERE key NOT LIKE 'mlflow.%' AND run_uuid IN "
_METRICS = (
    "SELECT run_uuid AS run, key, value FROM latest_metrics "
    "WHERE is_nan = 0 AND key NOT LIKE 'train/%' AND run_uuid IN "
)
_AT_ONCE = 500  # runs in one question: sqlite takes 999 variables


@contextmanager
def no_collection() -> Iterator[None]:
    """Without Python's search for cycles: half a million values that hold none cost it half a second."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def cell_frame(results_dir: Path, *, latest: bool = True) -> pd.DataFrame:
    """One row for each cell: tags by name, metrics as ``metric.<name>``, ``run`` the run's id; of a cell with several runs
    (retries) the one that started last. Without ``latest``, all runs in the order of their start: its history.
    Raises AdlbenchError when there is no store."""
    uri = default_uri(results_dir)
    frame = _from_sqlite(uri) if uri.startswith("sqlite:///") else _wide(*_from_server(uri))
    if frame.empty:
        return pd.DataFrame(columns=[*AXES, "status", "cell_key"])
    order = np.argsort(frame["start_time"].to_numpy(dtype=np.int64), kind="stable")
    if not (np.diff(order) == 1).all():
        frame = frame.iloc[order]
    return newest(frame) if latest else frame.reset_index(drop=True)


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """Of runs in the order of their start the last one of each cell."""
    repeated = frame["cell_key"].duplicated(keep="last")
    return (frame[~repeated] if repeated.any() else frame).reset_index(drop=True)


def _from_sqlite(uri: str) -> pd.DataFrame:
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.exists():
        from adlbench.benchmark.errors import AdlbenchError

        raise AdlbenchError(
            f"{path.name}: there are no results yet in {path.parent}; start with `adlbench run suite=demo`"
        )
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        starts = dict(connection.execute(_RUNS, (EXPERIMENT_PREFIX + "%",)))
        with no_collection():
            rows = _rows(connection.execute(_ROWS, (ROW_TAG,)), starts)
        if not rows.empty:
            _add_shared(rows, connection)
        tags, metrics = (_of_runs(question, list(starts), connection) for question in (_TAGS, _METRICS))
    if tags.empty:
        return rows
    wide = tags.pivot(index="run", columns="key", values="value")
    wide["start_time"] = wide.index.map(starts)
    others = _wide(wide, metrics.pivot(index="run", columns="key", values="value"))
    if rows.empty or others.empty:
        return others if rows.empty else rows
    return pd.concat([rows, others], ignore_index=True)


def _of_runs(question: str, runs: list[str], connection: sqlite3.Connection) -> pd.DataFrame:
    found: list[tuple[str, str, Any]] = []
    for start in range(0, len(runs), _AT_ONCE):
        part = runs[start : start + _AT_ONCE]
        found += connection.execute(f"{question}({','.join('?' * len(part))})", part)
    return pd.DataFrame(found, columns=["run", "key", "value"])


def _rows(cursor: sqlite3.Cursor, started: dict[str, int]) -> pd.DataFrame:
    """From ROW_TAG of the runs in ``started``, which are taken out of it; a thousand at a time, because all of them as
    Python objects would take half a gigabyte."""
    runs: list[str] = []
    starts: list[int] = []
    absent: list[str] = []
    keys: list[str] = []
    axes: list[list[int]] = [[] for _ in ROW_AXES]
    known: list[dict[str, int]] = [{} for _ in ROW_AXES]
    columns: dict[str, list[float]] = {}
    nan = float("nan")
    while found := cursor.fetchmany(1000):
        found = [pair for pair in found if pair[0] in started]
        parsed = from_json("[" + ",".join([value for _, value in found]) + "]")
        runs += [run for run, _ in found]
        starts += [started.pop(run) for run, _ in found]
        absent += [json.dumps(reasons) if reasons else "{}" for _, _, reasons in parsed]
        for axis, column, codes, values in zip(ROW_AXES, zip(*(cell for cell, _, _ in parsed)), axes, known):
            if axis == "cell_key":  # as many as rows
                keys += column
                continue
            distinct = set(column)
            for value in distinct - values.keys():
                values[value] = len(values)
            codes.extend(map(values.__getitem__, column) if len(distinct) > 1 else [values[column[0]]] * len(column))
        expected = list(columns)
        same = all(map(expected.__eq__, map(list, (metrics for _, metrics, _ in parsed))))  # as a rule
        if same:
            for name, numbers in zip(columns, zip(*(metrics.values() for _, metrics, _ in parsed))):
                columns[name] += numbers
        else:
            for name in dict.fromkeys(name for _, metrics, _ in parsed for name in metrics if name not in columns):
                columns[name] = [nan] * (len(runs) - len(parsed))
            for name, series in columns.items():
                series += [metrics.get(name, nan) for _, metrics, _ in parsed]
    if not runs:
        return pd.DataFrame()
    data: dict[str, Any] = {"run": np.array(runs, dtype=object), "start_time": starts, "absent": pd.Categorical(absent)}
    for axis, codes, values in zip(ROW_AXES, axes, known):
        data[axis] = pd.Categorical.from_codes(codes, categories=list(values))  # type: ignore[call-overload]
    data["cell_key"] = np.array(keys, dtype=object)
    data["seed"] = data["seed"].astype(int)
    data["trivial"] = data["trivial"] == "true"
    return pd.DataFrame(data | {f"metric.{name}": np.array(values) for name, values in sorted(columns.items())})


def _add_shared(rows: pd.DataFrame, connection: sqlite3.Connection) -> None:
    """The long tags, of the last run of each task, protocol, dataset and fidelity, for all of its runs."""
    groups = rows.groupby(["task", "protocol", "dataset", "fidelity"], observed=True)
    number = groups.ngroup().to_numpy()
    order = np.lexsort((rows["start_time"].to_numpy(), number))
    last = order[np.flatnonzero(np.diff(number[order], append=-1))]  # row numbers, by group
    for key in SHARED:
        values = []
        for group in range(len(last)):
            query = "SELECT value FROM tags WHERE key = ? AND run_uuid = ?"
            values.append(connection.execute(query, (key, rows["run"].iloc[last[group]])).fetchone()[0])
        distinct = list(dict.fromkeys(values))
        places = np.array([distinct.index(value) for value in values])
        rows[key] = pd.Categorical.from_codes(places[number], categories=distinct)  # type: ignore[call-overload]


def _wide(tags: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Tags and metrics by run, joined."""
    if tags.empty or "seed" not in tags:  # runs of invocations have no seed
        return pd.DataFrame()
    frame = tags.join(metrics.add_prefix("metric."), how="left")
    frame = frame[frame["kind"] == "cell"].rename_axis("run").reset_index()
    frame["seed"] = frame["seed"].astype(int)
    frame["trivial"] = frame["trivial"] == "true"
    return frame


def _from_server(uri: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    tags, metrics = search_cells(uri)
    wide = pd.DataFrame.from_dict(tags, orient="index")
    return wide.drop(columns=[ROW_TAG], errors="ignore"), pd.DataFrame.from_dict(metrics, orient="index")
