"""What changed between commits: comparisons of two of them, and quality and throughput over many -> what the page shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.leaderboard.board import Board
from adlbench.benchmark.leaderboard.report.runs import rounded
from adlbench.benchmark.regression.history import Series, courses

MAX_COURSES = 400


def shown_comparison(path: Path) -> dict[str, Any]:
    """A ``gate.json``, as ``adlbench compare A B --suite gate`` writes it. Raises AdlbenchError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            **{key: str(found[key]) for key in ("verdict", "hardware", "started", "command")},
            "base": [str(found["base"]["name"]), str(found["base"]["commit"])[:12]],
            "head": [str(found["head"]["name"]), str(found["head"]["commit"])[:12]],
            "speed": [_speed(entry) for entry in found["speed"]],
            "accuracy": [_accuracy(entry) for entry in found["accuracy"]],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdlbenchError(
            f"{path}: not a comparison ({type(error).__name__}: {error}); write one with "
            "`adlbench compare A B --suite gate`, which leaves it as results/gate/gate.json"
        ) from error


def _speed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Relative changes of time, or of memory, with the interval and that of the same code against itself."""
    shown = {key: str(entry[key]) for key in ("group", "what", "outcome", "reason")}
    verdict = entry["verdict"]
    if verdict is not None:
        change, control = ([rounded(v[end]) for end in ("low", "estimate", "high")] for v in
                           (verdict["change"], verdict["control"]))  # fmt: skip
        return {**shown, "change": change, "control": control, "rounds": int(verdict["rounds"])}
    if entry["memory_mb"] is not None and entry["memory_mb"][0]:
        base, _, head = entry["memory_mb"]
        return {**shown, "change": [None, rounded(head / base - 1), None]}
    return shown


def _accuracy(entry: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: str(entry[key]) for key in ("group", "metric", "outcome", "reason")}
    verdict = entry["verdict"]
    if verdict is None:
        return shown
    numbers = {key: rounded(verdict[key]) for key in ("base", "head", "change", "low", "high", "margin")}
    return {**shown, **numbers, "seeds": int(verdict["seeds"])}


def shown_courses(frame: pd.DataFrame, boards: Sequence[Board], places: Mapping[str, int]) -> list[dict[str, Any]]:
    """Quality and throughput over commits, of what ran at two of them at least; ``frame`` holds all runs."""
    tables: dict[tuple[str, ...], int] = {}
    for number, board in enumerate(boards):
        tables[board.task, board.dataset, board.fidelity, board.hardware] = number  # the last: the newest data
    found = []
    for series in courses(frame):
        axes = series.axes
        table = tables.get((axes["task"], axes["dataset"], axes["fidelity"], axes["hardware"]))
        method = axes["method"] if axes["precision"] == "fp32" else f"{axes['method']} {axes['precision']}"
        if table is not None and method in places and len(series.points) > 1:
            found.append({"board": table, "method": places[method], **_course(series)})
    return found[:MAX_COURSES]


def _course(series: Series) -> dict[str, Any]:
    return {
        "instance": series.axes["instance"],
        "quantity": series.quantity,
        "points": [[p.commit[:8], p.start_time, rounded(p.value), p.seeds] for p in series.points],
        "steps": [[step.index, rounded(step.before), rounded(step.after), rounded(step.relative)] for step in series.steps],
    }  # fmt: skip
