"""What an executor is: something that runs cells somewhere and tells what happens. Every executor runs the same ``run_cell``."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record
from adlbench.benchmark.specs import ExecutorSpec

EXECUTORS = {"local": "adlbench.benchmark.execution.local.LocalExecutor"}


@dataclass(frozen=True)
class Event:
    """``started``, ``progress`` (``details`` as run_cell reports them) or ``finished`` (with the record, which is on disk)."""

    kind: Literal["started", "progress", "finished"]
    cell: CellSpec
    slot: int
    details: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None


class Executor(ABC):
    def __init__(self, spec: ExecutorSpec, slots: int | None = None):
        self.spec, self.wanted_slots = spec, slots if slots is not None else spec.slots

    @abstractmethod
    def run(self, cells: Sequence[CellSpec], results_dir: Path, on_event: Callable[[Event], None]) -> None:
        """Run every cell, each to a record in its folder, whatever happens to the others.

        On KeyboardInterrupt running cells are asked to write a checkpoint and end, and the interrupt passes through.
        """


def make_executor(spec: ExecutorSpec, slots: int | None = None) -> Executor:
    module, _, name = EXECUTORS[spec.name].rpartition(".")
    return getattr(importlib.import_module(module), name)(spec, slots)  # type: ignore[no-any-return]
