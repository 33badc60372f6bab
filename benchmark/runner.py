"""Runs a plan: what is done already is left alone, the rest goes to the executor, records go to MLflow as they arrive."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.execution.base import Event, Executor
from adlbench.benchmark.plan import CellSpec, Plan
from adlbench.benchmark.records import Record, find_records, read_record
from adlbench.benchmark.tracking import Tracker, default_uri

RETRIED = {"failed": ("failed", "diverged", "out_of_memory"), "timeout": ("timeout",)}
RETRIED["all"] = (*RETRIED["failed"], *RETRIED["timeout"])


@dataclass(frozen=True)
class Selection:
    run: tuple[CellSpec, ...]
    cached: tuple[tuple[CellSpec, Record], ...]


def select(plan: Plan, results_dir: Path, retry: str | None = None) -> Selection:
    """Which cells of the plan have ended already. Interrupted ones are run again, failed ones only when asked for."""
    again = ("interrupted", *RETRIED.get(retry or "", ()))
    run, cached = [], []
    for cell in {cell.key: cell for cell in plan.cells}.values():
        folder = cell.folder(results_dir)
        record = read_record(folder) if (folder / "record.json").exists() else None
        if record is None or record.status in again:
            run.append(cell)
        else:
            cached.append((cell, record))
    return Selection(tuple(run), tuple(cached))


class History:
    """How long cells took before, by everything but the seed."""

    def __init__(self, results_dir: Path):
        self._seconds: dict[tuple[str, ...], float] = {}
        for _, record in find_records(results_dir):
            if record.status == "done":
                self._seconds[self._axes(record)] = record.wall_seconds

    @staticmethod
    def _axes(record: Record) -> tuple[str, ...]:
        return record.task, record.dataset, record.instance, record.method, record.fidelity

    def __call__(self, cell: CellSpec) -> float | None:
        return self._seconds.get(
            (cell.task.name, cell.dataset.name, cell.instance, cell.method.name, cell.fidelity.name)
        )


def run_matrix(
    selection: Selection,
    results_dir: Path,
    executor: Executor,
    on_event: Callable[[Event], None],
    title: str,
    estimate: Callable[[CellSpec], float | None],
) -> dict[str, int]:
    """Run the selected cells, longest first, and deliver every record to MLflow. Returns the number of cells by status.

    MLflow is opened by one writer thread, while the first cells are running. If it cannot be reached, cells run all the
    same, and an AdlbenchError at the end says how to deliver their records later.
    """
    invocation = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    counts: dict[str, int] = {}
    cells = sorted(selection.run, key=lambda cell: -(estimate(cell) or 0.0))
    deliveries: list[Future[object]] = []
    with ThreadPoolExecutor(1, thread_name_prefix="mlflow") as writer:
        tracker = writer.submit(Tracker, results_dir, title, invocation)

        def deliver(folder: Path, record: Record) -> None:
            deliveries.append(writer.submit(lambda: tracker.result().deliver(folder, record)))

        def forward(event: Event) -> None:
            if event.kind == "finished" and event.record is not None:
                counts[event.record.status] = counts.get(event.record.status, 0) + 1
                deliver(event.cell.folder(results_dir), event.record)
            on_event(event)

        for cell, record in selection.cached:
            deliver(cell.folder(results_dir), record)
        try:
            executor.run(cells, results_dir, forward)
        finally:
            for delivery in deliveries:
                delivery.exception()  # wait for all before any is raised
            if tracker.exception() is None:
                writer.submit(tracker.result().close).result()
    failures = [error for delivery in deliveries if (error := delivery.exception()) is not None]
    if failures:
        raise AdlbenchError(
            f"{len(failures)} records did not reach MLflow at {default_uri(results_dir)} ({failures[0]}); "
            f"they are safe in {results_dir / 'runs'}, deliver them with: adlbench sync --results-dir {results_dir}"
        ) from failures[0]
    return counts
