"""The engine's own hot paths: a name, and what makes the function to be timed from an empty folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from adlbench.benchmark.cell import empty_record
from adlbench.benchmark.config import Catalog, parse_request
from adlbench.benchmark.leaderboard.board import boards
from adlbench.benchmark.leaderboard.frame import cell_frame
from adlbench.benchmark.plan import CellSpec, plan
from adlbench.benchmark.records import read_record, write_record
from adlbench.benchmark.tracking import sync

REQUEST = ["task=image_reconstruction", "dataset=digits", "fidelity=smoke", "device=cpu", "seed=range(0,5)"]
Run = Callable[[], int]  # how many things it handled


def cells() -> tuple[CellSpec, ...]:
    return plan(parse_request(REQUEST), Catalog()).cells


def compose_every_method(folder: Path) -> Run:
    def compose() -> int:
        catalog = Catalog()
        return len([catalog.spec("method", name) for name in catalog.names("method")])

    return compose


def plan_a_task(folder: Path) -> Run:
    catalog = Catalog()
    return lambda: len(plan(parse_request(REQUEST), catalog).cells)


def write_and_read_records(folder: Path) -> Run:
    record = empty_record(cells()[0])

    def both() -> int:
        for _ in range(20):
            write_record(folder, record)
        return sum(read_record(folder).cell_key == record.cell_key for _ in range(20))

    return both


def leaderboard_of_a_hundred_cells(folder: Path) -> Run:
    two = cells()[0], cells()[5]
    for seed in range(50):
        for cell in (replace(chosen, seed=seed) for chosen in two):
            metrics = {"squared_error": 1.0 + seed, "psnr": 9.0, "ssim": 0.5}
            record = replace(empty_record(cell), status="done", metrics=metrics, hardware="a CPU")
            write_record(cell.folder(folder), record)
    assert sync(folder) == 100
    return lambda: sum(row.n for board in boards(cell_frame(folder)) for row in board.rows)


HOT_PATHS: Mapping[str, tuple[Callable[[Path], Run], int]] = {  # and how many things there are
    "compose every method": (compose_every_method, 20),
    "plan a task": (plan_a_task, 10),
    "write and read 20 records": (write_and_read_records, 20),
    "leaderboard of 100 cells": (leaderboard_of_a_hundred_cells, 100),
}
