"""Cells as submitit jobs. The local executor of submitit runs the code without a cluster; a Slurm of one node, started here
with its own configuration, does it for real where Debian's `slurm-wlm` and `munge` are installed:

`python -m pytest -m slow tests/benchmark/test_execution_slurm.py` (needs root; two minutes)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests_support import CATALOG, toy

from adlbench.benchmark.api import AdlbenchError, Budget
from adlbench.benchmark.cell import run_cell
from adlbench.benchmark.execution.base import Event, Stop, make_executor
from adlbench.benchmark.execution.remote import ALIVE
from adlbench.benchmark.execution.slurm import SlurmExecutor, _Job
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Record, read_arrays, read_record
from adlbench.benchmark.specs import ExecutorSpec

pytest.importorskip("submitit")
SPEC = replace(CATALOG.spec("executor", "slurm"), submit={"cluster": "local", "timeout_min": 60}, lost_seconds=2.0)
SPEC = replace(SPEC, grace_seconds=20.0)


def _run(
    cells: list[CellSpec], results: Path, stop: Stop | None = None, spec: ExecutorSpec = SPEC
) -> dict[str, Record]:
    found: dict[str, Record] = {}

    def on_event(event: Event) -> None:
        if event.record is not None:
            found[str(event.cell.parameters.get("misbehave", ""))] = event.record

    make_executor(spec).run(cells, results, on_event, stop)
    return found


def _training(results: Path, cell: CellSpec) -> dict[str, object]:
    """All that must not depend on an interruption: metrics, items, steps, and the loss wherever it was read at the end."""
    folder = cell.folder(results)
    record = read_record(folder)
    items = {name: values.tolist() for name, values in read_arrays(folder / "items.npz").items()}
    last = json.loads((folder / "curve.json").read_text())[-1]
    return {"metrics": record.metrics, "items": items, "steps": (record.steps, last["step"]), "loss": last["loss"]}


def _jobs(results: Path) -> set[str]:
    """Ids of the jobs that were submitted: "7", or "7_0", "7_1" of an array."""
    names = {path.name for path in (results / "submitit").iterdir() if path.name[0].isdigit()}
    return {name for name in names if not any(other.startswith(f"{name}_") for other in names)}


@pytest.fixture
def preempted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[_Job], None]], list[float]]:
    """Let something happen to a job, once, when its cell has written a checkpoint; gives when."""

    def arrange(preempt: Callable[[_Job], None]) -> list[float]:
        moments: list[float] = []
        look_at = SlurmExecutor._look_at

        def spy(self: SlurmExecutor, entry: _Job, *arguments: object) -> None:
            if not moments and (entry.folder / "checkpoint.pt").exists():
                moments.append(time.time())
                preempt(entry)
            look_at(self, entry, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(SlurmExecutor, "_look_at", spy)
        return moments

    return arrange


def _long(steps: int) -> CellSpec:
    """A cell that writes checkpoints as it goes, and whose steps decide when it ends."""
    cell = toy(budget=Budget(steps=steps))
    return replace(cell, fidelity=replace(cell.fidelity, checkpoint_seconds=0.2, latency_repeats=2))


def test_jobs_end_as_cells_do(tmp_path: Path) -> None:
    found = _run([toy(), toy(misbehave="segfaults")], tmp_path)
    assert {name: record.status for name, record in found.items()} == {"": "done", "segfaults": "failed"}
    assert "ended by SIGSEGV" in found["segfaults"].reason
    alone = make_executor(CATALOG.spec("executor", "local"))
    alone.run([toy()], tmp_path / "here", lambda event: None)
    assert read_record(toy().folder(tmp_path / "here")).metrics == found[""].metrics


def test_a_preempted_job_goes_on_from_its_checkpoint(tmp_path: Path, preempted: Callable[..., list[float]]) -> None:
    cell = _long(3000)

    def announce(entry: _Job) -> None:  # what Slurm does before it takes the node
        os.kill(json.loads((entry.folder / ALIVE).read_text())["pid"], signal.SIGUSR2)

    moments = preempted(announce)
    (record,) = _run([cell], tmp_path).values()
    assert moments, "it ended before it could be preempted; give it more steps"
    assert (record.status, record.num_resumes) == ("done", 1)
    errors = "".join(path.read_text() for path in (tmp_path / "submitit").rglob("*_log.err"))
    assert "this job is preempted" in errors
    run_cell(cell, cell.folder(tmp_path / "undisturbed"))
    assert _training(tmp_path, cell) == _training(tmp_path / "undisturbed", cell)


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = replace(SPEC, submit={"cluster": "nowhere"})
    with pytest.raises(AdlbenchError, match="executor=slurm: submit"):
        make_executor(spec).run([toy()], tmp_path, lambda event: None)


# ----------------------------------------------------------------------------------------------------------- a real Slurm
CONFIGURATION = """
ClusterName=adlbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
KillWait=10
ReturnToService=2
SchedulerParameters=bf_interval=1,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=cells Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[ExecutorSpec]:
    """munged, slurmctld and slurmd of our own, on loopback, in a folder of their own; without accounting."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in ("munged", "slurmctld", "slurmd", "sbatch")):
        pytest.skip("needs root and Debian's slurm-wlm and munge")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, pytest.MonkeyPatch.context() as patch:
        folder, host = Path(name), socket.gethostname().partition(".")[0]
        for part in ("state", "spool"):
            (folder / part).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        ports = {"controller": _free_port(), "node": _free_port()}
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, **ports))
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        munge = [f"--{part}-file={folder}/munge.{part}" for part in ("key", "pid", "log", "seed")]
        commands = [
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
            ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"],
            ["slurmd", "-D", "-f", f"{folder}/slurm.conf", "-N", host],
        ]
        daemons = []
        try:
            for command in commands:
                daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                time.sleep(1.0)
            _until_idle(folder)
            yield replace(SPEC, cores=1, slots=2, submit={"cluster": "slurm", "timeout_min": 60}, lost_seconds=30.0)
        finally:
            subprocess.run(["scancel", "--user=root"], check=False, timeout=60, capture_output=True)
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(60)


def _until_idle(folder: Path) -> None:
    for _ in range(120):
        state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False).stdout.strip()
        if state == "idle":
            return
        time.sleep(1.0)
    logs = "".join(path.read_text()[-1500:] for path in folder.glob("*.log"))
    pytest.skip(f"Slurm does not start here ({state}): {logs}")


@pytest.mark.slow
def test_an_array_of_jobs_on_slurm(cluster: ExecutorSpec, tmp_path: Path) -> None:
    cells = [toy(), toy(misbehave="segfaults"), toy(misbehave="kills itself")]
    found = _run(cells, tmp_path, spec=cluster)
    statuses = {name: record.status for name, record in found.items()}
    assert statuses == {"": "done", "segfaults": "failed", "kills itself": "failed"}
    assert "ended by SIGSEGV" in found["segfaults"].reason
    assert len(_jobs(tmp_path)) == 3
    assert len({name.partition("_")[0] for name in _jobs(tmp_path)}) == 1, "one array"


@pytest.mark.slow
def test_slurm_announces_the_end_of_a_job(
    cluster: ExecutorSpec, tmp_path: Path, preempted: Callable[..., list[float]]
) -> None:
    """The signal of `slurm_signal_delay_s`: the cell writes a checkpoint, the job queues itself again."""
    cell = _long(6000)
    moments = preempted(lambda entry: entry.job._interrupt())
    (record,) = _run([cell], tmp_path, spec=cluster).values()
    assert moments, "it ended before it could be preempted; give it more steps"
    assert (record.status, record.num_resumes) == ("done", 1)
    run_cell(cell, cell.folder(tmp_path / "undisturbed"))
    assert _training(tmp_path, cell) == _training(tmp_path / "undisturbed", cell)


@pytest.mark.slow
def test_slurm_takes_the_node_back(
    cluster: ExecutorSpec, tmp_path: Path, preempted: Callable[..., list[float]]
) -> None:
    """`scontrol requeue`, as preemption does it: TERM to every process of the job, later KILL, then again from the queue."""
    cell = _long(6000)

    def requeue(entry: _Job) -> None:
        subprocess.run(["scontrol", "requeue", entry.job.job_id], check=True)

    moments = preempted(requeue)
    (record,) = _run([cell], tmp_path, spec=cluster).values()
    assert moments, "it ended before it could be preempted; give it more steps"
    assert (record.status, record.num_resumes) == ("done", 1)
    assert len(_jobs(tmp_path)) == 1, "the same job, not one that was submitted for it"
    run_cell(cell, cell.folder(tmp_path / "undisturbed"))
    assert _training(tmp_path, cell) == _training(tmp_path / "undisturbed", cell)
