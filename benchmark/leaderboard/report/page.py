"""``report.html``: one file that holds its style, its script and its data, and needs nothing from the network."""

from __future__ import annotations

import base64
import datetime
import gzip
import importlib.resources
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from adlbench import __version__
from adlbench.benchmark.leaderboard.board import PARETO, Board, FullBoard, Row, full_boards, quantity
from adlbench.benchmark.leaderboard.report import runs as run_folders
from adlbench.benchmark.leaderboard.report.assets import Assets
from adlbench.benchmark.leaderboard.report.changes import shown_comparison, shown_courses
from adlbench.benchmark.leaderboard.report.exhibits import shown_exhibits, shown_pictures
from adlbench.benchmark.leaderboard.report.runs import rounded
from adlbench.benchmark.leaderboard.summary import summaries, target_quality
from adlbench.benchmark.leaderboard.tables import mean_and_interval
from adlbench.benchmark.records import write_atomic

COSTS = ("throughput", "latency_ms", "memory_mb", "train_seconds", "num_parameters")
MAX_DETAILED = 2000  # runs with a page of their own; more would not fit into one file
SCRIPTS = ("base.js", "charts.js", "viewer.js", "exhibits.js", "changes.js", "pages.js")
PLAIN = 200_000  # bytes of data up to which it is not compressed, so that a person can read the source


@dataclass
class Report:
    path: Path
    boards: int
    runs: int
    page_bytes: int
    picture_bytes: int


def write_report(
    frame: pd.DataFrame,
    results_dir: Path,
    out: Path,
    *,
    embed: bool = False,
    runs: pd.DataFrame | None = None,
    comparisons: Sequence[Path] = (),
) -> Report:
    """``out/report.html``, and its pictures in ``out/report_files`` unless they are embedded.

    ``frame`` holds one row for each cell. ``runs``: all runs of them, earlier ones too, for their course over commits;
    ``comparisons``: files that ``adlbench compare`` wrote of two commits.
    """
    out.mkdir(parents=True, exist_ok=True)
    assets = Assets(out, embed=embed)
    found = full_boards(frame)
    data, details = payload(found, results_dir, assets)
    places = {method: place for place, method in enumerate(data["methods"])}
    data["courses"] = shown_courses(runs, [each.board for each in found], places) if runs is not None else []
    data["comparisons"] = [shown_comparison(each) for each in comparisons]
    html = render(data, details, assets.bundles)
    path = out / "report.html"
    write_atomic(path, html.encode())
    embedded = assets.bytes if embed else 0
    return Report(path, len(found), len(data["runs"]), len(html.encode()) - embedded, assets.bytes)


def payload(found: list[FullBoard], results_dir: Path, assets: Assets) -> tuple[dict[str, Any], dict[str, Any]]:
    """What every page shows, and the details of single runs."""
    pool = run_folders.Pool()
    data: dict[str, Any] = {
        "version": __version__,
        "generated": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "mlflow": _server(),
        "methods": sorted({row.method for each in found for row in each.board.rows}),
        "costs": list(COSTS),
        "boards": [],
        "runs": [],
    }
    places = {method: place for place, method in enumerate(data["methods"])}
    details: dict[str, Any] = {"pool": pool.values, "runs": []}
    for number, each in enumerate(found):
        shown = _board(each.board, places)
        data["boards"].append(shown)
        started = each.cells["start_time"].dropna() if "start_time" in each.cells else pd.Series(dtype=float)
        if len(started):
            shown["when"] = [_date(started.min()), _date(started.max())]
        shown["cells"] = len(each.cells)
        shown["target"] = rounded(target_quality(each.board))
        _add_instances(shown, each, places)
        _add_runs(data, details, pool, number, each, places, results_dir, assets)
    data["summaries"] = [asdict(s) for s in summaries([(each.board, each.values) for each in found])]
    return data, details


def _server() -> str | None:
    """Where runs can be looked at, when it is a server that a browser reaches."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else None


def _date(milliseconds: Any) -> str:
    return datetime.datetime.fromtimestamp(float(milliseconds) / 1000, datetime.UTC).isoformat(timespec="minutes")


def _board(board: Board, places: Mapping[str, int]) -> dict[str, Any]:
    shown = {
        key: getattr(board, key)
        for key in ("task", "dataset", "protocol", "fidelity", "hardware", "fingerprint", "instances", "primary")
    }
    shown |= {"unit": board.throughput_unit, "split": board.split_because}
    shown["metrics"] = [{"name": n, "direction": s["direction"], "unit": s["unit"]} for n, s in board.metrics.items()]
    shown["rows"] = [_row(board, row, places) for row in board.rows]
    shown["pareto"] = {cost: [places[method] for method in front] for cost, front in board.pareto.items()}
    shown["better"] = PARETO
    return shown


def _row(board: Board, row: Row, places: Mapping[str, int]) -> list[Any]:
    """[method, rank, trivial, seeds, metrics, costs, gap to trivial, gap to paper, source, absent, failures].

    A value is [mean, half interval, text], shorter where the later parts say nothing.
    """
    metrics = [_value(row.metrics.get(name)) for name in board.metrics]
    costs = [_cost(row, name) for name in COSTS]
    gaps = [rounded(row.gap_to_trivial), rounded(row.gap_to_reference)]
    return [
        places[row.method], row.rank, int(row.trivial), row.n, metrics, costs, *gaps,
        row.reference_source or 0, row.absent or 0, row.failures or 0,
    ]  # fmt: skip


def _value(value: Any) -> Any:
    if value is None or not math.isfinite(value.mean):
        return 0
    mean, interval = mean_and_interval(value)
    shown = f"{mean} ± {interval}" if interval else mean
    return (
        [rounded(value.mean, 6), rounded(value.interval, 3), shown] if interval else [rounded(value.mean, 6), 0, shown]
    )


def _cost(row: Row, name: str) -> Any:
    value = getattr(row, name)
    if isinstance(value, (int, float)):
        number = quantity(row, name)
        return [rounded(number, 6), 0, f"{number:,.0f}"] if number else 0
    return _value(value)


def _add_instances(shown: dict[str, Any], each: FullBoard, places: Mapping[str, int]) -> None:
    if len(each.board.instances) > 1:
        means = run_folders.instance_means(each.cells, each.board.primary)
        shown["by_instance"] = {
            places[method]: [rounded(values.get(name)) for name in each.board.instances]
            for method, values in means.items()
        }


def _add_runs(
    data: dict[str, Any],
    details: dict[str, Any],
    pool: run_folders.Pool,
    number: int,
    each: FullBoard,
    places: Mapping[str, int],
    results_dir: Path,
    assets: Assets,
) -> None:
    """Runs whose folders are here, with pages, curves and exhibits."""
    board = each.board
    if len(data["runs"]) >= MAX_DETAILED:
        return
    primary = board.metrics[board.primary]
    target = target_quality(board)
    for cell in each.cells.to_dict("records"):
        folder = run_folders.existing_folder(results_dir, {str(k): v for k, v in cell.items()}) if _sane(cell) else None
        if folder is None or len(data["runs"]) >= MAX_DETAILED:
            continue
        detail = run_folders.run_details(folder, pool)
        if detail is None:
            continue
        shown = {
            "board": number,
            "method": places[cell["method"]],
            "seed": int(cell["seed"]),
            "instance": cell["instance"],
            "status": cell["status"],
            "key": cell["cell_key"],
            "value": rounded(detail["metrics"].get(board.primary) if detail["metrics"] else None),
            "exhibits": shown_exhibits(folder, assets),
        }
        kinds = {exhibit["kind"] for exhibit in shown["exhibits"]}
        shown["exhibits"] += [p for p in shown_pictures(folder, assets) if not _shown_better(p["title"], kinds)]
        quantiles = run_folders.item_quantiles(folder, board.primary)
        if quantiles:
            shown["items"] = quantiles
        if target is not None:
            seconds = sum((detail["accounts"] or {}).get(name, 0.0) for name in ("compile", "data", "train"))
            final = shown["value"] if cell["status"] == "done" else None
            reached = run_folders.time_to_quality(
                detail["curve"], board.primary, primary["direction"], target, final, seconds or None
            )
            if reached is not None:
                shown["reached"] = [rounded(reached[0], 4), int(reached[1])]
        detail["mlflow_run"], detail["experiment"] = cell.get("run"), cell.get("experiment_id")
        data["runs"].append(shown)
        details["runs"].append(detail)


def _sane(cell: Mapping[Any, Any]) -> bool:
    """Whether the axes can be names of folders: a store may hold anything."""
    return all(isinstance(cell[axis], str) and "/" not in cell[axis] and cell[axis] not in (".", "..") for axis in
               ("task", "dataset", "instance", "method", "fidelity", "cell_key"))  # fmt: skip


BETTER = {  # words of a picture's name -> the kind of exhibit that shows the same and can be used
    "truth": {"views", "clouds", "meshes"},
    "confusion": {"confusion"},
    "samples": {"samples"},
    "interpolation between": {"strip"},
}


def _shown_better(title: str, kinds: set[str]) -> bool:
    return any(title.startswith(word) and kinds & better for word, better in BETTER.items())


# ------------------------------------------------------------------------------------------------------------- the file
def render(data: dict[str, Any], details: dict[str, Any], bundles: dict[str, Any]) -> str:
    """The page's text. Data stands in elements that no browser runs, with every ``<`` written as an escape."""
    folder = importlib.resources.files("adlbench.benchmark.leaderboard.report")
    read = {name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *SCRIPTS)}
    parts = {
        "/*style*/": read["page.css"],
        "/*script*/": "\n".join(read[name] for name in SCRIPTS),
        "<!--data-->": _element("data", data) + _element("details", details) + _element("bundles", bundles),
    }
    text = read["page.html"]
    for mark, part in parts.items():
        before, found, after = text.partition(mark)
        assert found, f"page.html has no {mark}"
        text = before + part + after
    return text


def _element(name: str, value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str, allow_nan=False)
    if len(text) <= PLAIN:
        safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        return f'<script type="application/json" id="{name}">{safe}</script>\n'
    packed = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
    return f'<script type="application/gzip" id="{name}">{packed}</script>\n'
