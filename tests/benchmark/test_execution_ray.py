"""A Ray cluster of two nodes on this machine: a node killed, a node cut off, a driver started again.

`python -m pytest -m slow tests/benchmark/test_execution_ray.py`; needs the extra ``ray``, else it skips.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests_support import CATALOG, toy

from adlbench.benchmark.api import Budget
from adlbench.benchmark.execution import ray_cluster, watch
from adlbench.benchmark.execution.base import Event, make_executor
from adlbench.benchmark.plan import CellSpec, Plan
from adlbench.benchmark.records import Record, read_record
from adlbench.benchmark.runner import select

pytestmark = pytest.mark.slow
SPEC = replace(CATALOG.spec("executor", "ray"), cores=1, grace_seconds=1.0)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(watch.TOKEN, raising=False)  # the nodes are not processes of a runner
    import ray

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8},
    )
    try:
        cluster.add_node(num_cpus=1, object_store_memory=10**8)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def _run(spec: Any, cells: list[CellSpec], results: Path, on_started: Any = lambda event, n: None) -> list[Record]:
    found: list[Record] = []
    started = 0

    def on_event(event: Event) -> None:
        nonlocal started
        if event.record is not None:
            found.append(event.record)
        if event.kind == "started":
            started += 1
        on_started(event, started)

    make_executor(spec).run(cells, results, on_event)
    return found


def _second_node(cluster: Any) -> Any:
    return next(node for node in cluster.list_all_nodes() if not node.head)


def _tree(pid: int) -> list[int]:
    return list(watch.members(pid, watch.processes(), {}))


def test_a_killed_node_loses_no_cell(cluster: Any, tmp_path: Path) -> None:
    cells = [toy(seed=seed, budget=Budget(seconds=3.0)) for seed in range(6)]

    def on_event(event: Event, started: int) -> None:
        if event.kind == "finished" and len(list(tmp_path.glob("runs/**/record.json"))) == 2:
            cluster.remove_node(_second_node(cluster), allow_graceful=False)

    records = _run(SPEC, cells, tmp_path, on_event)
    assert [record.status for record in records] == ["done"] * 6
    assert {record.seed for record in records} == set(range(6))
    assert len(cluster.list_all_nodes()) == 1


def test_a_node_that_is_cut_off_loses_no_cell(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "ALIVE_SECONDS", 1.0)
    cells = [toy(seed=seed, budget=Budget(seconds=3.0)) for seed in range(4)]
    frozen: list[int] = []

    def on_event(event: Event, started: int) -> None:
        if event.kind == "finished" and not frozen:
            (raylet,) = (p.process for p in _second_node(cluster).all_processes["raylet"])
            frozen.extend(_tree(raylet.pid))
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)  # nothing comes from there any more

    try:
        records = _run(replace(SPEC, lost_seconds=15.0), cells, tmp_path, on_event)
        assert frozen
        assert sorted(record.seed for record in records) == [0, 1, 2, 3]
        assert [record.status for record in records] == ["done"] * 4
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGKILL)


def test_a_driver_that_is_started_again_continues(cluster: Any, tmp_path: Path) -> None:
    cells = [toy(seed=seed, budget=Budget(seconds=2.0)) for seed in range(4)]

    def on_event(event: Event, started: int) -> None:
        if event.kind == "finished":
            raise ConnectionError("the driver is gone")

    with pytest.raises(ConnectionError):
        _run(SPEC, cells, tmp_path, on_event)
    left = select(Plan(tuple(cells), (), "toy"), tmp_path).run
    assert 1 <= len(left) < 4
    _run(SPEC, list(left), tmp_path)
    assert {read_record(cell.folder(tmp_path)).status for cell in cells} == {"done"}


def test_a_node_without_the_results_folder_sends_it_back(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = toy()
    remote = ray_cluster.run_task

    def elsewhere(cell_json: str, results_dir: str, spec: Any, packages: tuple[str, ...], probe: str) -> Any:
        return remote(cell_json, results_dir, spec, packages, "/nowhere")

    monkeypatch.setattr(ray_cluster, "run_task", elsewhere)
    (record,) = _run(SPEC, [cell], tmp_path)
    assert record.status == "done"
    assert read_record(cell.folder(tmp_path)) == record
    assert (cell.folder(tmp_path) / "checkpoint.pt").exists()
