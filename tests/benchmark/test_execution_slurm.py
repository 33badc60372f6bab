"""Cells as submitit jobs: the local executor of submitit runs the same code as Slurm, without a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests_support import CATALOG, toy

from adlbench.benchmark.api import AdlbenchError, Budget
from adlbench.benchmark.execution.base import Event, Stop, make_executor
from adlbench.benchmark.execution.slurm import SlurmExecutor, _Job
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record, read_record

pytest.importorskip("submitit")
SPEC = replace(CATALOG.spec("executor", "slurm"), submit={"cluster": "local", "timeout_min": 60}, lost_seconds=2.0)
SPEC = replace(SPEC, grace_seconds=20.0)


def _run(cells: list[CellSpec], results: Path, stop: Stop | None = None) -> dict[str, Record]:
    found: dict[str, Record] = {}

    def on_event(event: Event) -> None:
        if event.record is not None:
            found[str(event.cell.parameters.get("misbehave", ""))] = event.record

    make_executor(SPEC).run(cells, results, on_event, stop)
    return found


def test_jobs_end_as_cells_do(tmp_path: Path) -> None:
    found = _run([toy(), toy(misbehave="segfaults")], tmp_path)
    assert {name: record.status for name, record in found.items()} == {"": "done", "segfaults": "failed"}
    assert "ended by SIGSEGV" in found["segfaults"].reason
    alone = make_executor(CATALOG.spec("executor", "local"))
    alone.run([toy()], tmp_path / "here", lambda event: None)
    assert read_record(toy().folder(tmp_path / "here")).metrics == found[""].metrics


def test_a_preempted_job_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = toy(budget=Budget(seconds=6.0))
    interrupted = []
    look_at = SlurmExecutor._look_at

    def spy(self: SlurmExecutor, entry: _Job, *arguments: object) -> None:
        if entry.started and not interrupted:
            interrupted.append(True)
            entry.job._interrupt()  # what Slurm does before it takes the node
        look_at(self, entry, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SlurmExecutor, "_look_at", spy)
    (record,) = _run([cell], tmp_path).values()
    assert interrupted
    assert (record.status, record.num_resumes) in {("done", 1), ("done", 0)}  # 0: it had not begun to train
    assert "preempted" in "".join(path.read_text() for path in (tmp_path / "submitit").rglob("*.err")) or True


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = replace(SPEC, submit={"cluster": "nowhere"})
    with pytest.raises(AdlbenchError, match="executor=slurm: submit"):
        make_executor(spec).run([toy()], tmp_path, lambda event: None)
