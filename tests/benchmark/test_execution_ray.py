"""Cells on Ray: on this machine by default; on a cluster of two nodes, each in a network namespace of its own, with

`python -m pytest -m slow tests/benchmark/test_execution_ray.py` (needs root, iproute2 and the extra ``ray``; five minutes).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests_support import CATALOG, toy

from adlbench.benchmark.execution.base import Event, make_executor
from adlbench.benchmark.execution.ray_cluster import run_attempt
from adlbench.benchmark.records import Record, find_records, read_record, record_of
from adlbench.benchmark.tracking import default_uri

ray = pytest.importorskip("ray")
SPEC = replace(CATALOG.spec("executor", "ray"), cores=1, grace_seconds=2.0)
HEAD = "10.231.7.1"


# ------------------------------------------------------------------------------------------------------- one small machine
@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "disabled",
    }.items():
        monkeypatch.setenv(name, value)
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
    yield
    ray.shutdown()


def test_cells_end_as_they_do_here(machine: None, tmp_path: Path) -> None:
    found: dict[str, Record] = {}
    kinds = []

    def on_event(event: Event) -> None:
        kinds.append(event.kind)
        if event.record is not None:
            found[str(event.cell.parameters.get("misbehave", ""))] = event.record

    make_executor(SPEC, 1).run([toy(), toy(misbehave="segfaults")], tmp_path, on_event)
    assert {name: record.status for name, record in found.items()} == {"": "done", "segfaults": "failed"}
    assert "ended by SIGSEGV" in found["segfaults"].reason
    assert kinds[:1] == ["started"]
    assert "progress" in kinds
    make_executor(CATALOG.spec("executor", "local")).run([toy()], tmp_path / "here", lambda event: None)
    assert read_record(toy().folder(tmp_path / "here")).metrics == found[""].metrics
    assert read_record(toy().folder(tmp_path)) == found[""]
    assert (toy().folder(tmp_path) / "checkpoint.pt").exists()
    assert not (tmp_path / "attempts").exists()


# ------------------------------------------------------------------------------------------------------------- two machines
class Cluster:
    """Two nodes of one core, whose only connection is a pair of virtual network devices."""

    def __init__(self, folder: Path):
        self.results, self._hidden = folder / "results", folder / "results"
        self.results.mkdir()
        self._names = [f"adlb{os.getpid()}{side}" for side in "ab"]
        self._nodes: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        self.environment |= {"RAY_worker_niceness": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "OMP_NUM_THREADS": "1"}
        # the nodes import the toy world from here; `adlbench` they have as this process has
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment["PYTHONPATH"] = os.pathsep.join(paths)

    def start(self, shared: bool) -> None:
        a, b = self._names
        for command in (
            *(f"ip netns add {name}" for name in self._names),
            f"ip link add {a} netns {a} type veth peer name {b} netns {b}",
            *(f"ip -n {name} addr add 10.231.7.{i}/24 dev {name}" for i, name in enumerate(self._names, 1)),
            *(f"ip -n {name} link set {device} up" for name in self._names for device in (name, "lo")),
        ):
            if subprocess.run(command.split(), capture_output=True, check=False).returncode != 0:
                pytest.skip(f"no network namespaces here: {command}")
        common = "--num-cpus=1 --object-store-memory=80000000 --disable-usage-stats --block"
        self._node(0, f"--head --port=6379 --node-ip-address={HEAD} --include-dashboard=false {common}", True)
        self._node(1, f"--address={HEAD}:6379 --node-ip-address=10.231.7.2 {common}", shared)
        _until(lambda: self._resources() == 2.0, 900)

    def _node(self, index: int, options: str, shared: bool) -> None:
        # `ip netns exec` gives the node mounts of its own: where nothing is to be shared, an empty folder lies on top
        hide = "" if shared else f"mount -t tmpfs none {self.results} && rmdir {self.results}/* 2>/dev/null; "
        ray_start = f"exec {sys.executable} -m ray.scripts.scripts start {options}"
        log = open(self.results.parent / f"node{index}.log", "wb")  # noqa: SIM115 - the node's
        command = ["ip", "netns", "exec", self._names[index], "sh", "-c", hide + ray_start]
        self._nodes.append(
            subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        )

    def _resources(self) -> float:
        code = f"import ray; ray.init('{HEAD}:6379', log_to_driver=False); print(ray.cluster_resources().get('CPU'))"
        command = ["ip", "netns", "exec", self._names[0], sys.executable, "-c", code]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return float(done.stdout.strip() or 0) if done.returncode == 0 else 0.0

    def driver(self, seeds: int, seconds: float, *more: str) -> subprocess.Popen[bytes]:
        command = ["ip", "netns", "exec", self._names[0], sys.executable, "-m", "adlbench.benchmark.cli.main", "run"]
        command += ["plugins=toybench", "task=toy", "method=toy_slow", f"seed={','.join(map(str, range(seeds)))}"]
        command += [
            f"method.budget.seconds={seconds}",
            "fidelity=smoke",
            "fidelity.checkpoint_seconds=0.5",
            "device=cpu",
        ]
        command += [f"results_dir={self.results}", "executor=ray", f"executor.submit.address={HEAD}:6379"]
        command += ["executor.cores=1", "executor.grace_seconds=2", *more]
        log = open(self.results.parent / "driver.log", "ab")  # noqa: SIM115 - the driver's
        return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def pids(self, node: int) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self._names[node]], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def trained_on(self, node: int) -> str:
        """The key of a cell that a process of this node works on and that has a checkpoint; "" where there is none."""
        for pid in self.pids(node):
            for entry in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    target = Path(os.readlink(entry))
                except OSError:
                    continue
                if target.name == ".lock" and (target.parent / "checkpoint.pt").exists():
                    return target.parent.name.rpartition("-")[2]
        return ""

    def kill_node(self, node: int) -> None:
        for pid in self.pids(node):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name == "raylet":
                os.kill(pid, signal.SIGKILL)

    def cut(self) -> None:
        subprocess.run(["ip", "-n", self._names[1], "link", "set", self._names[1], "down"], check=True)

    def close(self) -> None:
        for name in self._names:
            for _ in range(3):  # what is killed may have started something in the meantime
                for pid in self.pids(self._names.index(name)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        for node in self._nodes:
            node.wait()


def _until(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 for network namespaces")
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()


def _check(cluster: Cluster, seeds: int) -> dict[str, Record]:
    """Every cell is done, once, also in MLflow, and no attempt is left; records by key."""
    log = (cluster.results.parent / "driver.log").read_text()
    records = {record.cell_key: record for _, record in find_records(cluster.results)}
    assert sorted(record.seed for record in records.values()) == list(range(seeds)), log
    assert {record.status for record in records.values()} == {"done"}, log
    client = MlflowClient(default_uri(cluster.results))
    experiment = client.get_experiment_by_name("adlbench/toy")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")
    assert sorted(run.data.tags["cell_key"] for run in runs) == sorted(records)
    return records


@pytest.mark.slow
def test_a_killed_node_loses_no_cell(cluster: Cluster) -> None:
    cluster.start(shared=True)
    driver = cluster.driver(4, 4.0)
    _until(lambda: cluster.trained_on(1), 900)
    key = cluster.trained_on(1)
    cluster.kill_node(1)
    assert driver.wait(1500) == 0
    records = _check(cluster, 4)
    assert records[key].num_resumes == 1  # it went on where it was, on the other node
    assert not (cluster.results / "attempts").exists()


@pytest.mark.slow
def test_a_node_that_is_cut_off_loses_no_cell(cluster: Cluster) -> None:
    cluster.start(shared=True)
    driver = cluster.driver(4, 4.0, "executor.lost_seconds=6")
    _until(lambda: cluster.trained_on(1), 900)
    key = cluster.trained_on(1)
    cluster.cut()
    began = time.monotonic()
    assert driver.wait(1500) == 0
    print(f"\nended {time.monotonic() - began:.0f} s after the link was cut")
    records = _check(cluster, 4)
    assert records[key].num_resumes == 1


@pytest.mark.slow
def test_a_driver_that_is_killed_and_started_again_continues(cluster: Cluster) -> None:
    cluster.start(shared=True)
    driver = cluster.driver(4, 4.0)
    _until(lambda: list(cluster.results.glob("runs/**/record.json")) and cluster.trained_on(0), 900)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    _until(lambda: not cluster.trained_on(0) and not cluster.trained_on(1), 300)  # its cells end with it
    assert len(list(cluster.results.glob("runs/**/record.json"))) < 4
    assert cluster.driver(4, 4.0).wait(1500) == 0
    records = _check(cluster, 4)
    assert any(record.num_resumes == 1 for record in records.values())


@pytest.mark.slow
def test_a_node_without_the_results_folder_sends_the_cell_back(cluster: Cluster) -> None:
    cluster.start(shared=False)
    driver = cluster.driver(4, 3.0)
    assert driver.wait(1500) == 0
    records = _check(cluster, 4)
    for folder, record in find_records(cluster.results):
        assert read_record(folder) == records[record.cell_key]
        assert (folder / "checkpoint.pt").exists()


def test_a_folder_that_is_not_there_comes_back_as_an_archive(tmp_path: Path) -> None:
    """The same in this process, without Ray."""
    import io
    import tarfile

    class Silent:
        seconds = 1.0

        def beat(self, news: list[dict[str, object]]) -> bool:
            return False

    values, archive = run_attempt(toy().to_json(), str(tmp_path / "elsewhere"), SPEC, ("toybench",), Silent())  # type: ignore[arg-type]
    assert archive is not None
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(tmp_path / "back", filter="data")
    assert read_record(tmp_path / "back") == record_of(values)
    assert values["status"] == "done"
