"""What a cell that does nothing costs the engine: its process, the fork server, the runner and MLflow.

`ADLBENCH_CELLS=200 python -m pytest -m slow -s tests/benchmarks/test_engine_cost.py`; CPU seconds hold on a machine that is
busy with other things, to some 20 %. The goal is one for the wall time of a matrix on an idle machine with two cores.
"""

from __future__ import annotations

import multiprocessing.forkserver
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests_support import CATALOG, toy

from adlbench.benchmark.api import Budget
from adlbench.benchmark.execution.base import Event, make_executor
from adlbench.benchmark.runner import Selection, run_matrix

CELLS = int(os.environ.get("ADLBENCH_CELLS", "200"))
GOAL_MS, LIMIT_MS = 60.0, 200.0  # of wall time a cell, on two slots; of CPU, which notices what makes a cell dearer


def _fork_server_seconds() -> tuple[float, float]:
    """CPU of the fork server, and of its children that have ended (man 5 proc: utime, stime, cutime, cstime)."""
    pid = multiprocessing.forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    own, children = (sum(map(int, pair)) / os.sysconf("SC_CLK_TCK") for pair in (fields[:2], fields[2:]))
    return own, children


@pytest.mark.slow
def test_a_cell_that_does_nothing_costs_little(tmp_path: Path) -> None:
    one = toy("toy_majority", budget=Budget(steps=1))
    task = replace(one.task, options={**one.task.options, "pictures": 0})  # which take 25 ms where they are drawn
    cells = [replace(one, task=task, seed=seed) for seed in range(CELLS + 4)]
    inside: list[float] = []
    walls: list[float] = []

    def on_event(event: Event) -> None:
        if event.record is not None:
            assert event.record.status == "done", event.record.reason
            inside.append(event.record.cpu_seconds)

    executor = make_executor(CATALOG.spec("executor", "local"), 2)

    def measured(part: list[object], results: Path, tracked: bool) -> dict[str, float]:
        inside.clear()
        before, mine, begin = _fork_server_seconds(), time.process_time(), time.perf_counter()
        if tracked:
            run_matrix(Selection(tuple(part), ()), results, executor, on_event, "cost", lambda cell: None)  # type: ignore[arg-type]
        else:
            executor.run(part, results, on_event)  # type: ignore[arg-type]
        walls.append(1e3 * (time.perf_counter() - begin) / len(part))
        after = _fork_server_seconds()
        costs = {
            "in the cell": sum(inside),
            "its start and end": after[1] - before[1] - sum(inside),
            "fork server": after[0] - before[0],
            "runner": time.process_time() - mine,
        }
        return {name: 1e3 * seconds / len(part) for name, seconds in costs.items()}

    executor.run(cells[:2], tmp_path / "warm", on_event)  # starts the fork server
    plain = measured(cells[4:], tmp_path / "plain", tracked=False)  # type: ignore[arg-type]
    run_matrix(Selection(tuple(cells[2:4]), ()), tmp_path / "tracked", executor, on_event, "warm", lambda cell: None)
    tracked = measured(cells[4:], tmp_path / "tracked", tracked=True)  # type: ignore[arg-type]
    costs = {**plain, "MLflow and index": tracked["runner"] - plain["runner"]}
    print(f"\nms of CPU for each of {CELLS} cells that do nothing")
    for name, value in costs.items():
        print(f"  {name:<20}{value:8.1f}")
    total = sum(costs.values())
    print(f"  {'together':<20}{total:8.1f}")
    print(
        f"wall time a cell, on two slots: {walls[0]:.1f} without MLflow, {walls[1]:.1f} with it (goal: {GOAL_MS:.0f})"
    )
    assert total <= LIMIT_MS, costs
