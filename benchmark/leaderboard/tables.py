"""Boards as terminal tables, CSV, Markdown and JSON. Everything that came from a name is escaped for its format."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adlbench.benchmark.leaderboard.board import Board, Row, Value
from adlbench.benchmark.records import write_atomic

JSON_SCHEMA_VERSION = 1
COST_COLUMNS = 4  # throughput, latency, training time, memory: the last ones of a table


def number(value: float | None, digits: int = 4) -> str:
    """``digits`` significant digits, at most that many decimals."""
    if value is None or math.isnan(value):
        return "-"
    size = abs(value)
    if value != 0 and (size >= 1e6 or size < 1e-3):
        return f"{value:.2e}"
    decimals = digits - 1 - math.floor(math.log10(size)) if size >= 1 else (digits if value else 0)
    return f"{value:,.{max(0, decimals)}f}"


def with_interval(value: Value | None) -> str:
    if value is None:
        return "-"
    if value.interval is None:
        return number(value.mean)
    return f"{number(value.mean)} ± {number(value.interval, 2)}"


def _signed(value: float | None) -> str:
    return "-" if value is None else ("+" if value >= 0 else "−") + number(abs(value))


def _title(board: Board) -> str:
    instances = "" if board.instances == ["all"] else f" ({', '.join(board.instances)})"
    return f"{board.task} on {board.dataset}{instances}, {board.fidelity}"


def _caption(board: Board) -> str:
    split = f". {board.split_because}" if board.split_because else ""
    return f"protocol {board.protocol}, {board.hardware}, data {board.fingerprint}{split}"


def _header(board: Board) -> list[str]:
    arrows = {"up": "↑", "down": "↓"}
    metrics = []
    for name, spec in board.metrics.items():
        unit = f" {spec['unit']}" if spec["unit"] else ""
        metrics.append(f"{name}{unit} {arrows[spec['direction']]}")
    has_reference = any(row.gap_to_reference is not None for row in board.rows)
    return [
        "rank",
        "method",
        *metrics,
        "n",
        "vs trivial",
        *(["vs paper"] if has_reference else []),
        f"{board.throughput_unit}/s",
        "latency ms",
        "train s",
        "memory MB",
    ]


def _cells(board: Board, row: Row) -> list[str]:
    has_reference = any(other.gap_to_reference is not None for other in board.rows)
    failed = ", ".join(f"{count} {status}" for status, count in sorted(row.failures.items()))
    name = row.method + (" (trivial)" if row.trivial else "") + (f" [{failed}]" if failed else "")
    return [
        "-" if row.rank is None else str(row.rank),
        name,
        *(with_interval(row.metrics.get(metric)) if metric not in row.absent else "n/a" for metric in board.metrics),
        str(row.n),
        _signed(row.gap_to_trivial),
        *([_signed(row.gap_to_reference)] if has_reference else []),
        with_interval(row.throughput),
        with_interval(row.latency_ms),
        with_interval(row.train_seconds),
        with_interval(row.memory_mb),
    ]


def _notes(board: Board) -> list[str]:
    """Why a metric has no value, once for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in board.rows:
        for metric, reason in row.absent.items():
            reasons.setdefault((metric, reason), []).append(row.method)
    return [f"{metric}: n/a for {', '.join(methods)}: {reason}" for (metric, reason), methods in reasons.items()]


def print_boards(found: Sequence[Board], console: Console) -> None:
    """Each board as one table; as two, quality and cost, where the terminal is too narrow for one."""
    for board in found:
        header, lines = _header(board), [_cells(board, row) for row in board.rows]
        whole = _table(board, header, lines, range(len(header)))
        if console.measure(whole, options=console.options.update(max_width=1000)).maximum <= console.width:
            parts = [whole]
        else:
            cost = len(header) - COST_COLUMNS
            parts = [_table(board, header, lines, columns) for columns in (range(cost), [1, *range(cost, len(header))])]
            parts[1].title = None
            parts[0].caption = None
        for part in parts:
            console.print(part)
        for note in _notes(board):
            console.print(f"  {escape(note)}", style="dim", soft_wrap=True)
        console.print()


def _table(board: Board, header: list[str], lines: list[list[str]], columns: Sequence[int]) -> Table:
    table = Table(
        title=escape(_title(board)), caption=escape(_caption(board)), title_justify="left", caption_justify="left"
    )
    for column in columns:
        name = header[column]
        table.add_column(escape(name), justify="left" if name == "method" else "right", no_wrap=True)
    for line, row in zip(lines, board.rows):
        table.add_row(*(escape(line[column]) for column in columns), style="dim" if row.trivial else None)
    return table


def markdown(found: Sequence[Board]) -> str:
    def cell(text: str) -> str:
        return (
            text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
        )

    lines = ["# Leaderboards", ""]
    lines += [
        "Mean ± half-width of the 95 % t-interval over n seeds. A shared rank: the difference is not significant.",
        "",
    ]
    for board in found:
        header = _header(board)
        lines += [f"## {cell(_title(board))}", "", cell(_caption(board)), ""]
        lines += ["| " + " | ".join(map(cell, header)) + " |"]
        lines += ["|" + "|".join("---" if index == 1 else "---:" for index in range(len(header))) + "|"]
        lines += ["| " + " | ".join(map(cell, _cells(board, row))) + " |" for row in board.rows]
        lines += ["", *(f"- {cell(note)}" for note in _notes(board)), ""]
    return "\n".join(lines)


def csv_text(found: Sequence[Board]) -> str:
    """Long form: one line for each board, method and quantity."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    axes = ["task", "dataset", "protocol", "fidelity", "hardware", "fingerprint"]
    writer.writerow([*axes, "method", "trivial", "rank", "quantity", "mean", "interval95", "n"])
    for board in found:
        for row in board.rows:
            quantities: dict[str, Value | None] = dict(row.metrics)
            quantities |= {
                "throughput": row.throughput,
                "latency_ms": row.latency_ms,
                "train_seconds": row.train_seconds,
                "memory_mb": row.memory_mb,
            }
            for name, value in quantities.items():
                if value is not None:
                    head = [_plain(getattr(board, axis)) for axis in axes]
                    writer.writerow(
                        [*head, _plain(row.method), row.trivial, row.rank, name, value.mean, value.interval, value.n]
                    )
    return buffer.getvalue()


def _plain(text: str) -> str:
    """A leading =, +, - or @ would be a formula to a spreadsheet."""
    return f"'{text}" if text[:1] in "=+-@" else text


def json_text(found: Sequence[Board]) -> str:
    return json.dumps({"schema_version": JSON_SCHEMA_VERSION, "boards": [b.to_dict() for b in found]}, indent=1) + "\n"


def write_boards(found: Sequence[Board], folder: Path) -> list[Path]:
    """leaderboard.csv, .md and .json; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"csv": csv_text(found), "md": markdown(found), "json": json_text(found)}
    for suffix, text in texts.items():
        write_atomic(folder / f"leaderboard.{suffix}", text.encode())
    return [folder / f"leaderboard.{suffix}" for suffix in texts]
