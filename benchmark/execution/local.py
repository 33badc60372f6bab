"""Cells as processes of this machine: one process each, a hard timeout for the whole group, a record whatever happens."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from adlbench.benchmark.api import TaskKind
from adlbench.benchmark.cell import empty_record, run_cell
from adlbench.benchmark.execution.base import Event, Executor
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record, read_record, write_record

# Modules that cost seconds to import are loaded once, in the fork server, and only when a cell of that kind needs them.
PRELOAD = ["adlbench.benchmark.cell", "scipy.spatial", "skimage.measure", "sklearn.datasets"]
PRELOAD_BY_KIND = {TaskKind.GENERATION: ["torchvision", "torch_fidelity"]}


@dataclass
class _Running:
    cell: CellSpec
    folder: Path
    process: BaseProcess
    events: Connection
    slot: int
    deadline: float
    killed_because: str | None = None
    kill_at: float | None = None


class LocalExecutor(Executor):
    def run(self, cells: Sequence[CellSpec], results_dir: Path, on_event: Callable[[Event], None]) -> None:
        if self.spec.isolation == "inline":
            return self._run_inline(cells, results_dir, on_event)
        context = self._context(cells)
        slots = self.slots(cells)
        threads = max(1, (os.cpu_count() or 1) // slots)
        waiting, running, free = list(cells), list[_Running](), list(range(slots))[::-1]
        try:
            while waiting or running:
                while waiting and free:
                    running.append(self._start(context, waiting.pop(0), results_dir, free.pop(), threads))
                    on_event(Event("started", running[-1].cell, running[-1].slot))
                wait([*(r.events for r in running), *(r.process.sentinel for r in running)], timeout=0.2)
                for entry in list(running):
                    self._forward(entry, on_event)
                    self._enforce_deadline(entry)
                    if not entry.process.is_alive():
                        self._forward(entry, on_event)
                        running.remove(entry)
                        free.append(entry.slot)
                        on_event(Event("finished", entry.cell, entry.slot, record=self._conclude(entry)))
        except BaseException:
            self._stop(running, on_event)
            raise

    def slots(self, cells: Sequence[CellSpec]) -> int:
        """Cells at a time: one for each accelerator, else one for each core of a small machine, each two of a large one."""
        if self.wanted_slots is not None:
            return max(1, self.wanted_slots)
        if any(cell.device.startswith("cuda") for cell in cells):
            import torch

            return max(1, torch.cuda.device_count())
        cores = os.cpu_count() or 1
        return cores if cores <= 4 else cores // 2

    def _context(self, cells: Sequence[CellSpec]) -> ForkServerContext | SpawnContext:
        if self.spec.isolation == "spawn":
            return multiprocessing.get_context("spawn")
        context = multiprocessing.get_context("forkserver")
        kinds = {cell.task.kind for cell in cells}
        extra = [module for kind in sorted(kinds) for module in PRELOAD_BY_KIND.get(kind, [])]
        context.set_forkserver_preload([*PRELOAD, *extra])
        return context

    def _start(
        self, context: ForkServerContext | SpawnContext, cell: CellSpec, results_dir: Path, slot: int, threads: int
    ) -> _Running:
        if cell.device == "cuda":
            cell = replace(cell, device=f"cuda:{slot}")
        folder = cell.folder(results_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").unlink(missing_ok=True)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(cell.to_json(), str(folder), threads, os.getpid(), sender))
        process.start()
        sender.close()
        return _Running(cell, folder, process, receiver, slot, time.monotonic() + cell.fidelity.timeout_seconds)

    def _forward(self, entry: _Running, on_event: Callable[[Event], None]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while entry.events.poll():
                on_event(Event("progress", entry.cell, entry.slot, details=entry.events.recv()))

    def _enforce_deadline(self, entry: _Running) -> None:
        now = time.monotonic()
        if entry.kill_at is None and now > entry.deadline:
            entry.killed_because = (
                f"no end after {entry.cell.fidelity.timeout_seconds:g} s; raise it with timeout=SECONDS"
            )
            entry.kill_at = now + self.spec.grace_seconds
            _signal_group(entry.process, signal.SIGTERM)
        elif entry.kill_at is not None and now > entry.kill_at:
            _signal_group(entry.process, signal.SIGKILL)

    def _conclude(self, entry: _Running) -> Record:
        """The record of an ended process: its own, or one that says how it died."""
        _signal_group(entry.process, signal.SIGKILL)  # helpers that the cell may have left behind
        entry.process.join()
        entry.events.close()
        code = entry.process.exitcode
        if (entry.folder / "record.json").exists():
            record = read_record(entry.folder)
            if entry.killed_because is None or record.status != "interrupted":
                return record
        else:
            record = empty_record(entry.cell)
        if entry.killed_because is not None:
            record.status, record.reason = "timeout", entry.killed_because
        elif code is not None and code < 0:
            record.status, record.reason = "failed", f"ended by {signal.Signals(-code).name}{_log_tail(entry.folder)}"
        else:
            record.status, record.reason = "failed", f"exit code {code} without a record{_log_tail(entry.folder)}"
        write_record(entry.folder, record)
        return record

    def _stop(self, running: list[_Running], on_event: Callable[[Event], None]) -> None:
        for entry in running:
            _signal_group(entry.process, signal.SIGTERM)
        limit = time.monotonic() + self.spec.grace_seconds + 10
        for entry in running:
            entry.process.join(max(0.1, limit - time.monotonic()))
            if entry.process.is_alive():
                _signal_group(entry.process, signal.SIGKILL)
            if not (entry.folder / "record.json").exists():
                record = empty_record(entry.cell)
                record.status, record.reason = (
                    "interrupted",
                    "ended before a checkpoint; the same command starts it again",
                )
                write_record(entry.folder, record)
            on_event(Event("finished", entry.cell, entry.slot, record=read_record(entry.folder)))

    def _run_inline(self, cells: Sequence[CellSpec], results_dir: Path, on_event: Callable[[Event], None]) -> None:
        for cell in cells:
            on_event(Event("started", cell, 0))

            def progress(details: dict[str, Any], cell: CellSpec = cell) -> None:
                on_event(Event("progress", cell, 0, details=details))

            on_event(Event("finished", cell, 0, record=run_cell(cell, cell.folder(results_dir), progress)))


def _child(cell_json: str, folder: str, threads: int, parent: int, events: Connection) -> None:
    start = time.perf_counter()
    os.setsid()  # a group of its own, so that the timeout reaches whatever the cell starts
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    log = os.open(os.path.join(folder, "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import torch

    torch.set_num_threads(threads)

    def progress(event: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the parent is gone; the record still counts
            events.send(event)

    from adlbench.benchmark.cell import Interrupted

    with contextlib.suppress(Interrupted):
        run_cell(CellSpec.from_json(cell_json), Path(folder), progress, start)


def _end_with(parent: int) -> None:
    """End this process's group when the runner is gone, however it went: the fork server in between may outlive it."""
    while True:
        time.sleep(1.0)
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os.killpg(0, signal.SIGKILL)


def _signal_group(process: BaseProcess, number: int) -> None:
    if process.pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(process.pid) == process.pid or not process.is_alive():
            os.killpg(process.pid, number)
        else:  # it has not called setsid yet
            os.kill(process.pid, number)


def _log_tail(folder: Path, lines: int = 3) -> str:
    try:
        tail = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-lines:]
    except OSError:
        return ""
    return f"; last lines: {' | '.join(tail)}" if tail else ""
