"""Cells as tasks of a Ray cluster (extra ``ray``).

Ray places the cell and takes its answer back; time, memory and how a cell ended are our own affair on the node, as on
this machine. Ray resubmits a task whose node died, but not one whose node was cut off (nothing came for minutes); so Ray's
own retries are off, and a task that is lost, or shows no sign of life, is submitted again here. The first answer counts.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adlbench.benchmark.config import allowed
from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.execution.base import Event, Executor, Stop
from adlbench.benchmark.execution.process import keep
from adlbench.benchmark.execution.remote import ALIVE, ALIVE_SECONDS, STOP, RemoteCell, lost
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record
from adlbench.benchmark.specs import ExecutorSpec

ATTEMPTS = 4


@dataclass
class _Task:
    cell: CellSpec
    folder: Path
    slot: int
    reference: Any  # ray.ObjectRef
    submitted: float
    attempt: int = 1


def run_task(cell_json: str, results_dir: str, spec: ExecutorSpec, packages: tuple[str, ...], probe: str) -> Any:
    """On a node: (record, None) where it sees the results folder, else (record, the cell's folder as a tar archive)."""
    if Path(probe).exists():
        return asdict(RemoteCell(cell_json, results_dir, spec, packages).run()), None
    with tempfile.TemporaryDirectory(prefix="adlbench-") as folder:
        record = RemoteCell(cell_json, folder, spec, packages).run()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(CellSpec.from_json(cell_json).folder(Path(folder)), ".")
        return asdict(record), buffer.getvalue()


class RayExecutor(Executor):
    def run(
        self, cells: Sequence[CellSpec], results_dir: Path, on_event: Callable[[Event], None], stop: Stop | None = None
    ) -> None:
        stop, results_dir = stop or Stop(), results_dir.resolve()
        ray = self._connect()
        probe = results_dir / f".probe-{uuid.uuid4().hex}"
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        remote = ray.remote(run_task).options(**self._options(cells))
        waiting, running = list(cells)[::-1], list[_Task]()
        free = list(range(self._capacity(ray, cells)))[::-1]

        def submit(cell: CellSpec) -> Any:
            return remote.remote(cell.to_json(), str(results_dir), self.spec, allowed(), str(probe))

        try:
            while (waiting and not stop.level) or running:
                while waiting and free and not stop.level:
                    cell = waiting.pop()
                    folder = _cleared(cell.folder(results_dir))
                    running.append(_Task(cell, folder, free.pop(), submit(cell), time.monotonic()))
                    on_event(Event("started", cell, running[-1].slot))
                ready, _ = ray.wait([task.reference for task in running], timeout=0.5)
                for task in list(running):
                    if stop.level:
                        (task.folder / STOP).touch()
                    record = self._answer(ray, task, ready, stop)
                    if record is None and task.reference is None:
                        task.reference, task.attempt = submit(task.cell), task.attempt + 1
                        task.submitted = time.monotonic()
                    if record is not None:
                        running.remove(task)
                        free.append(task.slot)
                        on_event(Event("finished", task.cell, task.slot, record=record))
        finally:
            probe.unlink(missing_ok=True)
            for task in running:
                with contextlib.suppress(Exception):  # the cluster may be gone, which is as good
                    ray.cancel(task.reference, force=True)

    def slots(self, cells: Sequence[CellSpec]) -> int:
        return self.wanted_slots or self._capacity(self._connect(), cells)

    def _connect(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise AdlbenchError(f"executor={self.spec.name}: Ray is missing; pip install 'adlbench[ray]'") from error
        if not ray.is_initialized():
            try:
                ray.init(
                    address=self.spec.submit.get("address"),
                    include_dashboard=False if self.spec.submit.get("address") is None else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except Exception as error:  # Ray has no common class for what can go wrong here
                address = self.spec.submit.get("address")
                raise AdlbenchError(f"executor={self.spec.name}: no Ray at address={address}: {error}") from error
        return ray

    def _options(self, cells: Sequence[CellSpec]) -> dict[str, Any]:
        options: dict[str, Any] = {"num_cpus": self.spec.cores, "max_retries": 0}
        if self.spec.memory_gb is not None:
            options["memory"] = self.spec.memory_gb * 2**30
        if any(cell.device.startswith("cuda") for cell in cells):
            # Ray tells a worker its accelerators in the environment, where a second task's would come too late.
            options |= {"num_gpus": self.spec.gpus, "max_calls": 1}
        return options | {key: value for key, value in self.spec.submit.items() if key != "address"}

    def _capacity(self, ray: Any, cells: Sequence[CellSpec]) -> int:
        if self.wanted_slots is not None:
            return max(1, self.wanted_slots)
        resources = ray.cluster_resources()
        slots = resources.get("CPU", 0) / self.spec.cores
        if any(cell.device.startswith("cuda") for cell in cells):
            slots = min(slots, resources.get("GPU", 0) / self.spec.gpus)
        return max(1, int(slots + 1e-9))

    def _answer(self, ray: Any, task: _Task, ready: list[Any], stop: Stop) -> Record | None:
        """The record of a task that ended. None while it runs; then, with the reference gone, it is to be submitted again."""
        reason = ""
        if task.reference in ready:
            try:
                values, archive = ray.get(task.reference)
                return _kept(task, Record(**values), archive)
            except Exception as error:  # the node or the worker died: RayError, or what pickle says of a torn answer
                reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        elif self._silent(task):
            reason = f"no sign of life for {self.spec.lost_seconds:g} s"
        elif stop.level > 1:
            return lost(task.cell, "ended at once; the same command continues it")
        if not reason:
            return None
        with contextlib.suppress(Exception):
            ray.cancel(task.reference, force=True)
        if task.attempt >= ATTEMPTS or stop.level:
            return keep(task.folder, lost(task.cell, f"lost {task.attempt} times on the cluster, last: {reason}"))
        task.reference = None
        return None

    def _silent(self, task: _Task) -> bool:
        now = time.monotonic()
        try:  # a node that sees the results folder touches a file there
            return time.time() - (task.folder / ALIVE).stat().st_mtime > self.spec.lost_seconds + ALIVE_SECONDS
        except OSError:
            limit = task.cell.fidelity.timeout_seconds + self.spec.grace_seconds + self.spec.lost_seconds
            return now - task.submitted > limit


def _cleared(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("record.json", ALIVE, STOP):
        (folder / name).unlink(missing_ok=True)
    return folder


def _kept(task: _Task, record: Record, archive: bytes | None) -> Record:
    if archive is not None:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(task.folder, filter="data")  # nothing leaves the folder, no links, no devices
    return record if (task.folder / "record.json").exists() else keep(task.folder, record)
