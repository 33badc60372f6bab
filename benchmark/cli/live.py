"""The live table of a running matrix; one plain line for each finished cell where the output is not a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from adlbench.benchmark.cli.common import duration
from adlbench.benchmark.execution.base import Event
from adlbench.benchmark.leaderboard.tables import number
from adlbench.benchmark.progress import Progress, RunState
from adlbench.benchmark.records import Record


class LiveTable:
    def __init__(self, console: Console, progress: Progress):
        self._console, self._progress = console, progress
        self.stopping = ""  # set by a signal handler, which may not print
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveTable:
        if self._console.is_terminal and self._progress.state.total:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._progress.state.ended = True
        self._progress.write(force=True)

    def on_event(self, event: Event) -> None:
        self._progress.on_event(event)
        if event.kind == "finished" and event.record is not None:
            self._print_finished(event.record)

    def _print_finished(self, record: Record) -> None:
        state = self._progress.state
        if record.status == "done":
            value = record.metrics.get(record.primary)
            outcome = f"{record.primary} {number(value)}" if value is not None else f"{record.primary} n/a"
            line = f"[{state.done}/{state.total}] {record.name}: {outcome}, {duration(record.wall_seconds)}"
        else:
            line = f"[{state.done}/{state.total}] {record.name}: {record.status}: {record.reason}"
        style = "red" if record.status not in ("done", "interrupted") else None
        self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        self._progress.state.remaining = self._progress.remaining()
        self._progress.state.stopping = self.stopping
        return render(self._progress.state)


def render(state: RunState) -> Group:
    table = Table(box=None, padding=(0, 1))
    for column in ("slot", "cell", "phase", "progress", "step", "loss", "samples/s", "time"):
        table.add_column(column, justify="right" if column in ("step", "loss", "samples/s", "time") else "left")
    for index, slot in sorted(state.slots.items()):
        table.add_row(
            str(index),
            escape(slot.cell),
            slot.phase,
            ProgressBar(total=1.0, completed=slot.progress, width=20),
            "" if slot.step is None else str(slot.step),
            number(slot.loss),
            number(slot.samples_per_second, 3),
            duration(time.time() - slot.since),
        )
    return Group(table, Text(summary(state)))


def summary(state: RunState) -> str:
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(state.counts.items()))
    line = f"{state.done}/{state.total} cells, {state.cached} cached"
    line += f" ({statuses})" if statuses else ""
    until = state.updated if state.ended else time.time()
    line += f", {duration(until - state.started)} so far, about {duration(state.remaining)} left"
    return f"{line}; ending: {state.stopping}" if state.stopping and not state.ended else line
