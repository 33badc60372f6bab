"""One cell: clock, windows, checkpoint and resume, divergence, records, re-evaluation."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import toy

from adlbench import ArraySplit
from adlbench.benchmark import cell
from adlbench.benchmark.api import AdlbenchError, Budget, DataError
from adlbench.benchmark.cell import Interrupted, check_split, reevaluate, run_cell, throughput
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record, read_arrays, read_record, write_record


def test_record_of_a_finished_cell(tmp_path: Path) -> None:
    record = run_cell(toy(budget=Budget(steps=60)), tmp_path)
    assert (record.status, record.steps, record.samples) == ("done", 60, 480)
    assert record.metrics["top1"] > 0.9
    assert record.num_parameters == 12 * 2 + 2
    # forward 2 * 8 * 12 * 2; backward: the weight's gradient, and none for the input
    assert record.train_step_flops == 2 * (2 * 8 * 12 * 2)
    assert record.inference_flops == 2 * 1 * 12 * 2
    assert record.latency[0].batch_size == 1
    assert record.latency[0].p95_ms >= record.latency[0].p50_ms > 0
    assert record.peak_memory_mb is not None
    assert 50 < record.peak_memory_mb < 20_000
    assert len(record.data_fingerprint) == 64
    assert record.hardware.endswith("1 thread")
    assert record.environment["packages"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    items = read_arrays(tmp_path / "items.npz")
    assert len(next(iter(items.values()))) == 16  # the smoke fidelity's max_items
    assert read_record(tmp_path) == record
    assert CellSpec.from_json((tmp_path / "cell.json").read_text()).key == record.cell_key


def test_accounts_add_up_to_the_wall_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[float] = []

    def noted(folder: Path, record: Record) -> None:  # what it takes to write a record cannot stand in it
        ends.append(time.perf_counter())
        write_record(folder, record)

    monkeypatch.setattr(cell, "write_record", noted)
    begin = time.perf_counter()
    record = run_cell(toy(budget=Budget(seconds=1.5)), tmp_path, start=begin)
    wall = ends[0] - begin
    assert sum(record.accounts.values()) == pytest.approx(wall, rel=0.01)
    assert record.wall_seconds == pytest.approx(wall, rel=0.01)
    used = record.accounts["train"] + record.accounts["data"] + record.accounts["compile"]
    chunks = [seconds for _, _, seconds, _ in json.loads((tmp_path / "windows.json").read_text())]
    assert sum(chunks[:-1]) < 1.5 <= used * 1.01  # a budget in seconds ends with the chunk in which it is used up
    assert {name for name, seconds in record.accounts.items() if seconds > 0} >= {"setup", "data", "train", "evaluate"}


def test_clock_accounts_are_exclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("adlbench.benchmark.clock.time.perf_counter", lambda: now[0])
    clock = Clock()
    now[0] += 1.0
    with clock.account("train"):
        now[0] += 2.0
        with clock.account("data"):
            now[0] += 4.0
        now[0] += 8.0
    seconds = clock.read()
    assert (seconds["other"], seconds["train"], seconds["data"]) == (1.0, 10.0, 4.0)
    assert sum(seconds.values()) == clock.wall == 15.0
    clock.move("data", "adapt", 0.5)
    assert (clock.read()["data"], clock.read()["adapt"]) == (3.5, 0.5)


def test_windows_are_the_samples_of_the_throughput(tmp_path: Path) -> None:
    record = run_cell(toy(budget=Budget(seconds=2.0)), tmp_path)
    windows = json.loads((tmp_path / "windows.json").read_text())
    assert sum(w[0] for w in windows) + 1 == record.steps  # the first step is reported as compilation
    assert sum(w[1] for w in windows) + 8 == record.samples
    assert max(w[2] for w in windows[:-1]) < 1.5  # chunks of about half a second
    assert record.throughput == throughput(windows)
    # closed form: one second of warm-up is left out
    assert throughput([[1, 10, 0.6, 0], [1, 10, 0.6, 0], [1, 100, 2.0, 0]]) == pytest.approx(50.0)
    assert throughput([[1, 10, 0.1, 0]]) == pytest.approx(100.0)
    assert throughput([]) is None


@pytest.mark.parametrize("stop_at", [1, 7, 19])
def test_interrupted_cell_resumes_to_the_same_record(tmp_path: Path, stop_at: int) -> None:
    straight = run_cell(toy(budget=Budget(steps=20)), tmp_path / "straight")
    spec = toy(budget=Budget(steps=20), misbehave="stops once", at_step=stop_at)
    with pytest.raises(Interrupted):
        run_cell(spec, tmp_path / "resumed")
    assert read_record(tmp_path / "resumed").status == "interrupted"
    resumed = run_cell(spec, tmp_path / "resumed")
    assert (resumed.status, resumed.steps, resumed.num_resumes) == ("done", 20, 1)
    assert resumed.metrics == straight.metrics
    assert resumed.samples == straight.samples
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("straight", "resumed")]
    assert torch.equal(states[0]["method"]["net"]["weight"], states[1]["method"]["net"]["weight"])
    assert torch.equal(states[0]["random"], states[1]["random"])
    assert sum(resumed.accounts.values()) == pytest.approx(resumed.wall_seconds, rel=0.01)


def test_a_task_may_measure_other_batch_sizes(tmp_path: Path) -> None:
    spec = toy()
    spec = replace(spec, task=replace(spec.task, inference_batch_sizes={"smoke": (3,), "full": (8,)}))
    assert [latency.batch_size for latency in run_cell(spec, tmp_path).latency] == [3]
    assert spec.key == toy().key


def test_divergence_keeps_the_last_good_state(tmp_path: Path) -> None:
    record = run_cell(toy(misbehave="diverges", at_step=3, budget=Budget(steps=20)), tmp_path)
    assert record.status == "diverged"
    assert "loss" in record.reason
    assert record.metrics == {}
    if (tmp_path / "checkpoint.pt").exists():
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert torch.isfinite(state["method"]["net"]["weight"]).all()


def test_exception_becomes_a_status(tmp_path: Path) -> None:
    record = run_cell(toy(misbehave="raises"), tmp_path)
    assert (record.status, record.reason) == ("failed", "RuntimeError: no luck today")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"poison": True}, "1 items hold NaN or infinity in 'points'"),
        ({"num_train": 0}, "train split: there is no item"),
        ({"num_test": 0}, "test split: there is no item"),
    ],
)
def test_bad_data_is_named(tmp_path: Path, dataset: dict[str, object], message: str) -> None:
    record = run_cell(toy(dataset=dataset), tmp_path)
    assert record.status == "failed"
    assert message in record.reason
    assert "blobs" in record.reason


@pytest.mark.parametrize("dataset", [{"classes": 1}, {"num_train": 3}])
def test_one_class_and_a_batch_larger_than_the_set_run(tmp_path: Path, dataset: dict[str, object]) -> None:
    record = run_cell(toy(dataset=dataset), tmp_path)
    assert record.status == "done", record.reason


def test_same_seed_same_bits(tmp_path: Path) -> None:
    first, second = (run_cell(toy(), tmp_path / name) for name in "ab")
    assert first.metrics == second.metrics
    curves = [json.loads((tmp_path / name / "curve.json").read_text())[-1]["loss"] for name in "ab"]
    assert curves[0] == curves[1]
    other = run_cell(toy(seed=1), tmp_path / "c")
    assert json.loads((tmp_path / "c" / "curve.json").read_text())[-1]["loss"] != curves[0]
    assert other.cell_key != first.cell_key


def test_evaluate_again_gives_the_same_numbers(tmp_path: Path) -> None:
    run_cell(toy(), tmp_path)
    assert reevaluate(tmp_path).differing == {}
    record = json.loads((tmp_path / "record.json").read_text())
    record["metrics"]["top1"] = 12.5
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert set(reevaluate(tmp_path).differing) == {"top1"}


def test_evaluate_says_that_the_data_changed(tmp_path: Path) -> None:
    run_cell(toy(), tmp_path)
    cell = json.loads((tmp_path / "cell.json").read_text())
    cell["dataset"]["parameters"] = {"num_test": 20}
    (tmp_path / "cell.json").write_text(json.dumps(cell))
    with pytest.raises(AdlbenchError, match="bytes changed"):
        reevaluate(tmp_path)


def test_loader_is_a_function_of_seed_and_position(tmp_path: Path) -> None:
    def context() -> CellContext:
        parts = (0, "blobs", "all", 0)
        device = torch.device("cpu")
        return CellContext(
            device=device,
            precision="fp32",
            budget=Budget(steps=1),
            work_folder=tmp_path,
            seed_parts=parts,
            clock=Clock(),
        )

    split = ArraySplit(index=np.arange(10))

    def shift(batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"index": batch["index"] + torch.randint(0, 100, batch["index"].shape, generator=generator)}

    first = context()
    batches = first.loader(split, 4)
    epoch = [next(batches)["index"] for _ in range(2)]
    assert len(set(torch.cat(epoch).tolist())) == 8  # without replacement, the incomplete batch is dropped
    augmented = context().loader(split, 4, transform=shift)
    straight = [next(augmented)["index"] for _ in range(5)]
    resumed_context = context()
    resumed = resumed_context.loader(split, 4, transform=shift)
    resumed_context.load_state_dict({"step": 3, "samples": 12, "generators": {}, "loaders": {"train": 3}})
    assert torch.equal(next(resumed)["index"], straight[3])
    assert first.seed("a") != first.seed("b")
    assert first.seed("a") == context().seed("a")


def test_check_split_names_the_field() -> None:
    with pytest.raises(DataError, match=r"1 items hold NaN or infinity in 'x'"):
        check_split(ArraySplit(x=np.array([[0.0, np.inf], [0.0, 1.0]])), "here")
