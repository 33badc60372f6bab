"""Who spent the time.

Accounts are exclusive: while an inner one runs, the outer one stands still. So they add up to the wall time, and what
nobody claimed is ``other``. The device is synchronised by the caller at the ends of chunks only; inside a chunk an
account on an accelerator holds the time that the host spent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

ACCOUNTS = (
    "setup",
    "compile",
    "data",
    "train",
    "monitor",
    "adapt",
    "evaluate",
    "measure",
    "analyse",
    "checkpoint",
    "log",
    "other",
)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    def __init__(self, start: float | None = None) -> None:
        self.seconds = dict.fromkeys(ACCOUNTS, 0.0)
        self._start = self._last = time.perf_counter() if start is None else start
        self._stack = ["other"]

    @contextmanager
    def account(self, name: str) -> Iterator[None]:
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._last
        self._last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Re-book time that was measured inside an account by somebody else (an evaluator's adaptation)."""
        seconds = min(seconds, self.seconds[source])
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def add(self, earlier: dict[str, float]) -> None:
        """The accounts of an interrupted run that this one continues."""
        for name, seconds in earlier.items():
            self.seconds[name] += seconds
            self._start -= seconds

    def read(self) -> dict[str, float]:
        self._charge()
        return dict(self.seconds)

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._start
