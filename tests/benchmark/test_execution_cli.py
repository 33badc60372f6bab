"""A matrix seen from outside: lines in a pipe, status from another terminal, one cell, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests_support import toy

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.cell import run_cell
from adlbench.benchmark.cli.main import main
from adlbench.benchmark.cli.show import sparkline
from adlbench.benchmark.durations import parse_duration
from adlbench.benchmark.execution.base import Event
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.progress import Progress, read_state
from adlbench.benchmark.records import Index, read_record
from adlbench.benchmark.schedule import History, fit, makespan


def test_pipe_status_and_interrupt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://user:sesame@127.0.0.1:9"}
    environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    command = [sys.executable, "-m", "adlbench.benchmark.cli.main", "run", "task=toy", "plugins=toybench", "slots=2"]
    command += ["method=toy_slow,toy_majority", "fidelity=smoke", "device=cpu", f"results_dir={results}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    seen = ""
    while "[1/2]" not in seen:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        seen += line
    assert process.poll() is None  # the line did not wait for the end
    assert "toy/blobs/toy_majority/smoke/seed0: top1 0.5000" in seen
    assert "2 cells on 2 slots, about 2:00 and 1 without an estimate; 0 are there already" in seen
    while "train" not in {slot.phase for slot in getattr(read_state(results), "slots", {}).values()}:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.5)
    assert main(["status", "--results-dir", str(results), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["running"]
    assert status["holder"]["pid"] == process.pid
    assert status["counts"] == {"done": 1}
    assert main(["run", "task=toy", "plugins=toybench", f"results_dir={results}"]) == 2
    assert f"process {process.pid} on" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "interrupted; the same command continues" in err
    assert "1 records did not reach MLflow" in seen + out
    assert "sesame" not in seen + out + err
    assert not any(b"sesame" in path.read_bytes() for path in results.glob("**/*") if path.is_file())
    records = [read_record(path.parent) for path in results.glob("runs/**/record.json")]
    assert sorted(record.status for record in records) == ["done", "interrupted"]
    assert main(["status", "--results-dir", str(results)]) == 0
    assert "ended: 2/2 cells" in capsys.readouterr().out


def test_show_a_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [toy(seed=0), toy(misbehave="raises")]
    for cell in cells:
        run_cell(cell, cell.folder(tmp_path))
        (cell.folder(tmp_path) / "log.txt").write_text("first\nlast words\n")
    assert main(["show", cells[0].key[:5], "--results-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for words in (str(cells[0].folder(tmp_path)), "done", "top1", "loss", "last words", "images/"):
        assert words in shown
    assert main(["show", cells[1].key, "--results-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"]["reason"] == "RuntimeError: no luck today"
    assert main(["show", "linear", "--results-dir", str(tmp_path)]) == 2
    assert "2 cells have it in their names" in capsys.readouterr().err
    assert main(["show", "nothing", "--results-dir", str(tmp_path)]) == 2
    assert "there is no such cell" in capsys.readouterr().err
    assert sparkline([0.0, 1.0, 2.0]) == "0 ▁▅█ 2"
    assert sparkline([1.0]) == "1 ▁ 1"


def test_estimates_come_from_what_is_nearest(tmp_path: Path) -> None:
    cell = toy(seed=0)
    run_cell(cell, cell.folder(tmp_path))
    seconds = read_record(cell.folder(tmp_path)).wall_seconds
    history = History(Index(tmp_path))
    assert history(toy(seed=5)) == seconds  # the same pair
    assert history(toy("toy_majority")) == seconds  # another method on the same data
    assert History(Index(tmp_path / "empty"))(cell) is None


def test_makespan_and_what_fits() -> None:
    assert makespan([3, 3, 2, 2, 2], 2) == 7  # longest first: 3+2+2 beside 3+2; the best possible would be 6
    assert makespan([], 3) == 0
    cells = [toy(seed=seed) for seed in range(5)]
    seconds = {cell.key: value for cell, value in zip(cells, [50.0, 10.0, None, 20.0, 30.0])}

    def estimate(cell: CellSpec) -> float | None:
        return seconds[cell.key]

    chosen, left = fit(cells, estimate, 1, 60.0)
    assert [cell.seed for cell in chosen] == [1, 2, 3, 4]  # 10 + 20 + 30, and the one of which nothing is known
    assert [cell.seed for cell in left] == [0]
    assert fit(cells, estimate, 2, 60.0)[1] == []
    assert [cell.seed for cell in fit(cells, estimate, 1, 5.0)[0]] == [2]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30min", 1800), ("2h", 7200), ("1h30min", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "3 parsecs", "-5min", "5minutes"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(AdlbenchError, match="not a duration"):
        parse_duration(text)


def test_time_left_counts_down(tmp_path: Path) -> None:
    cells = (toy(seed=0), toy(seed=1), toy(seed=2))
    progress = Progress(tmp_path, "toy", cells, 0, 2, lambda cell: 10.0)
    assert progress.remaining() == 20.0
    progress.on_event(Event("started", cells[0], 0))
    progress.state.slots[0].since -= 4.0
    remaining = progress.remaining()
    assert remaining is not None
    assert remaining == pytest.approx(16.0, abs=0.5)  # 10 and 6 beside 10
    progress.on_event(Event("progress", cells[0], 0, {"phase": "train", "step": 7, "values": {"loss": 0.5}}))
    progress.write(force=True)
    state = read_state(tmp_path)
    assert state is not None
    assert (state.slots[0].step, state.slots[0].loss, state.num_slots) == (7, 0.5, 2)
