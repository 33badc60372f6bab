"""Every way a process can go wrong is a status with its reason; every other cell runs; no process is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests_support import CATALOG, toy

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.execution import watch
from adlbench.benchmark.execution.base import Event, make_executor
from adlbench.benchmark.plan import CellSpec, Plan, plan
from adlbench.benchmark.records import Record, read_record
from adlbench.benchmark.runner import exclusive, select
from adlbench.benchmark.specs import Request

EXECUTOR = replace(CATALOG.spec("executor", "local"), grace_seconds=1.0)


def _run(cells: list[CellSpec], folder: Path, executor: object = EXECUTOR, slots: int = 2) -> dict[str, Record]:
    found: dict[str, Record] = {}

    def on_event(event: Event) -> None:
        if event.record is not None:
            found[str(event.cell.parameters.get("misbehave") or event.cell.seed)] = event.record

    make_executor(executor, slots).run(cells, folder, on_event)  # type: ignore[arg-type]
    return found


def _left_behind() -> list[str]:
    """Command lines of living processes that were born with this runner's mark, without its direct children (the fork
    server, and what other tests may hold)."""
    found = []
    for pid, process in watch.processes().items():
        try:
            environment = (watch.PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        marked = f"{watch.TOKEN}={os.getpid()}:".encode() in environment
        if marked and process.parent != os.getpid() and not process.zombie:
            found.append((watch.PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_no_death_of_a_process_takes_another_with_it(tmp_path: Path) -> None:
    names = ("eats memory", "starts too many processes", "segfaults", "leaves a daemon", "prints")
    cells = [*(toy(misbehave=name) for name in names), toy(seed=1), toy(seed=2)]
    found = _run(cells, tmp_path, replace(EXECUTOR, memory_gb=1.5, max_processes=24))
    assert {name: record.status for name, record in found.items()} == {
        "eats memory": "out_of_memory",
        "starts too many processes": "failed",
        "segfaults": "failed",
        "leaves a daemon": "done",
        "prints": "done",
        "1": "done",
        "2": "done",
    }
    assert "the limit is 1536 MB" in found["eats memory"].reason
    assert "the limit is 24" in found["starts too many processes"].reason
    assert "ended by SIGSEGV" in found["segfaults"].reason
    segfault_log = (cells[2].folder(tmp_path) / "log.txt").read_text()
    assert "Fatal Python error: Segmentation fault" in segfault_log
    assert "in _misbehave" in found["segfaults"].reason  # the line of the method that did it
    log = cells[4].folder(tmp_path) / "log.txt"
    assert log.stat().st_size < watch.LOG_LIMIT
    assert "bytes left out here" in log.read_text()
    assert log.read_text().rstrip().endswith("the end")
    for cell in cells:
        assert (
            read_record(cell.folder(tmp_path)).status
            == found[str(cell.parameters.get("misbehave") or cell.seed)].status
        )
    assert _left_behind() == []


def test_a_folder_that_cannot_be_written_costs_its_own_cell(tmp_path: Path) -> None:
    cells = [toy(seed=1), toy("toy_majority"), toy(seed=2)]
    obstacle = cells[1].folder(tmp_path).parents[1]
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder should be")
    found = {record.name: record for record in _run(cells, tmp_path).values()}
    assert [found[cell.name].status for cell in cells] == ["done", "failed", "done"]
    assert "could not be started" in found[cells[1].name].reason
    assert "Not a directory" in found[cells[1].name].reason
    obstacle.unlink()
    again = select(Plan(tuple(cells), (), "toy"), tmp_path)
    assert [cell.key for cell in again.run] == [cells[1].key]


def test_a_results_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(AdlbenchError, match=r"results_dir=.*cannot be written"),
        exclusive(tmp_path / "file" / "results"),
    ):
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of two megabytes cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_status_and_mending_it_is_enough(small_disk: Path) -> None:
    cells = [toy(seed=seed) for seed in range(3)]
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 2**14))
    found = _run(cells, small_disk)
    assert {record.status for record in found.values()} == {"failed"}
    assert all("No space left on device" in record.reason for record in found.values())
    filler.unlink()
    plan = Plan(tuple(cells), (), "toy")
    assert {
        record.status for record in _run(list(select(plan, small_disk, retry="failed").run), small_disk).values()
    } == {"done"}
    assert select(plan, small_disk).run == ()


def test_a_method_that_cannot_be_imported_takes_no_other_with_it() -> None:
    request = Request(task=("toy",), method=("toy_broken", "toy_majority"), fidelity="smoke", plugins=("toybench",))
    found = plan(request)
    assert [cell.method.name for cell in found.cells] == ["toy_majority"]
    assert [(skip.method, skip.broken) for skip in found.skipped] == [("toy_broken", True)]
    assert "RuntimeError: this library is not for your processor" in found.skipped[0].reason


def test_the_log_is_cut_to_its_two_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOG_LIMIT", 1000)
    monkeypatch.setattr(watch, "LOG_KEPT", 100)
    log = tmp_path / "log.txt"
    log.write_bytes(b"a" * 500 + b"b" * 500)
    assert watch.cut_log(log) == 0
    log.write_bytes(b"a" * 500 + b"b" * 600)
    assert watch.cut_log(log) == 900
    text = log.read_text()
    assert text.startswith("a" * 100 + "\n[adlbench: 900 bytes left out here")
    assert text.endswith("]\n" + "b" * 100)
    assert watch.cut_log(tmp_path / "absent.txt") == 0


def test_memory_counts_shared_pages_once() -> None:
    """A child that shares all of its parent's memory adds nothing to it."""
    block = bytearray(b"x") * (64 * 2**20)
    alone = watch.memory_mb([os.getpid()])
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read_end, 1)
        os._exit(0)
    both = watch.memory_mb([os.getpid(), child])
    os.write(write_end, b"x")
    os.waitpid(child, 0)
    assert both == pytest.approx(alone, abs=16)
    assert watch.memory_mb([os.getpid()]) >= 64
    assert len(block) == 64 * 2**20
