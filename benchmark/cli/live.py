"""The live table of a running matrix; one plain line for each finished cell where the output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from adlbench.benchmark.cli.common import duration
from adlbench.benchmark.execution.base import Event
from adlbench.benchmark.leaderboard.tables import number
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.runner import Selection


class LiveTable:
    def __init__(self, console: Console, selection: Selection, estimate: Callable[[CellSpec], float | None]):
        self._console, self._estimate = console, estimate
        self._total, self._cached = len(selection.run), len(selection.cached)
        self._left = {cell.key: estimate(cell) for cell in selection.run}
        self._slots: dict[int, tuple[CellSpec, float, dict[str, Any]]] = {}
        self._counts: dict[str, int] = {}
        self._start = time.monotonic()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveTable:
        if self._console.is_terminal and self._total:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_event(self, event: Event) -> None:
        if event.kind == "started":
            self._slots[event.slot] = (event.cell, time.monotonic(), {"phase": "start"})
        elif event.kind == "progress" and event.slot in self._slots:
            cell, start, details = self._slots[event.slot]
            self._slots[event.slot] = (cell, start, {**details, **event.details})
        elif event.kind == "finished" and event.record is not None:
            self._slots.pop(event.slot, None)
            self._left.pop(event.cell.key, None)
            self._counts[event.record.status] = self._counts.get(event.record.status, 0) + 1
            self._print_finished(event)

    def _print_finished(self, event: Event) -> None:
        record = event.record
        assert record is not None
        done = sum(self._counts.values())
        if record.status == "done":
            value = record.metrics.get(record.primary)
            outcome = f"{record.primary} {number(value)}" if value is not None else f"{record.primary} n/a"
            line = f"[{done}/{self._total}] {record.name}: {outcome}, {duration(record.wall_seconds)}"
        else:
            line = f"[{done}/{self._total}] {record.name}: {record.status}: {record.reason}"
        style = "red" if record.status not in ("done", "interrupted") else None
        self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 1))
        for column in ("slot", "cell", "phase", "progress", "step", "loss", "samples/s", "time"):
            table.add_column(column, justify="right" if column in ("step", "loss", "samples/s", "time") else "left")
        for slot, (cell, start, details) in sorted(self._slots.items()):
            values = details.get("values") or {}
            loss = next(iter(values.values()), None)
            speed = details.get("samples_per_second")
            table.add_row(
                str(slot),
                escape(cell.name),
                str(details.get("phase", "")),
                ProgressBar(total=1.0, completed=float(details.get("progress") or 0.0), width=20),
                str(details.get("step", "")),
                number(loss),
                number(speed, 3),
                duration(time.monotonic() - start),
            )
        done = sum(self._counts.values())
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(self._counts.items()))
        left = [seconds for seconds in self._left.values() if seconds is not None]
        remaining = sum(left) / max(1, len(self._slots)) if left else None
        summary = f"{done}/{self._total} cells, {self._cached} cached"
        summary += f" ({statuses})" if statuses else ""
        summary += f", {duration(time.monotonic() - self._start)} so far, about {duration(remaining)} left"
        return Group(table, Text(summary))
