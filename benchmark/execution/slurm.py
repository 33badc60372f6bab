"""Cells as tasks of Slurm array jobs, through submitit (extra ``slurm``).

Whether a cell has ended is decided by its record on the shared file system, not by Slurm's accounting, which many
clusters do not keep; whether a job is gone without a record, by the queue. A job that is preempted lets its cell write a
checkpoint and is queued again; there the cell goes on.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adlbench.benchmark.config import allowed
from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.execution.base import Event, Executor, Stop
from adlbench.benchmark.execution.process import keep
from adlbench.benchmark.execution.remote import ALIVE, STOP, RemoteCell, lost
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record, read_record

POLL_SECONDS = 1.0
QUEUE_SECONDS = 10.0  # between two questions to the queue
KILL_WAIT = 45.0  # seconds; Slurm's own, between TERM and KILL, is 30
ATTEMPTS = 3  # jobs of a cell that vanish before it is given up


@dataclass
class _Job:
    cell: CellSpec
    folder: Path
    job: Any  # submitit.Job
    slot: int
    attempt: int = 1
    started: bool = False
    gone_since: float | None = None


class CellJob:
    """What submitit pickles and calls in the job."""

    def __init__(self, remote: RemoteCell):
        self._remote = remote

    def __call__(self) -> str:
        """Return only with a verdict: a job that has ended and is queued again would otherwise be taken for lost."""
        while True:
            record = self._remote.run()
            if record.status != "interrupted" or self._remote.asked:
                return record.status
            time.sleep(KILL_WAIT)  # Slurm told the cell to end (`scontrol requeue`), and is about to end this job

    def checkpoint(self) -> Any:
        """Called by submitit when Slurm announces the end of the job (SIGUSR2): returns what is queued again."""
        from submitit.helpers import DelayedSubmission

        self._remote.preempt()
        return DelayedSubmission(self)


class SlurmExecutor(Executor):
    _queue: set[str] | None = None  # ids of our jobs, when `squeue` was last asked
    _asked_at = float("-inf")

    def run(
        self, cells: Sequence[CellSpec], results_dir: Path, on_event: Callable[[Event], None], stop: Stop | None = None
    ) -> None:
        stop = stop or Stop()
        results_dir = results_dir.resolve()
        submitter = self._submitter(results_dir, self.slots(cells))
        running = self._submit(submitter, list(cells), results_dir)
        asked = False
        try:
            while running:
                time.sleep(POLL_SECONDS)
                if stop.level and not asked:
                    asked = True
                    _ask_to_end(running)
                if stop.level > 1:
                    for entry in running:
                        entry.job.cancel(check=False)
                    return
                for entry in list(running):
                    self._look_at(entry, running, submitter, results_dir, on_event, asked)
        except BaseException:
            _ask_to_end(running)
            raise

    def slots(self, cells: Sequence[CellSpec]) -> int:
        return self.wanted_slots or 16

    def _submitter(self, results_dir: Path, slots: int) -> Any:
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise AdlbenchError(
                f"executor={self.spec.name}: submitit is missing; pip install 'adlbench[slurm]'"
            ) from error
        parameters = dict(self.spec.submit)
        cluster = parameters.pop("cluster", None)
        # %j is the job's id; the files stay beside the results because both machines must see them
        try:
            submitter = submitit.AutoExecutor(results_dir / "submitit" / "%j", cluster=cluster)
            submitter.update_parameters(
                name="adlbench", cpus_per_task=self.spec.cores, slurm_array_parallelism=slots, **parameters
            )
        except (RuntimeError, NameError, AssertionError, TypeError, ValueError) as error:
            raise AdlbenchError(f"executor={self.spec.name}: submit: {error}") from error
        return submitter

    def _submit(self, submitter: Any, cells: list[CellSpec], results_dir: Path) -> list[_Job]:
        functions = []
        for cell in cells:
            folder = cell.folder(results_dir)
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("record.json", ALIVE, STOP):
                (folder / name).unlink(missing_ok=True)
            functions.append(CellJob(RemoteCell(cell.to_json(), str(results_dir), self.spec, allowed())))
        with submitter.batch():
            jobs = [submitter.submit(function) for function in functions]
        return [_Job(cell, cell.folder(results_dir), job, i) for i, (cell, job) in enumerate(zip(cells, jobs))]

    def _look_at(
        self,
        entry: _Job,
        running: list[_Job],
        submitter: Any,
        results_dir: Path,
        on_event: Callable[[Event], None],
        asked: bool,
    ) -> None:
        if not entry.started and (entry.folder / ALIVE).exists():
            entry.started = True
            on_event(Event("started", entry.cell, entry.slot))
        record = self._record(entry, asked)
        if record is None and entry.gone_since is not None:
            if time.monotonic() - entry.gone_since < self.spec.lost_seconds:
                return
            if entry.attempt < ATTEMPTS and not asked:
                (job,) = self._submit(submitter, [entry.cell], results_dir)
                entry.job, entry.attempt, entry.started, entry.gone_since = job.job, entry.attempt + 1, False, None
                return
            job_id = entry.job.job_id
            record = keep(entry.folder, lost(entry.cell, f"{entry.attempt} jobs vanished, the last was {job_id}"))
        if record is not None:
            running.remove(entry)
            with contextlib.suppress(OSError):
                (entry.folder / STOP).unlink(missing_ok=True)
            on_event(Event("finished", entry.cell, entry.slot, record=record))

    def _record(self, entry: _Job, asked: bool) -> Record | None:
        """The record of a cell that has ended; while there is none, notes since when its job is not in the queue."""
        ended = entry.job.paths.result_pickle.exists() or self._vanished(entry.job)
        if (entry.folder / "record.json").exists():
            with contextlib.suppress(AdlbenchError):
                record = read_record(entry.folder)
                if record.status != "interrupted" or asked:  # else it was preempted, and is in the queue again
                    return record
        if not ended:
            entry.gone_since = None
        elif entry.gone_since is None:
            entry.gone_since = time.monotonic()
        return None

    def _vanished(self, job: Any) -> bool:
        """Whether the job has left the queue; as long as `squeue` gives no answer it has not."""
        if type(job).__name__ != "SlurmJob":
            return bool(job.done())
        if time.monotonic() > self._asked_at + QUEUE_SECONDS:
            self._asked_at = time.monotonic()
            command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
                self._queue = set(answer.stdout.split())
        return self._queue is not None and job.job_id not in self._queue


def _ask_to_end(running: list[_Job]) -> None:
    for entry in running:
        with contextlib.suppress(OSError):
            (entry.folder / STOP).touch()
        if not entry.started:
            entry.job.cancel(check=False)
