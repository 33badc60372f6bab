"""Records arrive in MLflow once, whole, and the leaderboard's frame reads them back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests_support import toy

from adlbench.benchmark.api import Budget
from adlbench.benchmark.cell import run_cell
from adlbench.benchmark.leaderboard import frame as frames
from adlbench.benchmark.leaderboard.board import boards
from adlbench.benchmark.leaderboard.frame import cell_frame
from adlbench.benchmark.records import Record
from adlbench.benchmark.tracking import Tracker, default_uri


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    results = tmp_path_factory.mktemp("results")
    cells = [toy(seed=0, budget=Budget(seconds=1.2)), toy(seed=1), toy("toy_majority"), toy(misbehave="raises")]
    records = [run_cell(cell, cell.folder(results)) for cell in cells]
    tracker = Tracker(results, "toy", "now")
    for cell, record in zip(cells, records):
        assert tracker.deliver(cell.folder(results), record) is not None
        assert tracker.deliver(cell.folder(results), record) is None  # once each
    tracker.close()
    return results, records


def test_one_experiment_a_task_one_run_a_cell_below_a_parent(delivered: tuple[Path, list[Record]]) -> None:
    results, records = delivered
    client = MlflowClient(default_uri(results))
    experiment = client.get_experiment_by_name("adlbench/toy")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if run.data.tags["kind"] == "invocation"]
    cells = {run.data.tags["cell_key"]: run for run in runs if run.data.tags["kind"] == "cell"}
    assert len(parents) == 1
    assert set(cells) == {record.cell_key for record in records}
    assert {run.data.tags["mlflow.parentRunId"] for run in cells.values()} == {parents[0].info.run_id}
    first = cells[records[0].cell_key]
    assert first.data.metrics["top1"] == records[0].metrics["top1"]
    assert first.data.metrics["throughput"] == pytest.approx(records[0].throughput)
    assert first.inputs.dataset_inputs[0].dataset.name == "blobs"
    assert first.inputs.dataset_inputs[0].dataset.digest == records[0].data_fingerprint[:36]
    assert first.info.status == "FINISHED"
    assert cells[records[3].cell_key].info.status == "FAILED"
    curve = client.get_metric_history(first.info.run_id, "train/loss")
    assert [point.step for point in curve] == [
        point["step"]
        for point in json.loads(
            (results / "runs" / f"{records[0].name}-{records[0].cell_key}" / "curve.json").read_text()
        )
    ]
    artifacts = {item.path for item in client.list_artifacts(first.info.run_id)}
    assert {"record.json", "images"} <= artifacts


def test_frame_from_sql_equals_the_frame_from_searches(
    delivered: tuple[Path, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SQL reads MLflow's tables directly; this guards their names and meaning."""
    results, records = delivered
    by_sql = cell_frame(results).set_index("cell_key").sort_index()
    monkeypatch.setattr(frames, "_from_sqlite", lambda uri: frames._wide(*frames._from_server(uri)))
    by_search = cell_frame(results).set_index("cell_key").sort_index()
    assert list(by_sql.index) == sorted(record.cell_key for record in records)
    columns = [*frames.AXES, "status", "metric.top1", "metric.throughput", "metric.num_parameters"]
    assert by_sql[columns].astype(str).equals(by_search[columns].astype(str))


def test_board_of_the_toy_task(delivered: tuple[Path, list[Record]]) -> None:
    results, records = delivered
    found = boards(cell_frame(results))
    assert len(found) == 1
    rows = {row.method: row for row in found[0].rows}
    linear, majority = rows["linear"], rows["toy_majority"]
    assert (linear.n, majority.n) == (2, 1)
    mean = (records[0].metrics["top1"] + records[1].metrics["top1"]) / 2
    assert linear.metrics["top1"].mean == pytest.approx(mean)
    assert linear.gap_to_trivial == pytest.approx(mean - records[2].metrics["top1"])
    assert linear.gap_to_reference == pytest.approx(mean - 0.99)
    assert linear.reference_source == "made up for the test"
    assert linear.failures == {"failed": 1}
    assert linear.rank == 1
    assert majority.trivial
