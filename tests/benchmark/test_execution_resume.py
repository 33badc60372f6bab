"""The same command again: what ended is left alone, what changed runs anew and says why, one runner at a time."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests_support import CATALOG, toy

from adlbench.benchmark import sources as source_hashes
from adlbench.benchmark.api import AdlbenchError, Budget
from adlbench.benchmark.cell import run_cell
from adlbench.benchmark.execution.base import Event, Stop, make_executor
from adlbench.benchmark.plan import CellSpec, Plan
from adlbench.benchmark.records import Index, read_record
from adlbench.benchmark.runner import exclusive, is_held, run_matrix, select
from adlbench.benchmark.sources import difference, digest, sources

EXECUTOR = replace(CATALOG.spec("executor", "local"), grace_seconds=1.0)
INLINE = replace(EXECUTOR, isolation="inline")


def _run(cell: CellSpec, results: Path) -> None:
    record = run_cell(cell, cell.folder(results))
    assert record.status == "done", record.reason


def _plan(*cells: CellSpec) -> Plan:
    return Plan(cells, (), "toy")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MLflow: nobody listens there, and nobody waits for it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_changed_code_makes_a_cell_new_and_says_so(tmp_path: Path, away: None) -> None:
    before = replace(toy(), code={"adlbench.methods.a": "1", "adlbench.methods.b": "1"})
    _run(before, tmp_path)
    assert len(select(_plan(before), tmp_path).cached) == 1
    now = replace(before, code={"adlbench.methods.a": "2", "adlbench.methods.b": "1", "adlbench.methods.c": "1"})
    selection = select(_plan(now), tmp_path)
    assert selection.changes == {now.key: "code: methods.a changed, methods.c new"}
    assert selection.run == (now,)
    assert select(_plan(now), tmp_path, keep=True).run == ()
    started = read_record(before.folder(tmp_path)).started
    run_matrix(selection, tmp_path, make_executor(INLINE), lambda event: None, "toy", lambda cell: None)
    assert select(_plan(now), tmp_path).run == ()
    old = list((tmp_path / "superseded").glob("**/record.json"))
    assert [read_record(path.parent).started for path in old] == [started]


def test_only_code_that_the_method_reaches_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "elsewhere"
    package.mkdir()
    files = {
        "method": '"""A method."""\nfrom elsewhere.layers import Layer\n\nclass M:\n    layer = Layer\n',
        "layers": "from . import deep\n\nclass Layer:\n    x = deep.X\n",
        "deep": "X = 1\n",
        "unrelated": "Y = 1\n",
    }

    def write(**changes: str) -> dict[str, str]:
        for name, text in {**files, **changes}.items():
            (package / f"{name}.py").write_text(text)
        source_hashes.sources.cache_clear()
        source_hashes._read.cache_clear()
        return dict(sources("elsewhere.method.M"))

    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    first = write()
    assert set(first) == {"elsewhere.method", "elsewhere.layers", "elsewhere.deep", "elsewhere"}
    assert write(unrelated="Y = 2\n") == first
    assert write(deep="# why\n\nX    =   1\n", method=files["method"].replace("A method", "The method")) == first
    changed = write(deep="X = 2\n")
    assert difference(first, changed) == "elsewhere.deep changed"
    assert digest(first) != digest(changed)
    assert not any(name.startswith("adlbench.benchmark") for name in sources(toy().method.target))
    for name in [name for name in sys.modules if name.startswith("elsewhere")]:
        del sys.modules[name]


def test_changed_data_makes_a_cell_new_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "shift.txt"
    file.write_text("0.5")
    cell = toy(dataset={"shift_file": str(file)})
    _run(cell, tmp_path)
    assert select(_plan(cell), tmp_path).run == ()
    os.utime(file, (1, 1))  # another time, the same bytes
    assert select(_plan(cell), tmp_path).run == ()
    file.write_text("0.25")
    selection = select(_plan(cell), tmp_path)
    fingerprint = read_record(cell.folder(tmp_path)).data_fingerprint[:12]
    assert selection.changes[cell.key].startswith(f"data: blobs was {fingerprint}, is ")
    assert str(file) in selection.changes[cell.key]
    assert select(_plan(cell), tmp_path, keep=True).run == ()


def test_a_changed_configuration_or_protocol_is_a_new_cell_and_says_so(tmp_path: Path) -> None:
    cell = toy()
    _run(cell, tmp_path)
    other = toy(lr=0.2)
    assert select(_plan(other), tmp_path).changes == {other.key: "configuration: parameters.lr None -> 0.2"}
    protocol = replace(cell, task=replace(cell.task, protocol="top1@2"))
    assert select(_plan(protocol), tmp_path).changes == {
        protocol.key: "configuration: task.protocol 'top1@1' -> 'top1@2'"
    }
    assert select(_plan(cell, toy(seed=7)), tmp_path).changes == {}  # a suite that grew needs no explanation


def test_only_chooses_by_name_and_key(tmp_path: Path) -> None:
    cells = [toy(seed=seed) for seed in range(3)] + [toy("toy_majority")]
    plan = _plan(*cells)
    assert select(plan, tmp_path, only=["seed1"]).run == (cells[1],)
    assert select(plan, tmp_path, only=["*/linear/*"]).run == tuple(cells[:3])
    assert select(plan, tmp_path, only=[cells[2].key[:6], "majority"]).run == (cells[2], cells[3])


def test_fail_fast_ends_the_run(tmp_path: Path, away: None) -> None:
    cells = [toy(misbehave="raises"), *(toy(seed=seed) for seed in range(1, 6))]
    estimates = {cell.key: float(10 - i) for i, cell in enumerate(cells)}
    outcome = run_matrix(
        select(_plan(*cells), tmp_path),
        tmp_path,
        make_executor(INLINE),
        lambda event: None,
        "toy",
        lambda cell: estimates[cell.key],
        fail_fast=True,
    )
    assert outcome.counts == {"failed": 1}
    assert [cell.seed for cell in outcome.left] == [1, 2, 3, 4, 5]


def test_a_killed_cell_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    fidelity = replace(toy().fidelity, checkpoint_seconds=0.0)
    straight = toy(budget=Budget(steps=30))
    killed = replace(
        toy(budget=Budget(steps=30), misbehave="kills itself once", at_step=15),
        fidelity=fidelity,
    )
    for cell in (straight, killed, killed):
        make_executor(EXECUTOR, 1).run([cell], tmp_path, lambda event: None)
    records = [read_record(cell.folder(tmp_path)) for cell in (straight, killed)]
    assert [record.status for record in records] == ["done", "done"]
    assert records[1].num_resumes == 1
    assert records[0].metrics == records[1].metrics
    states = [torch.load(c.folder(tmp_path) / "checkpoint.pt", weights_only=True) for c in (straight, killed)]
    for name, value in states[0]["method"]["net"].items():
        assert torch.equal(value, states[1]["method"]["net"][name])
    assert torch.equal(states[0]["random"], states[1]["random"])


@pytest.mark.parametrize("damage", ["torn", "of other code", "of other data"])
def test_a_checkpoint_that_does_not_fit_is_not_continued(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = replace(toy(), code={"m": "1"})
    _run(cell, tmp_path)
    path = cell.folder(tmp_path) / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        origin = state["log"]["origin"].replace(digest(cell.code) if "code" in damage else "data ", "other")
        state["log"]["origin"] = origin
        torch.save(state, path)
    again = run_cell(cell, cell.folder(tmp_path))
    assert (again.status, again.num_resumes) == ("done", 0)
    assert "training starts anew" in capsys.readouterr().out


def test_a_second_runner_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    ready, ready_end = os.pipe()
    child = os.fork()
    if child == 0:
        with exclusive(tmp_path):
            os.write(ready_end, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    try:
        assert is_held(tmp_path)
        with (
            pytest.raises(AdlbenchError, match=f"process {child} on .* has been working there since"),
            exclusive(tmp_path),
        ):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not is_held(tmp_path)
    with exclusive(tmp_path):  # what the killed one left does not count
        assert is_held(tmp_path)


def test_stop_once_writes_checkpoints_and_starts_no_cell(tmp_path: Path) -> None:
    cells, stop = [toy(budget=Budget(seconds=60.0)), toy(seed=1)], Stop()

    def on_event(event: Event) -> None:
        if event.kind == "progress" and event.details.get("step", 0) > 1 and not stop.level:
            stop.request("asked to end")

    make_executor(replace(EXECUTOR, grace_seconds=60.0), 1).run(cells, tmp_path, on_event, stop)
    assert read_record(cells[0].folder(tmp_path)).status == "interrupted"
    assert (cells[0].folder(tmp_path) / "checkpoint.pt").exists()
    assert not cells[1].folder(tmp_path).exists()
    assert len(select(_plan(*cells), tmp_path).run) == 2


def test_stop_twice_does_not_wait(tmp_path: Path) -> None:
    cell, stop = toy(misbehave="hangs"), Stop()

    def on_event(event: Event) -> None:
        if event.kind == "progress" and event.details.get("step") == 1:
            stop.request("asked to end")
            stop.request("asked to end")

    executor = make_executor(replace(EXECUTOR, grace_seconds=100.0), 1)
    begin = time.monotonic()
    executor.run([cell], tmp_path, on_event, stop)
    assert time.monotonic() - begin < 60
    assert read_record(cell.folder(tmp_path)).status == "interrupted"


def test_index_follows_the_records(tmp_path: Path) -> None:
    cell = toy("toy_majority")
    _run(cell, tmp_path)
    index = Index(tmp_path)  # made from the records that are there
    index.save()
    assert [summary.name for summary in Index(tmp_path).all()] == [cell.name]
    with open(tmp_path / "runs/index.jsonl", "a") as file:
        file.write('["half a li')  # a writer was killed
    folder = cell.folder(tmp_path)
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(text.replace('"done"', '"failed"'))
    index = Index(tmp_path)
    summary = index.get(folder)
    assert summary is not None
    assert summary.status == "failed"  # the record changed, the line does not count
    index.save()
    again = Index(tmp_path).get(folder)
    assert again == summary
    (folder / "record.json").write_text(text[:100])
    assert Index(tmp_path).get(folder) is None
