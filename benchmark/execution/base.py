"""What an executor is: something that runs cells somewhere and tells what happens. Every executor runs the same ``run_cell``."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record
from adlbench.benchmark.specs import ExecutorSpec

EXECUTORS = {
    "local": "adlbench.benchmark.execution.local.LocalExecutor",
    "ray": "adlbench.benchmark.execution.ray_cluster.RayExecutor",
    "slurm": "adlbench.benchmark.execution.slurm.SlurmExecutor",
}


@dataclass(frozen=True)
class Event:
    """``started``, ``progress`` (``details`` as run_cell reports them) or ``finished`` (with the record).

    The record is on disk, unless the disk does not take it: then its reason says so.
    """

    kind: Literal["started", "progress", "finished"]
    cell: CellSpec
    slot: int
    details: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None


@dataclass
class Stop:
    """How urgently a run is asked to end: 0 not at all; 1 running cells write a checkpoint and end; 2 at once."""

    level: int = 0
    reason: str = ""

    def request(self, reason: str) -> None:
        self.level, self.reason = min(2, self.level + 1), self.reason or reason


class Executor(ABC):
    def __init__(self, spec: ExecutorSpec, slots: int | None = None):
        self.spec, self.wanted_slots = spec, slots if slots is not None else spec.slots

    @abstractmethod
    def run(
        self, cells: Sequence[CellSpec], results_dir: Path, on_event: Callable[[Event], None], stop: Stop | None = None
    ) -> None:
        """Run every cell, each to a record in its folder, whatever happens to the others.

        When ``stop`` is raised, no cell is started any more and running ones end as it says. The same holds where
        ``on_event`` raises, which then passes through.
        """

    def slots(self, cells: Sequence[CellSpec]) -> int:
        """Cells at a time: as many as the accelerators hold, else one for each core of a small machine, each two of a
        large one."""
        if self.wanted_slots is not None:
            return max(1, self.wanted_slots)
        if any(cell.device.startswith("cuda") for cell in cells):
            import torch

            return max(1, int(torch.cuda.device_count() / self.gpus(cells) + 1e-9))
        cores = usable_cores() // max((cell.devices for cell in cells), default=1)
        return max(1, cores if cores <= 4 else cores // 2)

    def gpus(self, cells: Sequence[CellSpec]) -> float:
        """Accelerators of each cell."""
        return max(self.spec.gpus, *(cell.devices for cell in cells)) if cells else self.spec.gpus


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group where that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or "max"
        return cores


def make_executor(spec: ExecutorSpec, slots: int | None = None) -> Executor:
    module, _, name = EXECUTORS[spec.kind].rpartition(".")
    return getattr(importlib.import_module(module), name)(spec, slots)  # type: ignore[no-any-return]
