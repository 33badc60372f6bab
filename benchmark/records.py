"""What a cell leaves behind: one folder, written atomically, that needs nothing else to be read.

cell.json         the cell as it was planned
record.json       the record below; present exactly when the cell has ended
items.npz         metric -> one value per test item
curve.json        [{step, seconds, <value>: ...}], read at the log points
windows.json      [[steps, samples, seconds, data seconds], ...], the raw samples of all speed statistics
predictions.npz   as they were scored
images/           pictures for people
exhibits/         what the report's page shows: index.json [{title, kind, file, meta}], and the arrays of each
checkpoint.pt     the last state: to continue, and to evaluate again
log.txt           what the cell printed
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

SCHEMA_VERSION = 1
STATUSES = ("done", "failed", "timeout", "out_of_memory", "diverged", "interrupted", "skipped")


@dataclass
class Latency:
    batch_size: int
    samples: int  # in the task's throughput unit, of one call
    p50_ms: float
    p95_ms: float
    samples_per_second: float  # at the median


@dataclass
class Record:
    cell_key: str  # identity of the cell (plan.CellSpec.key)
    name: str  # task/dataset/method/fidelity/seed, for people
    status: str  # one of STATUSES
    task: str
    kind: str
    protocol: str
    dataset: str
    instance: str
    method: str
    fidelity: str
    seed: int
    started: str  # ISO 8601, UTC
    reason: str = ""  # why it is not done; a traceback's last line or a signal
    trivial: bool = False  # a baseline that real methods must beat
    schema_version: int = SCHEMA_VERSION
    primary: str = ""  # the metric that ranks
    metrics: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # metric -> why it has no value
    notes: dict[str, Any] = field(default_factory=dict)  # beside the metrics: counts, floors, extractor
    specification: dict[str, Any] = field(default_factory=dict)  # the resolved cell
    applied_presets: list[str] = field(default_factory=list)
    data_fingerprint: str = ""
    accounts: dict[str, float] = field(default_factory=dict)  # seconds by account; they add up to wall_seconds
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the process, all threads
    train_cpu_seconds: float = 0.0  # of the steps alone, all threads
    steps: int = 0
    samples: int = 0  # in throughput_unit
    throughput: float | None = None  # samples per second of training, warm-up left out
    throughput_unit: str = ""
    latency: list[Latency] = field(default_factory=list)
    peak_memory_mb: float | None = None  # resident, of the process
    peak_device_memory_mb: float | None = None  # allocated on the accelerator
    num_parameters: int = 0
    train_step_flops: float | None = None  # counted by torch; gathers, sorts and scatters count as 0
    inference_flops: float | None = None  # of one call at the first batch size
    energy_joules: float | None = None  # as the driver reports it; None where it does not
    num_resumes: int = 0
    hardware: str = ""  # hardware class; leaderboards never mix two
    environment: dict[str, Any] = field(default_factory=dict)  # packages, driver, CPU, GPU, threads
    code: dict[str, Any] = field(default_factory=dict)  # version, git commit, dirty flag

    @property
    def total_train_seconds(self) -> float:
        return sum(self.accounts.get(name, 0.0) for name in ("compile", "data", "train"))


def write_atomic(path: Path, data: bytes) -> None:
    """The file is the old one or the new one, never half of it: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=1, default=_plain) + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def write_record(folder: Path, record: Record) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "record.json", asdict(record))


def read_record(folder: Path) -> Record:
    """Raises AdlbenchError where there is none, or one that this version cannot read."""
    from adlbench.benchmark.api import AdlbenchError  # brings torch, which reading tables does not need

    path = folder / "record.json" if folder.is_dir() else folder
    try:
        return TypeAdapter(Record).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise AdlbenchError(
            f"{folder}: no record.json there; give the folder of a finished cell below results/runs"
        ) from error
    except ValidationError as error:
        raise AdlbenchError(
            f"{path}: not a record of schema version {SCHEMA_VERSION} ({error.errors()[0]['msg']})"
        ) from error


def find_records(results_dir: Path) -> Iterator[tuple[Path, Record]]:
    """All readable records below ``results_dir``, in a stable order."""
    for path in sorted((results_dir / "runs").glob("**/record.json")):
        yield path.parent, read_record(path.parent)
