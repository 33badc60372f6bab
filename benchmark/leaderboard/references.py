"""What papers report beside what was reached here, metric by metric, with a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adlbench.benchmark.leaderboard.board import Value, boards
from adlbench.benchmark.leaderboard.tables import mean_and_interval, number, signed

CLOSE = 3.0  # tolerances within which a number that does not reproduce is still close
RELATIVE = 0.02  # tolerance, as a share of the published number, where the task's YAML gives the metric no margin
KEYS = ("method", "dataset", "instance", "source", "note")  # of a reference; everything else is a metric


@dataclass
class Comparison:
    task: str
    dataset: str  # with its instance, where the reference names one
    method: str  # as in the table: another precision is named
    metric: str
    paper: float
    source: str
    note: str
    status: str  # reproduces, close, differs, not run
    reproduced: Value | None = None
    gap: float | None = None  # positive is better than the paper
    tolerance: float | None = None
    protocol: str = ""
    fidelity: str = ""
    hardware: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def verdict(gap: float, tolerance: float) -> str:
    """``reproduces`` where the number is at most ``tolerance`` worse than the paper's (a better one reproduces it too),
    ``close`` within CLOSE tolerances, ``differs`` beyond."""
    if gap >= -tolerance:
        return "reproduces"
    return "close" if gap >= -CLOSE * tolerance else "differs"


def compare_with_references(tasks: Iterable[tuple[str, Any]], frame: pd.DataFrame) -> list[Comparison]:
    """A line for each metric of each reference of ``tasks`` (name, specification) and each table that has the method;
    ``not run`` where none has."""
    result = []
    for task, spec in tasks:
        for reference in spec.references:
            metrics = {key: float(value) for key, value in reference.items() if key not in KEYS}
            found = list(_rows(task, reference, frame))
            for metric, paper in metrics.items():
                common = {
                    "task": task,
                    "metric": metric,
                    "paper": paper,
                    "source": str(reference.get("source", "")),
                    "note": str(reference.get("note", "")),
                    "dataset": "/".join(filter(None, (reference["dataset"], reference.get("instance")))),
                }
                lines = [_compare(common, board, row) for board, row in found if metric in row.metrics]
                result += lines or [Comparison(**common, method=reference["method"], status="not run")]
    return result


def _rows(task: str, reference: dict[str, Any], frame: pd.DataFrame) -> Iterable[tuple[Any, Any]]:
    if frame.empty:
        return
    cells = frame[(frame["task"] == task) & (frame["dataset"] == reference["dataset"])]
    if "instance" in reference:
        cells = cells[cells["instance"] == reference["instance"]]
    for board in boards(cells[cells["method"] == reference["method"]]):
        for row in board.rows:
            yield board, row


def _compare(common: dict[str, Any], board: Any, row: Any) -> Comparison:
    spec, value = board.metrics[common["metric"]], row.metrics[common["metric"]]
    margin = spec["margin"] if spec["margin"] is not None else RELATIVE * abs(common["paper"])
    tolerance = max(margin, value.interval or 0.0)
    gap = (1 if spec["direction"] == "up" else -1) * (value.mean - common["paper"])
    return Comparison(
        **common,
        method=row.method,
        reproduced=value,
        gap=gap,
        tolerance=tolerance,
        status=verdict(gap, tolerance),
        protocol=board.protocol,
        fidelity=board.fidelity,
        hardware=board.hardware,
    )


def print_comparisons(found: Sequence[Comparison], console: Console) -> None:
    table = Table(title="against the published numbers", title_justify="left")
    for name in ("task", "dataset", "method", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("paper", "reproduced", "gap"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("status", "fidelity", "source"):
        table.add_column(name, no_wrap=name != "source")
    styles = {"reproduces": "green", "close": "yellow", "differs": "red", "not run": "dim"}
    for line in found:
        reached = " ± ".join(filter(None, mean_and_interval(line.reproduced))) if line.reproduced else "-"
        names = [escape(text) for text in (line.task, line.dataset, line.method, line.metric)]
        status = f"[{styles[line.status]}]{line.status}[/]"
        table.add_row(
            *names, number(line.paper), reached, signed(line.gap), status, escape(line.fidelity), escape(line.source)
        )
    console.print(table)
    for note in dict.fromkeys((line.method, line.dataset, line.note) for line in found if line.note):
        console.print(
            f"  {escape(note[0])} on {escape(note[1])}: the paper's: {escape(note[2])}", style="dim", soft_wrap=True
        )
    console.print(
        "gap: positive is better than the paper. Other fidelity or data than the paper's is no reproduction of it.",
        style="dim",
        soft_wrap=True,
    )
