"""What a cell leaves behind: one folder, written atomically, that needs nothing else to be read.

cell.json         the cell as it was planned
record.json       the record below; present exactly when the cell has ended
items.npz         metric -> one value per test item
curve.json        [{step, seconds, <value>: ...}], read at the log points; eval/<metric> where the protocol scored the method
windows.json      [[steps, samples, seconds, data seconds], ...], the raw samples of all speed statistics
predictions.npz   as they were scored
images/           pictures for people
exhibits/         what the report's page shows: index.json [{title, kind, file, meta}], and the arrays of each
checkpoint.pt     the last state: to continue, and to evaluate again
log.txt           what the cell printed
inputs.json       the files that its data was read from, with size and time
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.sources import digest

SCHEMA_VERSION = 1
EVALUATED = "eval/"  # prefix of what a protocol computed, in a learning curve
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


def clear_unfinished(folder: Path) -> None:
    """Delete what processes left that were killed inside ``write_atomic``, in a cell's folder and the folders in it."""
    for unfinished in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):
        unfinished.unlink(missing_ok=True)


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
    path = folder / "record.json" if folder.is_dir() else folder
    try:
        return _adapter().validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise AdlbenchError(
            f"{folder}: no record.json there; give the folder of a finished cell below results/runs"
        ) from error
    except ValidationError as error:
        raise AdlbenchError(
            f"{path}: not a record of schema version {SCHEMA_VERSION} ({error.errors()[0]['msg']})"
        ) from error


def record_of(values: Mapping[str, Any]) -> Record:
    """The record whose ``asdict`` these are, after a way through a pipe."""
    return _adapter().validate_python(values)


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def find_records(results_dir: Path) -> Iterator[tuple[Path, Record]]:
    """All readable records below ``results_dir``, in a stable order."""
    for path in sorted((results_dir / "runs").glob("**/record.json")):
        with suppress(AdlbenchError):
            yield path.parent, read_record(path.parent)


# ---------------------------------------------------------------------------------------------------------------- index
@dataclass(frozen=True, slots=True)
class Summary:
    """What a plan needs of a record. Read from the index, because a hundred thousand records take minutes to read."""

    name: str
    cell_key: str
    status: str
    reason: str
    started: str
    wall_seconds: float
    data_fingerprint: str
    code: str  # digest of the method's sources; empty where they were not recorded

    @staticmethod
    def read(path: str) -> Summary | None:
        """Of the record in that file; None where there is none, or one that cannot be read."""
        try:
            with open(path, "rb", buffering=0) as file:
                head = _head_adapter().validate_json(file.read())
        except (OSError, ValidationError):
            return None
        return Summary(
            head.name,
            head.cell_key,
            head.status,
            head.reason,
            head.started,
            head.wall_seconds,
            head.data_fingerprint,
            digest(head.code.get("sources") or {}),
        )


@dataclass(frozen=True, slots=True)
class _Head:
    """The part of a record that its summary is made of; the rest is passed over, not built."""

    name: str
    cell_key: str
    status: str
    started: str
    reason: str = ""
    wall_seconds: float = 0.0
    data_fingerprint: str = ""
    code: dict[str, Any] = field(default_factory=dict)


@cache
def _head_adapter() -> TypeAdapter[_Head]:
    return TypeAdapter(_Head)


def _cell_folders(folder: str) -> Iterator[str]:
    """The folders below that hold a record; nothing is looked for inside them."""
    try:
        with os.scandir(folder) as entries:
            inside = [entry.path for entry in entries if entry.name == "record.json" or entry.is_dir()]
    except OSError:
        return
    if any(path.endswith("/record.json") for path in inside):
        yield folder
    else:
        for path in inside:
            yield from _cell_folders(path)


class Index:
    """``runs/index.jsonl``: one line for each record that was written, the last one of a folder counts.

    It is a cache and may be deleted: a line counts only while record.json has the size and the time that it had then,
    and a record without a line is read. A line that a killed writer left half is passed over.
    """

    def __init__(self, results_dir: Path):
        self._runs = results_dir / "runs"
        self._lines: dict[str, list[Any]] = {}
        self._new: list[str] = []
        try:
            with open(self._runs / "index.jsonl", encoding="utf-8") as file:
                for line in file:
                    if line.endswith("]\n"):
                        entry = json.loads(line)
                        self._lines[entry[0]] = entry
        except FileNotFoundError:
            for folder in _cell_folders(str(self._runs)):
                self.get(folder)
        except ValueError:
            self._lines.clear()

    def get(self, folder: Path | str) -> Summary | None:
        """None where there is no record, or one that cannot be read: then the cell has to be run."""
        path = f"{folder}/record.json"
        try:
            found = os.stat(path)
        except OSError:
            return None
        key = str(folder).removeprefix(f"{self._runs}/")
        line = self._lines.get(key)
        if line is not None and line[1] == found.st_mtime_ns and line[2] == found.st_size:
            return Summary(*line[3:])
        summary = Summary.read(path)
        if summary is None:
            return None
        values = [getattr(summary, name) for name in Summary.__slots__]
        self._lines[key] = [key, found.st_mtime_ns, found.st_size, *values]
        self._new.append(json.dumps(self._lines[key], separators=(",", ":")))
        return summary

    def all(self) -> Iterator[Summary]:
        return (Summary(*line[3:]) for line in self._lines.values())

    def save(self) -> None:
        """Append what was learnt since. Only for the holder of the runner's lock."""
        if self._new and self._runs.is_dir():
            with open(self._runs / "index.jsonl", "a", encoding="utf-8") as file:
                file.write(
                    "\n" + "\n".join(self._new) + "\n"
                )  # the first line break ends a half line of a killed writer
            self._new.clear()


def supersede(results_dir: Path, folder: Path) -> None:
    """Move a record that no longer speaks for the code or data that is there out of the way, to ``superseded/``."""
    record = read_record(folder)
    moment = record.started.replace(":", "").replace("+0000", "Z")
    target = results_dir / "superseded" / f"{folder.relative_to(results_dir / 'runs')}-{moment}"
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(folder, target)
