"""Boards as terminal tables and Markdown. Everything that came from a name is escaped for its format."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adlbench.benchmark.leaderboard.board import Board, Row, Value

COST_COLUMNS = 4  # throughput, latency, training time, memory: the last ones of a table


def number(value: float | None, digits: int = 4) -> str:
    """``digits`` significant digits, at most that many decimals but never fewer than two significant ones."""
    if value is None or math.isnan(value):
        return "-"
    size = abs(value)
    if value != 0 and (size >= 1e6 or size < 1e-3):
        return f"{value:.2e}"
    return f"{value:,.{decimals(value, digits)}f}"


def decimals(value: float, digits: int) -> int:
    """How many decimals show ``value`` with ``digits`` significant digits, see ``number``."""
    if value == 0 or not math.isfinite(value):
        return 0
    place = math.floor(math.log10(abs(value)))
    return max(0, min(digits - 1 - place, max(digits, 1 - place)))


def mean_and_interval(value: Value) -> tuple[str, str]:
    """Both with the same decimals: those of the interval's second significant digit, four digits of the mean at least
    unless the interval swallows them. An interval that is rounding error only is "0"; "" stands for none."""
    mean, interval = value.mean, value.interval
    if interval is None:
        return number(mean), ""
    if interval <= 1e-12 * max(abs(mean), 1e-12):
        return number(mean), "0"
    size = max(abs(mean), interval)
    if size >= 1e6 or size < 1e-3:
        return f"{mean:.2e}", f"{interval:.1e}"
    places = min(max(0, 1 - math.floor(math.log10(interval))), 6)
    if interval < 0.5 * 10**-6:
        return f"{mean:,.6f}", f"{interval:.1e}"
    return f"{mean:,.{places}f}", f"{interval:,.{places}f}"


def with_interval(value: Value | None) -> str:
    if value is None:
        return "-"
    mean, interval = mean_and_interval(value)
    return f"{mean} ± {interval}" if interval else mean


def signed(value: float | None) -> str:
    return "-" if value is None else ("+" if value >= 0 else "−") + number(abs(value))


def title_of(board: Board) -> str:
    instances = "" if board.instances == ["all"] else f" ({', '.join(board.instances)})"
    return f"{board.task} on {board.dataset}{instances}, {board.fidelity}"


def caption_of(board: Board) -> str:
    split = f". {board.split_because}" if board.split_because else ""
    return f"protocol {board.protocol}, {board.hardware}, data {board.fingerprint}{split}"


def header_of(board: Board) -> list[str]:
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


def cells_of(board: Board, row: Row) -> list[str]:
    has_reference = any(other.gap_to_reference is not None for other in board.rows)
    failed = ", ".join(f"{count} {status}" for status, count in sorted(row.failures.items()))
    name = row.method + (" (trivial)" if row.trivial else "") + (f" [{failed}]" if failed else "")
    return [
        "-" if row.rank is None else str(row.rank),
        name,
        *(with_interval(row.metrics.get(metric)) if metric not in row.absent else "n/a" for metric in board.metrics),
        str(row.n),
        signed(row.gap_to_trivial),
        *([signed(row.gap_to_reference)] if has_reference else []),
        with_interval(row.throughput),
        with_interval(row.latency_ms),
        with_interval(row.train_seconds),
        with_interval(row.memory_mb),
    ]


def notes_of(board: Board) -> list[str]:
    """Why a metric has no value, once for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in board.rows:
        for metric, reason in row.absent.items():
            reasons.setdefault((metric, reason), []).append(row.method)
    return [f"{metric}: n/a for {', '.join(methods)}: {reason}" for (metric, reason), methods in reasons.items()]


def print_boards(found: Sequence[Board], console: Console) -> None:
    """Each board as one table; as two, quality and cost, where the terminal is too narrow for one."""
    for board in found:
        header, lines = header_of(board), [cells_of(board, row) for row in board.rows]
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
        for note in notes_of(board):
            console.print(f"  {escape(note)}", style="dim", soft_wrap=True)
        console.print()


def _table(board: Board, header: list[str], lines: list[list[str]], columns: Sequence[int]) -> Table:
    table = Table(
        title=escape(title_of(board)), caption=escape(caption_of(board)), title_justify="left", caption_justify="left"
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
        header = header_of(board)
        lines += [f"## {cell(title_of(board))}", "", cell(caption_of(board)), ""]
        lines += ["| " + " | ".join(map(cell, header)) + " |"]
        lines += ["|" + "|".join("---" if index == 1 else "---:" for index in range(len(header))) + "|"]
        lines += ["| " + " | ".join(map(cell, cells_of(board, row))) + " |" for row in board.rows]
        lines += ["", *(f"- {cell(note)}" for note in notes_of(board)), ""]
    return "\n".join(lines)
