"""The runner, its cells and the writer are SIGKILLed at random moments: nothing is lost, doubled or torn.

`python -m pytest -m slow tests/benchmark/test_execution_kills.py` does it two hundred times.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.forkserver import _forkserver  # type: ignore[attr-defined]
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests_support import CATALOG, toy

from adlbench.benchmark.api import Budget
from adlbench.benchmark.execution import watch
from adlbench.benchmark.execution.base import make_executor
from adlbench.benchmark.leaderboard.board import boards
from adlbench.benchmark.leaderboard.frame import cell_frame
from adlbench.benchmark.plan import Plan
from adlbench.benchmark.records import find_records, read_arrays, read_record
from adlbench.benchmark.runner import exclusive, run_matrix, select
from adlbench.benchmark.tracking import default_uri, sync

EXECUTOR = replace(CATALOG.spec("executor", "local"), grace_seconds=1.0)
FIDELITY = replace(toy().fidelity, checkpoint_seconds=0.0, latency_repeats=2)
CELLS = tuple(
    replace(cell, fidelity=FIDELITY)
    for cell in [*(toy(seed=seed, budget=Budget(steps=40)) for seed in range(4)), toy("toy_majority")]
)


def _matrix(results: Path, isolation: str) -> None:
    executor = make_executor(replace(EXECUTOR, isolation=isolation), 2)
    with exclusive(results):
        selection = select(Plan(CELLS, (), "toy"), results, retry="all")
        outcome = run_matrix(selection, results, executor, lambda event: None, "toy", lambda cell: None)
    assert not outcome.undelivered, outcome.undelivered


def _forked(function: Callable[[], object]) -> int:
    """Run ``function`` in a fork of this process, which has everything imported; returns its pid."""
    pid = os.fork()
    if pid == 0:
        for name in ("_forkserver_pid", "_forkserver_address", "_forkserver_alive_fd"):
            setattr(_forkserver, name, None)  # the parent's is not ours
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def _killed(results: Path, dice: random.Random, function: Callable[[], object]) -> bool:
    """KILL it a moment after so many records, or delivered records, are there. False where it ended by itself before."""
    pattern, count = dice.choice(["record.json", "mlflow.json"]), dice.randrange(len(CELLS) + 1)
    delay, end = dice.uniform(0, 0.2), float("inf")
    pid = _forked(function)
    while time.monotonic() < end:
        if end == float("inf") and len(list(results.glob(f"runs/**/{pattern}"))) >= count:
            end = time.monotonic() + delay
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0
            return False
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def _finished(function: Callable[[], object]) -> None:
    assert os.waitpid(_forked(function), 0)[1] == 0


def _outcome(results: Path) -> dict[str, tuple[object, ...]]:
    """What must not depend on kills, for each cell: status, metrics, steps, and the values of all items."""
    found = {}
    for cell in CELLS:
        record = read_record(cell.folder(results))
        items = {k: v.tolist() for k, v in read_arrays(cell.folder(results) / "items.npz").items()}
        found[cell.key] = (record.status, record.metrics, record.steps, record.samples, str(items))
    return found


def _board(results: Path) -> list[tuple[object, ...]]:
    (board,) = boards(cell_frame(results))
    return [(row.method, row.n, row.rank, str(row.metrics)) for row in board.rows]


def _check(results: Path, expected: Path) -> None:
    assert _outcome(results) == _outcome(expected)
    assert _board(results) == _board(expected)
    assert len(list(find_records(results))) == len(CELLS)
    assert [path.name for path in results.glob("runs/**/.*.tmp")] == []
    client = MlflowClient(default_uri(results))
    experiment = client.get_experiment_by_name("adlbench/toy")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'", max_results=5000)
    attempts = Counter((run.data.tags["cell_key"], run.data.tags["started"]) for run in runs)
    assert set(attempts.values()) == {1}
    assert {run.data.tags["adlbench.delivered"] for run in runs} == {"whole"}
    done = Counter(run.data.tags["cell_key"] for run in runs if run.data.tags["status"] == "done")
    assert done == Counter(cell.key for cell in CELLS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    _finished(lambda: _matrix(results, "inline"))
    return results


def _kill_runner(folder: Path, undisturbed: Path, isolation: str, kills: int) -> None:
    """Matrix after matrix, each killed until it ends by itself, until there were so many kills."""
    dice, killed, rounds = random.Random(kills), 0, 0
    while killed < kills:
        results, rounds = folder / str(rounds), rounds + 1
        while killed < kills and _killed(results, dice, partial(_matrix, results, isolation)):
            killed += 1
        _finished(partial(_matrix, results, isolation))
        _check(results, undisturbed)
    print(f"{killed} kills of the runner in {rounds} matrices")


def _kill_cells(results: Path, undisturbed: Path, kills: int) -> None:
    """One runner, whose cells are killed from outside; failed ones are run again until all are done."""
    dice, killed, over = random.Random(kills), 0, threading.Event()

    def killer() -> None:
        nonlocal killed
        while killed < kills and not over.wait(dice.uniform(0, 0.3)):
            snapshot = watch.processes()
            helpers = {pid for pid, process in snapshot.items() if process.parent == os.getpid()}
            cells = [p for p, process in snapshot.items() if process.parent in helpers and process.session == p]
            if cells:
                os.kill(dice.choice(cells), signal.SIGKILL)
                killed += 1

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        for _ in range(10 * kills):
            _matrix(results, "forkserver")
            if all(read_record(cell.folder(results)).status == "done" for cell in CELLS):
                break
    finally:
        over.set()
        thread.join()
    print(f"{killed} kills of cells")
    assert killed
    _check(results, undisturbed)


def _kill_writer(results: Path, undisturbed: Path, kills: int) -> None:
    """Records that wait, and a writer that is killed again and again while it delivers them."""
    executor = make_executor(replace(EXECUTOR, isolation="inline"))
    executor.run(CELLS, results, lambda event: None)
    dice, killed = random.Random(kills), 0
    while killed < kills and _killed(results, dice, lambda: sync(results)):
        killed += 1
    print(f"{killed} kills of the writer")
    assert killed
    _finished(lambda: sync(results))
    _check(results, undisturbed)
    assert sync(results) == 0


def test_killed_runner(tmp_path: Path, undisturbed: Path) -> None:
    _kill_runner(tmp_path, undisturbed, "inline", 4)


def test_killed_cells(tmp_path: Path, undisturbed: Path) -> None:
    _kill_cells(tmp_path / "results", undisturbed, 3)


def test_killed_writer(tmp_path: Path, undisturbed: Path) -> None:
    _kill_writer(tmp_path / "results", undisturbed, 3)


@pytest.mark.slow
def test_two_hundred_kills(tmp_path: Path, undisturbed: Path) -> None:
    _kill_runner(tmp_path / "inline", undisturbed, "inline", 130)
    _kill_runner(tmp_path / "forkserver", undisturbed, "forkserver", 10)
    for index in range(6):
        _kill_cells(tmp_path / f"cells{index}", undisturbed, 8)
    for index in range(3):
        _kill_writer(tmp_path / f"writer{index}", undisturbed, 4)
