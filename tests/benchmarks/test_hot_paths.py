"""The engine's own hot paths, with pytest-benchmark: `make bench` prints them and saves build/benchmark.json.

Times of another day do not compare; `adlbench compare` interleaves two commits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adlbench.benchmark.cell import empty_record
from adlbench.benchmark.config import Catalog, parse_request
from adlbench.benchmark.leaderboard.board import boards
from adlbench.benchmark.leaderboard.frame import cell_frame
from adlbench.benchmark.plan import CellSpec, plan
from adlbench.benchmark.records import read_record, write_record
from adlbench.benchmark.tracking import sync

REQUEST = ["task=image_reconstruction", "dataset=digits", "fidelity=smoke", "device=cpu", "seed=range(0,5)"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells() -> tuple[CellSpec, ...]:
    return plan(parse_request(REQUEST), Catalog()).cells


def test_compose_every_method(benchmark: Any) -> None:
    def compose() -> int:
        catalog = Catalog()
        return len([catalog.spec("method", name) for name in catalog.names("method")])

    assert benchmark.pedantic(compose, rounds=5, warmup_rounds=1) > 20


def test_plan_a_task(benchmark: Any) -> None:
    catalog = Catalog()
    found = benchmark.pedantic(lambda: plan(parse_request(REQUEST), catalog), rounds=10, warmup_rounds=1)
    assert len(found.cells) == 10


def test_write_and_read_a_record(benchmark: Any, cells: tuple[CellSpec, ...], tmp_path: Path) -> None:
    record = empty_record(cells[0])

    def both() -> str:
        write_record(tmp_path, record)
        return read_record(tmp_path).cell_key

    assert benchmark.pedantic(both, rounds=20, warmup_rounds=1) == cells[0].key


def test_leaderboard_of_a_hundred_cells(benchmark: Any, cells: tuple[CellSpec, ...], tmp_path: Path) -> None:
    for seed in range(50):
        for cell in (replace(cells[0], seed=seed), replace(cells[5], seed=seed)):
            record = replace(
                empty_record(cell),
                status="done",
                metrics={"squared_error": 1.0 + seed, "psnr": 9.0, "ssim": 0.5},
                hardware="a CPU",
            )
            write_record(cell.folder(tmp_path), record)
    assert sync(tmp_path) == 100
    assert len(benchmark.pedantic(lambda: boards(cell_frame(tmp_path)), rounds=5, warmup_rounds=1)) == 1
