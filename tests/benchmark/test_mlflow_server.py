"""Records in a real MLflow server on a real PostgreSQL: killed in mid-matrix, twenty runners at once, no credential kept.

`python -m pytest -m slow tests/benchmark/test_mlflow_server.py`; needs Debian's postgresql and psycopg, else it skips.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests_support import CATALOG, toy

from adlbench.benchmark.execution.base import Event, make_executor
from adlbench.benchmark.leaderboard.frame import cell_frame
from adlbench.benchmark.plan import CellSpec, Plan
from adlbench.benchmark.records import find_records
from adlbench.benchmark.runner import run_matrix, select
from adlbench.benchmark.tracking import default_uri, sync

pytestmark = pytest.mark.slow
INLINE = replace(CATALOG.spec("executor", "local"), isolation="inline")
PASSWORD = "open-sesame"
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(ready: str, answers: object, process: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not answers():  # type: ignore[operator]
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, f"{ready} did not come up: {log.read_text()}"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A cluster of our own on loopback, as a user that is not root, with a password; it ends with the test."""
    pytest.importorskip("psycopg")
    if not BINARIES:
        pytest.skip("no PostgreSQL here (apt-get install postgresql)")
    user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="adlbench-pg-"))
    (folder / "password").write_text(PASSWORD)
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, **user)
    port, log = _free_port(), folder / "log"
    options = ["-D", str(folder / "data")]
    command = [str(BINARIES[-1] / "initdb"), *options, "-U", "adlbench", "-A", "scram-sha-256"]
    subprocess.run([*command, f"--pwfile={folder / 'password'}"], check=True, capture_output=True, cwd="/", **user)  # type: ignore[call-overload]
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off"}
    command = [str(BINARIES[-1] / "postgres"), *options, *(f"--{key}={value}" for key, value in settings.items())]
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd="/", **user)  # type: ignore[call-overload]
    try:
        _wait_until("PostgreSQL", lambda: b"ready to accept connections" in log.read_bytes(), process, log)
        yield f"postgresql+psycopg://adlbench:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    def __init__(self, database: str, folder: Path):
        self.folder, self.port = folder, _free_port()
        self._environment = {
            **os.environ,
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.start()

    @property
    def uri(self) -> str:
        return f"http://adlbench:{PASSWORD}@127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "2", "--artifacts-destination", str(self.folder / "artifacts")]
        log = self.folder / "log"
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=file, env=self._environment, start_new_session=True, cwd=self.folder
            )
        _wait_until("mlflow server", self._answers, self._process, log)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(database, tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


def _runs(server: Server, task: str) -> list[Run]:
    client = MlflowClient(server.uri.replace(f"adlbench:{PASSWORD}@", ""))
    experiment = client.get_experiment_by_name(f"adlbench/{task}")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "tags.kind = 'cell'", max_results=1000))


def _in_task(cell: CellSpec, task: str) -> CellSpec:
    return replace(cell, task=replace(cell.task, name=task))


def test_a_server_that_is_killed_loses_and_doubles_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")  # and forget afterwards what the tracker puts there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cells = [_in_task(toy(seed=seed), "killed") for seed in range(8)]
    ended = 0

    def on_event(event: Event) -> None:
        nonlocal ended
        ended += event.kind == "finished"
        if event.kind == "finished" and ended == 3:
            time.sleep(2.0)  # the writer is in the middle of something
            server.kill()

    selection = select(Plan(tuple(cells), (), "toy"), tmp_path)
    outcome = run_matrix(selection, tmp_path, make_executor(INLINE), on_event, "toy", lambda cell: None)
    assert outcome.counts == {"done": 8}
    assert "adlbench sync" in outcome.undelivered
    assert PASSWORD not in outcome.undelivered
    server.start()
    delivered = sync(tmp_path)
    assert delivered >= 5
    assert sync(tmp_path) == 0
    runs = _runs(server, "killed")
    assert Counter(run.data.tags["cell_key"] for run in runs) == Counter(cell.key for cell in cells)
    assert {run.data.tags["adlbench.delivered"] for run in runs} == {"whole"}
    assert sorted(cell_frame(tmp_path)["cell_key"]) == sorted(cell.key for cell in cells)
    artifacts = {item.path for item in MlflowClient(default_uri(tmp_path)).list_artifacts(runs[0].info.run_id)}
    assert {"record.json", "images"} <= artifacts
    assert PASSWORD not in capfd.readouterr().out
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert kept == []


def test_twenty_runners_at_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    children = []
    for seed in range(20):
        cells = [_in_task(toy(seed=2 * seed + offset), "twenty") for offset in (0, 1)]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                results = tmp_path / str(seed)
                selection = select(Plan(tuple(cells), (), "toy"), results)
                executor = make_executor(INLINE)
                outcome = run_matrix(selection, results, executor, lambda event: None, "toy", lambda cell: None)
                print(outcome.undelivered, flush=True)
                code = len(outcome.undelivered) > 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 20
    keys = Counter(run.data.tags["cell_key"] for run in _runs(server, "twenty"))
    assert len(keys) == 40
    assert set(keys.values()) == {1}


def test_the_whole_demo_reaches_a_server_that_is_killed_meanwhile(server: Server, tmp_path: Path) -> None:
    """From the command line, every task family, at smoke: two minutes on two cores."""
    secrets = {f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "PASSWORD")}
    environment = {key: value for key, value in os.environ.items() if key not in secrets}
    environment |= {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    adlbench = [str(Path(sys.executable).with_name("adlbench"))]
    where = [f"results_dir={tmp_path}"]
    with open(tmp_path / "printed", "wb") as printed:
        run = subprocess.Popen(
            [*adlbench, "run", "suite=demo", "fidelity=smoke", *where], stdout=printed, stderr=printed, env=environment
        )
        while run.poll() is None and len(list(tmp_path.glob("runs/**/mlflow.json"))) < 5:
            time.sleep(0.2)
        server.kill()
        time.sleep(2.0)
        server.start()
        run.wait(600)
        text = (tmp_path / "printed").read_text()
        assert PASSWORD not in text
        assert ("adlbench sync" in text) == (run.returncode != 0)
        command = [*adlbench, "sync", "--results-dir", str(tmp_path)]
        for _ in range(2):  # the second one has nothing left to do
            subprocess.run(command, check=True, env=environment, stdout=printed, stderr=printed)
    records = [record for _, record in find_records(tmp_path)]
    assert len(records) >= 29
    assert {record.status for record in records} == {"done"}
    delivered = [run for task in {record.task for record in records} for run in _runs(server, task)]
    assert Counter(run.data.tags["cell_key"] for run in delivered) == Counter(record.cell_key for record in records)
    assert {run.data.tags["adlbench.delivered"] for run in delivered} == {"whole"}
