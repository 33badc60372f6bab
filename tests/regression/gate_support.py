"""A comparison without processes: workers that train for real, in this process, and whose times and memory are made up."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from adlbench.benchmark.regression import comparison
from adlbench.benchmark.regression.comparison import Comparison, Plan, compare
from adlbench.benchmark.regression.session import Tree, WorkerError
from adlbench.benchmark.regression.speed import SpeedRule
from adlbench.benchmark.regression.worker import Side

COINS = ["task=coins", "plugins=gateworld", "fidelity=short", "device=cpu"]
QUICK = SpeedRule(resamples=300, max_rounds=120)


class FakeWorker:
    """``tree.environment`` says what is special about a side: overrides, a factor on its times, more memory."""

    made = 0

    def __init__(self, tree: Tree, cores: object = (), threads: int = 1):
        self.tree, self.side = tree, Side()
        FakeWorker.made += 1
        self.random = np.random.default_rng(FakeWorker.made)
        self.position = FakeWorker.made % 3  # 1 base, 2 control, 0 head

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        special = self.tree.environment
        if do == "describe":
            arguments["requests"] = [[*r, *special.get("OVERRIDES", "").split()] for r in arguments["requests"]]
        if do == "open":
            return {}
        if do == "memory":
            return {"resident": 500.0 + float(special.get("MEMORY", 0)), "device": None}
        if do in ("steps", "inference"):
            factor = float(special.get("FACTOR", 1)) * (
                float(os.environ.get("CONTROL", "1")) if self.position == 2 else 1
            )
            cpu = 0.005 * factor * float(np.exp(0.01 * self.random.normal()))
            return {"cpu": cpu, "wall": cpu * (1.3 + 0.1 * self.random.random()) * float(special.get("WALL", 1))}
        try:
            return getattr(self.side, do)(**arguments)  # type: ignore[no-any-return]
        except Exception as error:
            raise WorkerError(f"{self.tree.label}: {error}") from error

    def forked(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        pass

    def __enter__(self) -> FakeWorker:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def sides(base: dict[str, str] | None = None, head: dict[str, str] | None = None) -> list[Tree]:
    return [
        Tree(label, digit * 40, Path("."), sys.executable, special or {})
        for label, digit, special in (("main", "a", base), ("topic", "b", head))
    ]


def compared(
    folder: Path,
    base: dict[str, str] | None = None,
    head: dict[str, str] | None = None,
    seeds: str = "0,1,2,3,4",
    requests: list[list[str]] | None = None,
    **options: Any,
) -> Comparison:
    """A comparison of two made-up sides of the coin world."""
    FakeWorker.made = 0
    plan = Plan(requests or [[*COINS, f"seed={seeds}"]], 3)
    return compare(sides(base, head), plan, folder / "cells", rule=QUICK, seconds=60, options=COINS, **options)


def fake_workers(monkeypatch: Any) -> Iterator[None]:
    monkeypatch.setattr(comparison, "Worker", FakeWorker)
    monkeypatch.setattr(comparison, "quiet_core", list)
    yield
