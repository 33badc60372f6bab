"""Series over commits from a real tracking store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adlbench.benchmark.cell import empty_record
from adlbench.benchmark.cli.baseline import plan_cells
from adlbench.benchmark.cli.main import main
from adlbench.benchmark.leaderboard.frame import cell_frame
from adlbench.benchmark.records import write_record
from adlbench.benchmark.regression.history import history, sparkline
from adlbench.benchmark.tracking import sync


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two cells at twelve commits; from the eighth on throughput is a fifth lower."""
    results = tmp_path_factory.mktemp("results")
    cells = plan_cells(None, ["task=coins", "plugins=gateworld", "fidelity=short", "device=cpu", "seed=0,1"])
    for index in range(12):
        for cell in cells:
            record = replace(
                empty_record(cell),
                status="done",
                started=f"2026-01-{index + 1:02}T00:00:00+00:00",
                metrics={"top1": 0.9, "nll": 0.1},
                throughput=(100.0 if index < 7 else 80.0) + (index % 3) + cell.seed,
                hardware="a CPU",
                code={"version": "1", "commit": f"{index:040x}", "dirty": False},
            )
            write_record(cell.folder(results), record)
        sync(results)
    return results


def test_series_hold_a_point_for_each_commit_and_find_the_step(results: Path) -> None:
    quality, speed = history(results, "worker")
    assert (quality.quantity, speed.quantity) == ("top1", "throughput")
    assert quality.steps == ()
    assert [point.commit for point in speed.points] == [f"{index:040x}" for index in range(12)]
    assert {point.seeds for point in speed.points} == {2}
    assert speed.points[0].value == pytest.approx(100.5)
    assert [step.index for step in speed.steps] == [7]
    assert speed.to_dict()["steps"][0]["relative"] == pytest.approx(-0.2, abs=0.03)


def test_the_leaderboard_still_takes_the_latest_run_only(results: Path) -> None:
    assert len(cell_frame(results)) == 2
    assert len(cell_frame(results, latest=False)) == 24


def test_verb_draws_and_tells_json(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "worker", "--results-dir", str(results)]) == 0
    told = capsys.readouterr().out
    assert "throughput" in told
    assert "step at 00000000: 101" in told
    assert main(["history", "worker", "--results-dir", str(results), "--json", "--quantity", "nll"]) == 0
    assert [series["quantity"] for series in json.loads(capsys.readouterr().out)] == ["nll"]
    assert main(["history", "nobody", "--results-dir", str(results)]) == 2
    assert "no finished cell of method 'nobody'" in capsys.readouterr().err


def test_sparkline_spans_its_values() -> None:
    assert sparkline([0, 1, 2, 7]) == "▁▂▃█"
    assert sparkline([5.0, 5.0]) == "▁▁"
