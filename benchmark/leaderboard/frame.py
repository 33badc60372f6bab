"""MLflow -> one pandas row for each cell. Read-only SQL on the sqlite store, tag-filtered searches on a server."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.tracking import EXPERIMENT_PREFIX, default_uri, search_cells

AXES = ["task", "protocol", "dataset", "instance", "method", "fidelity", "seed", "hardware", "fingerprint"]

# The same cell may have several runs (retries); the last one that started counts. NaN and curves are left out.
_RUNS = """
SELECT r.run_uuid AS run, r.start_time, t.key, t.value
FROM runs r JOIN experiments e USING (experiment_id) JOIN tags t USING (run_uuid)
WHERE e.name LIKE ? AND r.lifecycle_stage = 'active' AND t.key NOT LIKE 'mlflow.%'
"""
_METRICS = """
SELECT m.run_uuid AS run, m.key, m.value
FROM latest_metrics m JOIN runs r USING (run_uuid) JOIN experiments e USING (experiment_id)
WHERE e.name LIKE ? AND r.lifecycle_stage = 'active' AND m.is_nan = 0 AND m.key NOT LIKE 'train/%'
"""


def cell_frame(results_dir: Path, *, latest: bool = True) -> pd.DataFrame:
    """One row for each cell: tags by name, metrics as ``metric.<name>``. Raises AdlbenchError when there is no store.

    Without ``latest``, one row for each run of a cell: its history."""
    uri = default_uri(results_dir)
    tags, metrics = _from_sqlite(uri) if uri.startswith("sqlite:///") else _from_server(uri)
    if tags.empty:
        return pd.DataFrame(columns=[*AXES, "status", "cell_key"])
    frame = tags.join(metrics.add_prefix("metric."), how="left")
    frame = frame[frame["kind"] == "cell"].sort_values("start_time", kind="stable")
    if latest:
        frame = frame.drop_duplicates("cell_key", keep="last")
    frame = frame.reset_index(drop=True)
    frame["seed"] = frame["seed"].astype(int)
    frame["trivial"] = frame["trivial"] == "true"
    return frame


def _from_sqlite(uri: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.exists():
        raise AdlbenchError(
            f"{path.name}: there are no results yet in {path.parent}; start with `adlbench run suite=demo`"
        )
    pattern = (EXPERIMENT_PREFIX + "%",)
    with sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True) as connection:
        tags = pd.read_sql(_RUNS, connection, params=pattern)
        metrics = pd.read_sql(_METRICS, connection, params=pattern)
    wide = tags.pivot(index="run", columns="key", values="value")
    wide["start_time"] = tags.groupby("run")["start_time"].first()
    return wide, metrics.pivot(index="run", columns="key", values="value")


def _from_server(uri: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    tags, metrics = search_cells(uri)
    return pd.DataFrame.from_dict(tags, orient="index"), pd.DataFrame.from_dict(metrics, orient="index")
