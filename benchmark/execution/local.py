"""Cells as processes of this machine: as many at a time as there are slots, whatever happens to one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from adlbench.benchmark.cell import run_cell
from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.execution import watch
from adlbench.benchmark.execution.base import Event, Executor, Stop, usable_cores
from adlbench.benchmark.execution.process import CellProcess, check_inside, process_context, refused
from adlbench.benchmark.plan import CellSpec

SPARE_MEMORY = 0.02  # of the machine: when less is left, the largest cell is ended before the kernel ends any process


class LocalExecutor(Executor):
    def run(
        self, cells: Sequence[CellSpec], results_dir: Path, on_event: Callable[[Event], None], stop: Stop | None = None
    ) -> None:
        stop = stop or Stop()
        if self.spec.isolation == "inline":
            if any(cell.devices > 1 for cell in cells):
                raise AdlbenchError("executor.isolation=inline has one process, devices=N needs N; use forkserver")
            return self._run_inline(cells, results_dir, on_event, stop)
        context = process_context(self.spec, cells)
        slots, gpus = self.slots(cells), self.gpus(cells)
        threads = self.threads(cells, slots)
        waiting, running, free = list(cells)[::-1], list[CellProcess](), list(range(slots))[::-1]
        try:
            while (waiting and not stop.level) or running:
                while waiting and free and not stop.level:
                    cell = _placed(waiting.pop(), free[-1], gpus)
                    try:
                        process = CellProcess(context, cell, results_dir, self.spec, threads, free[-1])
                    except OSError as error:
                        record = refused(cell, cell.folder(results_dir), error)
                        on_event(Event("finished", cell, free[-1], record=record))
                        continue
                    running.append(process)
                    free.pop()
                    on_event(Event("started", cell, process.slot))
                wait([*(p.events for p in running), *(p.sentinel for p in running)], timeout=0.2)
                self._look_after(running, free, stop, on_event)
        except BaseException:
            self._end_all(running, on_event)
            raise
        finally:
            watch.end_strays()

    def threads(self, cells: Sequence[CellSpec], slots: int) -> int:
        """Of each cell. On a CPU one, whatever the slots: the number is part of the hardware class, and more cells at a
        time use cores better than more threads of one do (docs/running-a-matrix.md). Beside a GPU, the share of the cores.
        """
        on_cpu = any(cell.device == "cpu" for cell in cells)
        return self.spec.threads or (1 if on_cpu else max(1, usable_cores() // slots))

    def _look_after(
        self, running: list[CellProcess], free: list[int], stop: Stop, on_event: Callable[[Event], None]
    ) -> None:
        snapshot: list[dict[int, watch.Process]] = []

        def once() -> dict[int, watch.Process]:
            if not snapshot:
                snapshot.append(watch.processes())
            return snapshot[0]

        for process in list(running):
            for details in process.news():
                on_event(Event("progress", process.cell, process.slot, details=details))
            process.watch(once)
            if stop.level:
                process.end("interrupted", f"{stop.reason}; the same command continues it")
            if stop.level > 1:
                process.kill()
            if process.ended:
                for details in process.news():
                    on_event(Event("progress", process.cell, process.slot, details=details))
                running.remove(process)
                free.append(process.slot)
                on_event(Event("finished", process.cell, process.slot, record=process.conclude()))
        if snapshot and running:
            _spare_memory(running)

    def _end_all(self, running: list[CellProcess], on_event: Callable[[Event], None]) -> None:
        for process in running:
            process.end("interrupted", "the run was ended; the same command continues it")
        for process in running:
            while not process.ended:
                wait([process.sentinel], timeout=0.2)
                process.watch(watch.processes)
            on_event(Event("finished", process.cell, process.slot, record=process.conclude()))

    def _run_inline(
        self, cells: Sequence[CellSpec], results_dir: Path, on_event: Callable[[Event], None], stop: Stop
    ) -> None:
        for cell in cells:
            if stop.level:
                return
            on_event(Event("started", cell, 0))

            def progress(details: dict[str, Any], cell: CellSpec = cell) -> None:
                on_event(Event("progress", cell, 0, details=details))

            folder = cell.folder(results_dir)
            check_inside(folder, results_dir)
            (folder / "record.json").unlink(missing_ok=True)
            on_event(Event("finished", cell, 0, record=run_cell(cell, folder, progress)))


def _placed(cell: CellSpec, slot: int, gpus: float) -> CellSpec:
    """Slots share accelerators in order: with half an accelerator each, slots 0 and 1 have the first."""
    return replace(cell, device=f"cuda:{int(slot * gpus + 1e-9)}") if cell.device == "cuda" else cell


def _spare_memory(running: list[CellProcess]) -> None:
    memory = watch.machine_memory_mb()
    if memory is not None and memory[0] < SPARE_MEMORY * memory[1]:
        largest = max(running, key=CellProcess.memory_mb)
        held = largest.memory_mb()
        left = f"{memory[0]:.0f} of {memory[1]:.0f} MB were left on this machine"
        largest.kill("out_of_memory", f"{left} while this cell held {held:.0f} MB; use fewer slots or a smaller model")
