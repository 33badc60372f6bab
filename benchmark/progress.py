"""How far a matrix is: kept by the runner, shown by its live table, and read by `adlbench status` from anywhere."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adlbench.benchmark.execution.base import Event
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.schedule import makespan

FILE = "status.json"
WRITE_SECONDS = 1.0


@dataclass
class SlotState:
    cell: str
    key: str
    since: float  # seconds since the epoch
    phase: str = "start"
    progress: float = 0.0
    step: int | None = None
    loss: float | None = None
    samples_per_second: float | None = None


@dataclass
class RunState:
    title: str
    total: int
    cached: int
    num_slots: int
    started: float
    updated: float
    slots: dict[int, SlotState] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    failed: list[list[str]] = field(default_factory=list)  # name, status, reason of the latest
    remaining: float | None = None  # seconds, by the estimates; None where there are none
    stopping: str = ""  # why the run is about to end
    ended: bool = False

    @property
    def done(self) -> int:
        return sum(self.counts.values())


class Progress:
    """Follows the events of a run and writes its state to ``status.json``, about once a second."""

    def __init__(
        self,
        results_dir: Path,
        title: str,
        cells: tuple[CellSpec, ...],
        cached: int,
        slots: int,
        estimate: Callable[[CellSpec], float | None],
    ):
        now = time.time()
        self.state = RunState(title, len(cells), cached, slots, now, now)
        self._path = results_dir / FILE
        self._left = {cell.key: estimate(cell) for cell in cells}
        self._written = 0.0

    def on_event(self, event: Event) -> None:
        state, now = self.state, time.time()
        if event.kind == "started":
            state.slots[event.slot] = SlotState(event.cell.name, event.cell.key, now)
        elif event.kind == "progress" and (slot := state.slots.get(event.slot)):
            details = event.details
            slot.phase, slot.progress = details.get("phase", slot.phase), details.get("progress") or 0.0
            slot.step = details.get("step", slot.step)
            slot.loss = next(iter((details.get("values") or {}).values()), slot.loss)
            slot.samples_per_second = details.get("samples_per_second", slot.samples_per_second)
        elif event.kind == "finished" and (record := event.record):
            state.slots.pop(event.slot, None)
            self._left.pop(event.cell.key, None)
            state.counts[record.status] = state.counts.get(record.status, 0) + 1
            if record.status not in ("done", "interrupted"):
                state.failed = [*state.failed[-9:], [record.name, record.status, record.reason]]
        self.write(force=event.kind == "finished" and self.state.total < 1000)

    def remaining(self) -> float | None:
        """Seconds until the end: what is left of running cells, and the others packed onto the slots."""
        known = {key: seconds for key, seconds in self._left.items() if seconds is not None}
        if not known:
            return None
        for slot in self.state.slots.values():
            if slot.key in known:
                known[slot.key] = max(0.0, known[slot.key] - (time.time() - slot.since))
        if len(known) > 5000:  # packing a large number of cells tells no more than their mean
            return sum(known.values()) / self.state.num_slots
        return makespan(known.values(), self.state.num_slots)

    def write(self, force: bool = False) -> None:
        now = time.time()
        if not force and now - self._written < WRITE_SECONDS:
            return
        self._written = self.state.updated = now
        self.state.remaining = self.remaining()
        temporary = self._path.with_name(f".{FILE}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(asdict(self.state)))
            os.replace(temporary, self._path)
        except OSError:  # a full disk is no reason to end a run; the records say the same later
            temporary.unlink(missing_ok=True)


def read_state(results_dir: Path) -> RunState | None:
    try:
        values: dict[str, Any] = json.loads((results_dir / FILE).read_text())
    except (OSError, ValueError):
        return None
    slots = {int(slot): SlotState(**value) for slot, value in values.pop("slots").items()}
    return RunState(**values, slots=slots)
