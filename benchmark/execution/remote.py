"""One cell on another machine: what a cluster's job calls there. It is the same process under the same limits as here."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

from adlbench.benchmark.cell import empty_record
from adlbench.benchmark.config import allow
from adlbench.benchmark.execution import watch
from adlbench.benchmark.execution.base import usable_cores
from adlbench.benchmark.execution.process import CellProcess, process_context, refused
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record, write_json
from adlbench.benchmark.specs import ExecutorSpec

STOP = ".stop"  # in a cell's folder: its runner asks it to write a checkpoint and end
ALIVE = ".alive"  # in a cell's folder: touched while its job lives


class Link(Protocol):
    """How a cell and its runner hear of each other."""

    seconds: float  # between two beats

    def beat(self, news: list[dict[str, Any]]) -> bool:
        """Say that the cell lives and what it reported; whether it is asked to end. Never raises."""


class FileLink:
    """By two files in the cell's folder, on a file system that both see."""

    seconds = 5.0

    def __init__(self, folder: Path):
        self._folder = folder
        write_json(folder / ALIVE, {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()})

    def beat(self, news: list[dict[str, Any]]) -> bool:
        with contextlib.suppress(OSError):
            (self._folder / ALIVE).touch()
        return (self._folder / STOP).exists()


class RemoteCell:
    """Runs one cell to its end, and takes part in its cluster's ways of ending it early."""

    def __init__(self, cell_json: str, results_dir: str, spec: ExecutorSpec, packages: Sequence[str]):
        self._arguments = (cell_json, results_dir, spec, tuple(packages))
        self._process: CellProcess | None = None
        self.asked = False  # to end, by its runner

    def run(self, link: Link | None = None) -> Record:
        cell_json, results_dir, spec, packages = self._arguments
        allow(packages)
        cell = CellSpec.from_json(cell_json)
        folder = cell.folder(Path(results_dir))
        threads = spec.threads or min(spec.cores, usable_cores())
        try:
            self._process = CellProcess(process_context(spec, [cell]), cell, Path(results_dir), spec, threads)
        except OSError as error:
            return refused(cell, folder, error)
        try:
            self._watch(link or FileLink(folder))
        except BaseException:
            self._process.kill("interrupted", "its job was ended; the same command continues it")
            raise
        finally:
            record = self._process.conclude()
            watch.end_strays()
        return record

    def _watch(self, link: Link) -> None:
        process, next_beat, news = self._process, 0.0, list[dict[str, Any]]()
        assert process is not None
        while not process.ended:
            wait([process.events, process.sentinel], timeout=0.2)
            news += process.news()
            process.watch(watch.processes)
            if time.monotonic() >= next_beat:
                if link.beat(news):
                    self.asked = True
                    process.end("interrupted", "asked to end; the same command continues it")
                next_beat, news = time.monotonic() + link.seconds, []
        link.beat(news + process.news())

    def preempt(self) -> None:
        """The cluster takes the machine back: let the cell write a checkpoint and end."""
        process = self._process
        if process is not None:
            process.end("interrupted", "the cluster took its machine back; it goes on elsewhere")
            while not process.ended:
                wait([process.sentinel], timeout=0.2)
                process.watch(watch.processes)
            process.conclude()

    def __getstate__(self) -> dict[str, object]:
        return {"_arguments": self._arguments, "_process": None, "asked": False}


def lost(cell: CellSpec, reason: str) -> Record:
    record = empty_record(cell)
    record.reason = reason
    return record
