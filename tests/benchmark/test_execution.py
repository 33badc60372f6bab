"""A matrix of real processes: whatever happens to one cell, it gets a status and the next one runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests_support import CATALOG, toy

from adlbench.benchmark.api import Budget
from adlbench.benchmark.execution.base import Event, make_executor
from adlbench.benchmark.plan import CellSpec, Plan
from adlbench.benchmark.records import read_record
from adlbench.benchmark.runner import Selection, run_matrix, select
from adlbench.benchmark.tracking import sync

EXECUTOR = replace(CATALOG.spec("executor", "local"), grace_seconds=1.0)


def _run(cells: list[CellSpec], folder: Path, slots: int = 2) -> dict[str, str]:
    make_executor(EXECUTOR, slots).run(cells, folder, lambda event: None)
    return {str(cell.parameters.get("misbehave", cell.seed)): read_record(cell.folder(folder)).status for cell in cells}


def test_every_end_is_a_status(tmp_path: Path) -> None:
    cells = [toy(misbehave=name) for name in ("raises", "exits", "kills itself", "diverges", "")]
    hanging = toy(misbehave="hangs")
    cells.insert(0, replace(hanging, fidelity=replace(hanging.fidelity, timeout_seconds=2.0)))
    assert _run(cells, tmp_path) == {
        "hangs": "timeout",
        "raises": "failed",
        "exits": "failed",
        "kills itself": "failed",
        "diverges": "diverged",
        "": "done",
    }
    reasons = {str(cell.parameters["misbehave"]): read_record(cell.folder(tmp_path)).reason for cell in cells}
    assert "exit code 7" in reasons["exits"]
    assert "SIGKILL" in reasons["kills itself"]
    assert "no luck today" in reasons["raises"]
    assert "2 s" in reasons["hangs"]
    log = (cells[1].folder(tmp_path) / "log.txt").read_text()
    assert "Traceback" in log


def test_the_same_command_continues(tmp_path: Path) -> None:
    stopping = toy(misbehave="stops once", budget=Budget(steps=20), at_step=10)
    plan = Plan((toy(), stopping), (), "toy")
    selection = select(plan, tmp_path)
    assert len(selection.run) == 2
    _run(list(selection.run), tmp_path)
    again = select(plan, tmp_path)
    assert [cell.parameters.get("misbehave") for cell in again.run] == ["stops once"]
    assert _run(list(again.run), tmp_path) == {"stops once": "done"}
    assert read_record(stopping.folder(tmp_path)).num_resumes == 1
    assert select(plan, tmp_path).run == ()


def test_failed_cells_run_again_only_when_asked(tmp_path: Path) -> None:
    plan = Plan((toy(misbehave="raises"),), (), "toy")
    _run(list(plan.cells), tmp_path)
    assert select(plan, tmp_path).run == ()
    assert len(select(plan, tmp_path, retry="failed").run) == 1
    assert select(plan, tmp_path, retry="timeout").run == ()


def test_events_tell_the_story(tmp_path: Path) -> None:
    events: list[Event] = []
    make_executor(EXECUTOR, 1).run([toy(budget=Budget(seconds=1.2))], tmp_path, events.append)
    kinds = [event.kind for event in events]
    assert (kinds[0], kinds[-1]) == ("started", "finished")
    phases = [event.details.get("phase") for event in events if event.kind == "progress"]
    assert phases[0] == "setup"
    assert phases.count("train") >= 2
    assert events[-1].record is not None
    assert events[-1].record.status == "done"


def test_processes_give_the_same_numbers_as_one(tmp_path: Path) -> None:
    cells = [toy(seed=seed) for seed in (0, 1, 2)]
    _run(cells, tmp_path / "processes")
    make_executor(replace(EXECUTOR, isolation="inline")).run(cells, tmp_path / "inline", lambda event: None)
    for cell in cells:
        one, other = (read_record(cell.folder(tmp_path / name)) for name in ("processes", "inline"))
        assert one.metrics == other.metrics


def test_interrupt_writes_checkpoints(tmp_path: Path) -> None:
    cell = toy(budget=Budget(seconds=60.0))

    def interrupt(event: Event) -> None:
        if event.kind == "progress" and event.details.get("phase") == "train" and event.details.get("step", 0) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_executor(EXECUTOR, 1).run([cell], tmp_path, interrupt)
    assert read_record(cell.folder(tmp_path)).status == "interrupted"
    assert (cell.folder(tmp_path) / "checkpoint.pt").exists()


def test_a_store_out_of_reach_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    selection = Selection((toy(),), ())
    executor = make_executor(EXECUTOR, 1)
    outcome = run_matrix(selection, tmp_path, executor, lambda event: None, "toy", lambda cell: None)
    assert re.match(r"1 records did not reach MLflow.*adlbench sync", outcome.undelivered)
    assert read_record(selection.run[0].folder(tmp_path)).status == "done"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync(tmp_path) == 1
    assert sync(tmp_path) == 0
