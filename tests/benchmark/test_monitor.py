"""Evaluations during training: they are there, they cost no training time, and they change nothing."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import toy

from adlbench.benchmark import cell as cell_module
from adlbench.benchmark.api import Budget
from adlbench.benchmark.cell import Interrupted, run_cell
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.leaderboard.report.runs import CURVE_POINTS, curve
from adlbench.benchmark.monitor import Monitor, untouched_generators
from adlbench.benchmark.plan import CellSpec


def monitored(count: int = 5, **changes: Any) -> CellSpec:
    cell = toy(**changes)
    return replace(cell, fidelity=replace(cell.fidelity, evaluations=count))


def evaluations(folder: Path) -> list[tuple[int, float, float]]:
    points = json.loads((folder / "curve.json").read_text())
    return [(p["step"], p["seconds"], p["eval/top1"]) for p in points if "eval/top1" in p]


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)  # type: ignore[no-any-return]


def test_weights_are_the_same_to_the_bit_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy draws from torch's global generator in each step, and so does this evaluation."""
    original = cell_module.evaluate

    def drawing(*arguments: Any) -> Any:
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        return original(*arguments)

    monkeypatch.setattr(cell_module, "evaluate", drawing)
    plain = run_cell(toy(budget=Budget(steps=200)), tmp_path / "plain")
    watched = run_cell(monitored(budget=Budget(steps=200)), tmp_path / "watched")
    assert evaluations(tmp_path / "plain") == []
    found = evaluations(tmp_path / "watched")
    assert len(found) >= 3  # chunks double from one step on, so that not every share is met
    assert [step for step, _, _ in found] == sorted({step for step, _, _ in found})
    assert found[-1][0] == 200
    assert found[-1][2] == watched.metrics["top1"]
    assert watched.metrics == plain.metrics
    assert (watched.steps, watched.samples, watched.cell_key) == (plain.steps, plain.samples, plain.cell_key)
    first, second = state(tmp_path / "plain"), state(tmp_path / "watched")
    assert all(torch.equal(first["method"]["net"][name], second["method"]["net"][name]) for name in ("weight", "bias"))
    assert torch.equal(first["random"], second["random"])


def test_training_time_leaves_them_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = cell_module.evaluate
    calls = []

    def slow(*arguments: Any) -> Any:
        calls.append(time.sleep(0.3))
        return original(*arguments)

    monkeypatch.setattr(cell_module, "evaluate", slow)
    record = run_cell(monitored(budget=Budget(steps=200)), tmp_path)
    during = len(calls) - 1
    assert during == len(evaluations(tmp_path)) - 1 >= 1
    assert record.accounts["monitor"] >= 0.3 * during
    assert sum(record.accounts.values()) == pytest.approx(record.wall_seconds, rel=0.01)
    seconds = json.loads((tmp_path / "curve.json").read_text())[-1]["seconds"]
    assert seconds == pytest.approx(record.total_train_seconds, rel=0.05)
    windows = json.loads((tmp_path / "windows.json").read_text())
    assert sum(window[2] for window in windows) <= record.total_train_seconds * 1.01


def test_at_most_a_quarter_of_the_training_time() -> None:
    clock = Clock()
    monitor = Monitor(4, lambda: 0.5, clock, torch.device("cpu"))
    clock.seconds["monitor"] = 0.3
    assert monitor(0.25, 1.0) is None
    assert monitor(0.5, 2.0) == 0.5


def test_resumed_cell_makes_the_evaluations_that_are_left(tmp_path: Path) -> None:
    spec = monitored(budget=Budget(steps=60), misbehave="stops once", at_step=30)
    with pytest.raises(Interrupted):
        run_cell(spec, tmp_path)
    before = evaluations(tmp_path)
    record = run_cell(spec, tmp_path)
    found = evaluations(tmp_path)
    assert record.status == "done"
    assert found[: len(before)] == before
    assert len(found) > len(before)
    assert len({step for step, _, _ in found}) == len(found)


def test_shares_values_and_failures() -> None:
    values = iter([0.5, float("nan"), None, 0.9])
    monitor = Monitor(4, lambda: next(values), Clock(), torch.device("cpu"))
    assert monitor(0.2, 1.0) is None  # not yet
    assert monitor(0.25, 1.0) == 0.5
    assert monitor(0.3, 1.0) is None  # had already
    assert monitor(0.99, 1.0) is None  # nan; the second share went by in the same chunk
    assert monitor(1.0, 1.0) is None  # the evaluation after training

    def fails() -> float:
        raise ValueError("an empty mesh")

    assert Monitor(4, fails, Clock(), torch.device("cpu"))(0.5, 1.0) is None
    assert Monitor(0, fails, Clock(), torch.device("cpu"))(0.5, 1.0) is None


def test_generators_stand_where_they_stood() -> None:
    def draws() -> list[float]:
        return [float(torch.rand(())), float(np.random.rand()), random.random()]  # noqa: NPY002

    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    expected = draws()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    with untouched_generators():
        draws()
    assert draws() == expected


def test_page_keeps_evaluations_of_a_long_curve_at_their_seconds(tmp_path: Path) -> None:
    points: list[dict[str, float]] = [{"step": s, "seconds": s / 2, "loss": 1.0} for s in range(1, 2001)]
    for at in (250, 777, 2000):
        points[at - 1]["eval/top1"] = at / 2000
    (tmp_path / "curve.json").write_text(json.dumps(points))
    series = curve(tmp_path)
    assert len(series["step"]) == CURVE_POINTS
    kept = [(s, t, v) for s, t, v in zip(series["step"], series["seconds"], series["eval/top1"]) if v is not None]
    assert kept == [(250, 125, 0.125), (777, 388.5, 0.3885), (2000, 1000, 1)]
