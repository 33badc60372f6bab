"""Cells as tasks of a Ray cluster (extra ``ray``).

Ray places a cell and brings its answer back. Time, memory and how a cell ended are watched on its node by the code that
does it here, because Ray tells a crash from a kill no better than ``WorkerCrashedError``. Ray's own retries are off: it
resubmits what was on a node that died, but not, for minutes, what was on a node that was cut off. So cells tell an actor
beside the driver that they live, and one that is lost, or silent, is submitted again here. Each attempt works in a folder
of its own, below ``attempts/``; the first that answers with a verdict is moved to where its cell belongs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adlbench.benchmark.config import allowed
from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.execution.base import Event, Executor, Stop
from adlbench.benchmark.execution.mailbox import Mailbox, MailLink
from adlbench.benchmark.execution.process import keep
from adlbench.benchmark.execution.remote import RemoteCell, lost
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record, record_of
from adlbench.benchmark.specs import ExecutorSpec

ATTEMPTS = 4
POLL_SECONDS = 0.5
KEPT_FOR_NEXT = ("checkpoint.pt", "log.txt")  # what an attempt takes over from the one before


def run_attempt(
    cell_json: str, results_dir: str, spec: ExecutorSpec, packages: tuple[str, ...], link: MailLink
) -> tuple[dict[str, Any], bytes | None]:
    """On a node: (record, None) where it sees ``results_dir``, else (record, the cell's folder as a tar archive)."""
    if Path(results_dir).exists():
        return asdict(RemoteCell(cell_json, results_dir, spec, packages).run(link)), None
    with tempfile.TemporaryDirectory(prefix="adlbench-") as folder:
        record = RemoteCell(cell_json, folder, spec, packages).run(link)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(CellSpec.from_json(cell_json).folder(Path(folder)), ".")
        return asdict(record), buffer.getvalue()


@dataclass
class _Attempt:
    results_dir: Path  # its own
    reference: Any  # ray.ObjectRef
    submitted: float
    heard: float | None = None  # last sign of life


@dataclass
class _Task:
    cell: CellSpec
    slot: int
    attempts: dict[str, _Attempt] = field(default_factory=dict)  # that may still answer
    submissions: int = 0
    started: bool = False
    reason: str = ""  # what became of the last attempt that is gone


class RayExecutor(Executor):
    def run(
        self, cells: Sequence[CellSpec], results_dir: Path, on_event: Callable[[Event], None], stop: Stop | None = None
    ) -> None:
        ray = self._connect()
        matrix = _Matrix(ray, self.spec, self._options(cells), results_dir.resolve(), on_event)
        try:
            matrix.run(list(cells), self._capacity(ray, cells), stop or Stop())
        except ray.exceptions.RayError as error:
            why = str(error).splitlines()[0]
            raise AdlbenchError(f"executor={self.spec.name}: {why}; the same command continues") from error
        except BaseException:
            matrix.drain()
            raise
        finally:
            matrix.close()

    def slots(self, cells: Sequence[CellSpec]) -> int:
        return self.wanted_slots or self._capacity(self._connect(), cells)

    def _connect(self) -> Any:
        # A usage report would leave the machine. Ray's workers run at niceness 15, where cells would wait for
        # everything else; this is for a Ray that is started here, a cluster's nodes have their own (docs/clusters.md).
        for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):
            os.environ.setdefault(name, "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise AdlbenchError(f"executor={self.spec.name}: Ray is missing; pip install 'adlbench[ray]'") from error
        if not ray.is_initialized():
            address = self.spec.submit.get("address") or os.environ.get("RAY_ADDRESS") or "local"
            local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
            except Exception as error:  # Ray has no common class for what can go wrong here
                raise AdlbenchError(f"executor={self.spec.name}: no Ray at address={address}: {error}") from error
        return ray

    def _options(self, cells: Sequence[CellSpec]) -> dict[str, Any]:
        options: dict[str, Any] = {"num_cpus": self.spec.cores, "max_retries": 0}
        if self.spec.memory_gb is not None:
            options["memory"] = self.spec.memory_gb * 2**30
        if any(cell.device.startswith("cuda") for cell in cells):
            # Ray tells a worker its accelerators in the environment, where a second task's would come too late.
            options |= {"num_gpus": self.gpus(cells), "max_calls": 1}
        return options | {key: value for key, value in self.spec.submit.items() if key != "address"}

    def _capacity(self, ray: Any, cells: Sequence[CellSpec]) -> int:
        if self.wanted_slots is not None:
            return max(1, self.wanted_slots)
        resources = ray.cluster_resources()
        slots = resources.get("CPU", 0) / self.spec.cores
        if any(cell.device.startswith("cuda") for cell in cells):
            slots = min(slots, resources.get("GPU", 0) / self.gpus(cells))
        return max(1, int(slots + 1e-9))


class _Matrix:
    """The driver's side of one run."""

    def __init__(
        self,
        ray: Any,
        spec: ExecutorSpec,
        options: dict[str, Any],
        results_dir: Path,
        on_event: Callable[[Event], None],
    ):
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._spec, self._results_dir, self._on_event = ray, spec, results_dir, on_event
        self._remote = ray.remote(run_attempt).options(**options)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
        self._mailbox = actor.remote()
        self._running: list[_Task] = []

    def run(self, cells: list[CellSpec], slots: int, stop: Stop) -> None:
        waiting, free, stopped = cells[::-1], list(range(slots))[::-1], None
        while (waiting and not stop.level) or self._running:
            while waiting and free and not stop.level:
                task = _Task(waiting.pop(), free.pop())
                self._running.append(task)
                self._submit(task)
            if stop.level > 1:
                return
            if stop.level and stopped is None:
                stopped = time.monotonic()
            ready = self._listen(stopped is not None)
            for task in list(self._running):
                record = self._answer(task, ready, stopped is not None)
                if record is None and stopped is not None:
                    self._let_end(task, stopped)
                elif record is None:
                    record = self._look_after(task)
                if record is not None:
                    self._finish(task, record)
                if task not in self._running:
                    free.append(task.slot)

    def drain(self) -> None:
        """Let running cells write a checkpoint and end, as far as they answer within the grace period."""
        with contextlib.suppress(Exception):  # what ended the run is what the caller is to see
            end = time.monotonic() + self._spec.grace_seconds + MailLink.seconds
            while time.monotonic() < end:
                for task in [task for task in self._running if not task.started or not task.attempts]:
                    self._cancel(task)
                    self._running.remove(task)
                if not self._running:
                    return
                ready = self._listen(True)
                for task in list(self._running):
                    if (record := self._answer(task, ready, True)) is not None:
                        self._finish(task, record)

    def close(self) -> None:
        for task in self._running:
            self._cancel(task)
        with contextlib.suppress(Exception):
            self._ray.kill(self._mailbox)
        with contextlib.suppress(OSError):
            (self._results_dir / "attempts").rmdir()

    def _submit(self, task: _Task) -> None:
        task.submissions += 1
        name = f"{task.cell.key}-{uuid.uuid4().hex[:8]}"
        attempt = self._results_dir / "attempts" / name
        folder = task.cell.folder(attempt)
        folder.mkdir(parents=True)
        for source in self._earlier(task.cell):
            for file in KEPT_FOR_NEXT:
                with contextlib.suppress(OSError):
                    shutil.copyfile(source / file, folder / file)
        arguments = (task.cell.to_json(), str(attempt), self._spec, allowed(), MailLink(self._mailbox, name))
        task.attempts[name] = _Attempt(attempt, self._remote.remote(*arguments), time.monotonic())

    def _earlier(self, cell: CellSpec) -> list[Path]:
        """The folder with the newest checkpoint of the cell: its own, or one that an attempt left."""
        attempts = (self._results_dir / "attempts").glob(f"{cell.key}-*")
        folders = [cell.folder(self._results_dir), *(cell.folder(attempt) for attempt in attempts)]
        found = [folder for folder in folders if (folder / "checkpoint.pt").exists()]
        return [max(found, key=lambda folder: (folder / "checkpoint.pt").stat().st_mtime)] if found else []

    def _listen(self, stopping: bool) -> list[Any]:
        """The answers that are there, after at most POLL_SECONDS; hands on what cells report in the meantime."""
        references = [attempt.reference for task in self._running for attempt in task.attempts.values()]
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=POLL_SECONDS)
        by_name = {name: task for task in self._running for name in task.attempts}
        try:
            news = self._ray.get(self._mailbox.collect.remote(stopping), timeout=10.0)
        except self._ray.exceptions.RayError:  # it is being started again; what it held is lost
            news = []
        for name, reports in news:
            task = by_name.get(name)
            if task is None:
                continue
            task.attempts[name].heard = time.monotonic()
            if not task.started:
                task.started = True
                self._on_event(Event("started", task.cell, task.slot))
            for details in reports:
                self._on_event(Event("progress", task.cell, task.slot, details=details))
        return list(ready)

    def _answer(self, task: _Task, ready: list[Any], stopping: bool) -> Record | None:
        """The record of the first attempt that came to a verdict; attempts that came to none are dropped."""
        for name, attempt in list(task.attempts.items()):
            if attempt.reference not in ready:
                continue
            try:
                values, archive = self._ray.get(attempt.reference)
                record = record_of(values)
                if archive is not None:
                    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                        # nothing leaves the folder, no links, no devices
                        files.extractall(task.cell.folder(attempt.results_dir), filter="data")
            except Exception as error:  # the node or the worker died: RayError, or what pickle says of a torn answer
                task.reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                del task.attempts[name]
                continue
            if record.status == "interrupted" and not stopping:  # its node was taken back
                task.reason = record.reason
                del task.attempts[name]
                continue
            self._move(task.cell, attempt)
            return record
        return None

    def _look_after(self, task: _Task) -> Record | None:
        """Submit again what is lost or silent; the record where that has been done often enough."""
        now, limit = time.monotonic(), task.cell.fidelity.timeout_seconds + self._spec.grace_seconds
        silent = 0
        for attempt in task.attempts.values():
            quiet = now - (attempt.heard or attempt.submitted)
            # one that was never heard of may wait for a free node, or lie on one that was cut off before it spoke
            if quiet > self._spec.lost_seconds + (limit if attempt.heard is None else 0.0):
                task.reason, silent = f"no sign of life for {quiet:.0f} s", silent + 1
        if silent < len(task.attempts):
            return None
        if task.submissions < ATTEMPTS:
            self._submit(task)
            return None
        record = lost(task.cell, f"lost {task.submissions} times on the cluster, last: {task.reason}")
        return keep(task.cell.folder(self._results_dir), record)

    def _let_end(self, task: _Task, since: float) -> None:
        """After a stop: a cell that has not begun, is lost, or does not answer in time is left for the next run."""
        late = time.monotonic() - since > self._spec.grace_seconds + self._spec.lost_seconds
        if not task.started or not task.attempts or late:
            self._cancel(task)
            self._running.remove(task)

    def _move(self, cell: CellSpec, attempt: _Attempt) -> None:
        """The attempt's folder becomes the cell's: by renaming, so that a driver that is killed here leaves one or the other."""
        folder, aside = cell.folder(self._results_dir), attempt.results_dir / "replaced"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder, aside)
        os.replace(cell.folder(attempt.results_dir), folder)

    def _finish(self, task: _Task, record: Record) -> None:
        self._cancel(task)
        self._running.remove(task)
        for attempt in (self._results_dir / "attempts").glob(f"{task.cell.key}-*"):
            shutil.rmtree(attempt, ignore_errors=True)
        self._on_event(Event("finished", task.cell, task.slot, record=record))

    def _cancel(self, task: _Task) -> None:
        for attempt in task.attempts.values():
            with contextlib.suppress(Exception):  # the cluster may be gone, which is as good
                self._ray.cancel(attempt.reference, force=True)
