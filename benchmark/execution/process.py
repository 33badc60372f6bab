"""One cell in a process of its own: started, watched, ended, and concluded with a record whatever happened."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController

from adlbench.benchmark.api import TaskKind
from adlbench.benchmark.cell import Interrupted, empty_record, run_cell
from adlbench.benchmark.config import allow, allowed
from adlbench.benchmark.execution import watch
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record, read_record, record_of, write_record
from adlbench.benchmark.specs import ExecutorSpec

Context = ForkServerContext | SpawnContext | ForkContext
WATCH_SECONDS = 0.5  # between two looks at memory, processes and log
LOCK = ".lock"
# Modules that cost seconds to import are loaded once, in the fork server, and only when a cell of that kind needs them.
PRELOAD = [
    "adlbench.benchmark.cell",
    "scipy.spatial",
    "skimage.measure",
    "sklearn.datasets",
]
WARM = "adlbench.benchmark.execution.warm"  # after all others
PRELOAD_BY_KIND = {TaskKind.GENERATION: ["torchvision", "torch_fidelity"]}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def process_context(spec: ExecutorSpec, cells: Iterable[CellSpec]) -> Context:
    watch.mark_runner()
    if spec.isolation == "spawn":
        return multiprocessing.get_context("spawn")
    if spec.isolation == "fork":  # for a cluster's job, which has no thread but this one and computes nothing itself
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    extra = [name for kind in sorted({cell.task.kind for cell in cells}) for name in PRELOAD_BY_KIND.get(kind, [])]
    context.set_forkserver_preload([*PRELOAD, *extra, WARM])
    # OpenBLAS starts the threads that it was loaded with anew in every fork, where they spin for 50 ms before they rest.
    # With one there are none, and set_threads can still ask for more.
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    forkserver.ensure_running()
    if before is None:
        del os.environ["OPENBLAS_NUM_THREADS"]
    else:
        os.environ["OPENBLAS_NUM_THREADS"] = before
    return context


class LeadsOutError(OSError):
    """The folder of a cell lies behind a link; nothing is written there, not even a record."""


class CellProcess:
    """A started cell. Raises OSError where it cannot be started; ``conclude`` says how it ended."""

    def __init__(
        self,
        context: Context,
        cell: CellSpec,
        results_dir: Path,
        spec: ExecutorSpec,
        threads: int,
        slot: int = 0,
    ):
        self.cell, self.slot, self.folder = cell, slot, cell.folder(results_dir)
        self._spec = spec
        check_inside(self.folder, results_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "record.json").unlink(missing_ok=True)
        self.events, sender = context.Pipe(duplex=False)
        arguments = (cell.to_json(), str(self.folder), threads, os.getpid(), sender, allowed())
        self._process = context.Process(target=_child, args=arguments)
        self._kernel_kills = watch.kernel_kills()
        self._process.start()
        sender.close()
        self.sentinel = self._process.sentinel
        self._deadline = time.monotonic() + cell.fidelity.timeout_seconds
        self._next_watch = 0.0
        self._kill_at: float | None = None
        self._verdict: tuple[str, str] | None = None  # why we ended it
        self._members: dict[int, int] = {}
        self._last_words: dict[str, Any] | None = None  # a record that the cell could not write
        self._record: Record | None = None

    @property
    def ended(self) -> bool:
        return not self._process.is_alive()

    def news(self) -> list[dict[str, Any]]:
        """What the cell reported since the last call."""
        found = []
        with contextlib.suppress(EOFError, OSError):
            while self.events.poll():
                message = self.events.recv()
                if "record" in message:
                    self._last_words = message["record"]
                else:
                    found.append(message)
        return found

    def watch(self, snapshot: Callable[[], Mapping[int, watch.Process]]) -> None:
        """Enforce the limits on time, memory, processes and log."""
        now = time.monotonic()
        if self._kill_at is None and now > self._deadline:
            limit = self.cell.fidelity.timeout_seconds
            self.end("timeout", f"no end after {limit:g} s; raise it with timeout=SECONDS")
        if self._kill_at is not None and now > self._kill_at:
            self.kill()
        if now < self._next_watch or self._process.pid is None:
            return
        self._next_watch = now + WATCH_SECONDS
        watch.cut_log(self.folder / "log.txt")
        self._members = watch.members(self._process.pid, snapshot(), self._members)
        limit_mb = self._spec.memory_gb * 1024 if self._spec.memory_gb is not None else float("inf")
        used = watch.memory_mb(self._members, at_least=limit_mb)
        if used > limit_mb:
            self.kill(
                "out_of_memory",
                f"held {used:.0f} MB in {len(self._members)} processes, the limit is {limit_mb:.0f} MB; "
                f"raise it with executor.memory_gb=NUMBER",
            )
        elif len(self._members) > self._spec.max_processes:
            self.kill(
                "failed",
                f"had {len(self._members)} processes, the limit is {self._spec.max_processes}; start fewer "
                f"data-loader workers or raise it with executor.max_processes=NUMBER",
            )

    def memory_mb(self) -> float:
        return watch.memory_mb(self._members)

    def end(self, status: str, reason: str) -> None:
        """Ask the cell to write a checkpoint and end; after the grace period it is killed. The first verdict counts."""
        if self._kill_at is None:
            self._verdict = self._verdict or (status, reason)
            self._kill_at = time.monotonic() + self._spec.grace_seconds
            self._signal(signal.SIGTERM)

    def kill(self, status: str | None = None, reason: str = "") -> None:
        if status is not None:
            self._verdict = self._verdict or (status, reason)
        self._kill_at = self._kill_at or time.monotonic()
        self._signal(signal.SIGKILL)
        watch.kill_members(self._members)

    def conclude(self) -> Record:
        """The record of an ended process: its own, or one that says how it died. Nothing that it started lives on."""
        if self._record is None:
            self._record = self._conclude()
        return self._record

    def _conclude(self) -> Record:
        if self._process.pid is not None:
            watch.kill_members(watch.members(self._process.pid, watch.processes(), self._members))
        self._signal(signal.SIGKILL)
        self._process.join()
        self.news()
        self.events.close()
        watch.cut_log(self.folder / "log.txt")
        code = self._process.exitcode or 0
        record = empty_record(self.cell)
        if (self.folder / "record.json").exists():
            record = read_record(self.folder)
            if self._verdict is None or record.status != "interrupted" or self._verdict[0] == "interrupted":
                return record
        elif self._last_words is not None:
            record = record_of(self._last_words)
        if self._verdict is not None:
            record.status, record.reason = self._verdict
        elif self._last_words is not None:
            record.status = "failed"
        elif code == -signal.SIGKILL and watch.kernel_kills() > self._kernel_kills:
            record.status, record.reason = "out_of_memory", "ended by the kernel for want of memory"
        elif code < 0:
            record.status, record.reason = "failed", f"ended by {signal.Signals(-code).name}"
        else:
            record.status, record.reason = "failed", f"exit code {code} without a record"
        if record.status in ("failed", "out_of_memory", "timeout"):
            record.reason += log_tail(self.folder)
        return keep(self.folder, record)

    def _signal(self, number: int) -> None:
        pid = self._process.pid
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not self._process.is_alive() or os.getpgid(pid) == pid:
                os.killpg(pid, number)
            else:  # it has not called setsid yet
                os.kill(pid, number)


def check_inside(folder: Path, results_dir: Path) -> None:
    runs = results_dir / "runs"
    if not folder.resolve().is_relative_to(runs.resolve()):
        raise LeadsOutError(f"{folder} leads out of {runs} through a link; remove the link")


def keep(folder: Path, record: Record) -> Record:
    """Write the record; where the disk does not take it, its reason says so and the run goes on."""
    try:
        write_record(folder, record)
    except OSError as error:
        record.reason += f"; the record could not be written ({error}): free or mend {folder.parent}, run again"
    return record


def refused(cell: CellSpec, folder: Path, error: OSError) -> Record:
    """The record of a cell that could not be started."""
    record = empty_record(cell)
    record.reason = f"could not be started: {error}; mend it and run again with --retry failed"
    return record if isinstance(error, LeadsOutError) else keep(folder, record)


# ---------------------------------------------------------------------------------------------------- inside the process
def _child(
    cell_json: str, folder: str, threads: int, parent: int, events: Connection, packages: tuple[str, ...]
) -> None:
    start = time.perf_counter()
    os.setsid()  # a group of its own, so that the timeout reaches whatever the cell starts
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (
        signal.SIGUSR1,
        signal.SIGUSR2,
    ):  # a cluster sends them to all of its job's processes: the job ends us
        signal.signal(number, signal.SIG_IGN)
    _end_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def progress(event: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the parent is gone; the record still counts
            events.send(event)

    def last_words(record: Record) -> None:
        progress({"record": asdict(record)})

    spec = CellSpec.from_json(cell_json)
    try:
        lock = _prepare(Path(folder))
    except OSError as error:
        record = empty_record(spec)
        record.reason = f"its folder cannot be used: {error}"
        return last_words(record)
    set_threads(threads)
    allow(packages)
    with contextlib.suppress(Interrupted):
        run_cell(spec, Path(folder), progress, start, last_words)
    os.close(lock)


def _prepare(folder: Path) -> int:
    """Log, traces of crashes, the lock, and an environment without what is for the writer only."""
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # the last words before a KILL count most
    faulthandler.enable()
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    lock = _lock(folder)
    (folder / "record.json").unlink(missing_ok=True)
    return lock


def set_threads(threads: int) -> None:
    """Threads of torch, of the BLAS libraries under numpy, and of processes that are started from here."""
    import torch

    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    torch.set_num_threads(threads)
    pools().limit(limits=threads, user_api="blas")


@cache
def pools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded; to find them takes longer than to start a cell."""
    return ThreadpoolController()


def _lock(folder: Path) -> int:
    """Only one process works in a cell's folder: what a killed runner left there has a moment to end."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(100):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        time.sleep(0.1)
    sys.exit(f"another process has been working in {folder} for ten seconds; end it, or wait for it")


def _end_with(parent: int) -> None:
    """End this process and its group when the runner is gone, however it went."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: with the fork server, which ends with the runner

    def poll() -> None:
        while True:
            time.sleep(1.0)
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os.killpg(0, signal.SIGKILL)

    threading.Thread(target=poll, daemon=True).start()


def log_tail(folder: Path, lines: int = 3) -> str:
    """The last lines of the log, or, where the interpreter crashed, the innermost of what it was doing."""
    try:
        with open(folder / "log.txt", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2**15))
            text = file.read().decode(errors="replace").strip()
    except OSError:
        return ""
    _, crash, stack = text.rpartition("(most recent call first):\n")
    tail = stack.splitlines()[:lines] if crash else text.splitlines()[-lines:]
    title = "it crashed at" if crash else "last lines"
    return f"; {title}: {' | '.join(line.strip()[:300] for line in tail)}" if text else ""
