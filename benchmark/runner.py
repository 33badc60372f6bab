"""Runs a plan: what is done already is left alone, the rest goes to the executor, records go to MLflow as they arrive."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import fnmatch
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adlbench.benchmark import inputs
from adlbench.benchmark.config import build_dataset
from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.execution.base import Event, Executor, Stop
from adlbench.benchmark.plan import CellSpec, Plan
from adlbench.benchmark.records import Index, Record, Summary, read_record, supersede
from adlbench.benchmark.schedule import Estimate
from adlbench.benchmark.sources import difference, digest
from adlbench.benchmark.tracking import Tracker, default_uri, redacted

RETRIED = {"failed": ("failed", "diverged", "out_of_memory"), "timeout": ("timeout",)}
RETRIED["all"] = (*RETRIED["failed"], *RETRIED["timeout"])
EXPLAINED = 50  # new cells of which is said how their configuration differs from an earlier one's


@dataclass(frozen=True)
class Selection:
    run: tuple[CellSpec, ...]
    cached: tuple[tuple[CellSpec, Summary], ...]
    changes: Mapping[str, str] = field(
        default_factory=dict
    )  # cell key -> why an earlier record does not count any more
    superseded: frozenset[str] = frozenset()  # keys of cells whose earlier record lies in their folder


def select(
    plan: Plan,
    results_dir: Path,
    retry: str | None = None,
    only: Sequence[str] = (),
    keep: bool = False,
    index: Index | None = None,
) -> Selection:
    """Which cells of the plan have ended already, and which are to run.

    Interrupted cells are run again, failed ones only when ``retry`` asks for it. A record whose method's code or whose
    data changed since counts no more, unless ``keep`` says so. ``only``: patterns of names, or beginnings of keys.
    """
    index = index or Index(results_dir)
    again = ("interrupted", *RETRIED.get(retry or "", ()))
    changed, siblings = _Changes(results_dir), _Siblings(results_dir)
    run, cached, changes, superseded = [], [], {}, set()
    for cell in {cell.key: cell for cell in plan.cells if matches(cell, only)}.values():
        summary = index.get(cell.folder(results_dir))
        if summary is None:
            run.append(cell)
            if change := siblings.difference(cell):
                changes[cell.key] = change
        elif not keep and (change := changed(cell, summary)):
            run.append(cell)
            changes[cell.key] = change
            superseded.add(cell.key)
        elif summary.status in again:
            run.append(cell)
        else:
            cached.append((cell, summary))
    return Selection(tuple(run), tuple(cached), changes, frozenset(superseded))


def matches(cell: CellSpec, only: Sequence[str]) -> bool:
    return not only or any(
        fnmatch.fnmatchcase(cell.name, pattern) or pattern in cell.name or cell.key.startswith(pattern)
        for pattern in only
    )


class _Changes:
    """Whether the code or the data of a record changed since; what that takes is done once for all cells that share it."""

    def __init__(self, results_dir: Path):
        self._results_dir = results_dir
        self._code: dict[str, str] = {}
        self._data: dict[tuple[str, ...], str] = {}

    def __call__(self, cell: CellSpec, summary: Summary) -> str:
        now = self._code.setdefault(cell.method.target, digest(cell.code))
        if summary.code and now and summary.code != now:
            before = read_record(cell.folder(self._results_dir)).code["sources"]
            return f"code: {difference(before, cell.code)}"
        data = json.dumps(cell.dataset.parameters, sort_keys=True, default=str)
        key = (cell.dataset.name, data, cell.instance, summary.data_fingerprint)
        if key not in self._data:
            self._data[key] = self._data_change(cell, summary) if summary.data_fingerprint else ""
        return self._data[key]

    def _data_change(self, cell: CellSpec, summary: Summary) -> str:
        folder, code = cell.folder(self._results_dir), cell.data_code
        changed = inputs.changed(folder, code)
        if not changed:
            return ""
        try:
            now = build_dataset(cell.dataset).fingerprint(cell.instance)
        except Exception as error:  # the cell will say the same, with its traceback
            now = f"unreadable: {error}"
        if now == summary.data_fingerprint:
            with contextlib.suppress(OSError):
                inputs.refresh(folder, code)
            return ""
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"data: {cell.dataset.name} was {summary.data_fingerprint[:12]}, is {now[:12]} ({changed[0]}{more})"


class _Siblings:
    """How a new cell's configuration differs from that of an earlier cell of the same name."""

    def __init__(self, results_dir: Path):
        self._results_dir, self._listed, self._explained = results_dir, dict[Path, list[str]](), 0

    def difference(self, cell: CellSpec) -> str:
        folder = cell.folder(self._results_dir)
        if folder.parent not in self._listed:
            try:
                self._listed[folder.parent] = os.listdir(folder.parent)
            except OSError:
                self._listed[folder.parent] = []
        prefix = folder.name.removesuffix(cell.key)
        earlier = [name for name in self._listed[folder.parent] if name.startswith(prefix) and name != folder.name]
        if not earlier or self._explained >= EXPLAINED:
            return ""
        self._explained += 1
        try:
            latest = max((folder.parent / name / "cell.json" for name in earlier), key=os.path.getmtime)
            before = json.loads(latest.read_text())
        except (OSError, ValueError):
            return ""
        now = json.loads(cell.to_json())
        for node in (before, now):  # titles and descriptions do not count; see CellSpec.key
            node["task"] = {key: node["task"][key] for key in ("protocol", "options")}
            node["dataset"] = {key: node["dataset"][key] for key in ("target", "parameters")}
            node["method"] = {"target": node["method"]["target"]}
            node["fidelity"] = {"max_items": node["fidelity"]["max_items"]}
            for key in ("code", "data_code", "applied_presets"):
                node.pop(key, None)
            node.setdefault("devices", 1)
        changes = [f"{key} {old!r} -> {new!r}" for key, old, new in _unequal(before, now)]
        return f"configuration: {', '.join(changes)}" if changes else ""


def _unequal(before: Any, now: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _unequal(before.get(key), now.get(key), f"{prefix}.{key}" if prefix else key)
    elif before != now:
        yield prefix, before, now


# ---------------------------------------------------------------------------------------------------------- the one runner
@contextlib.contextmanager
def exclusive(results_dir: Path) -> Iterator[None]:
    """Hold the results folder: one process at a time runs cells there or delivers records.

    The kernel lets go of the lock when its holder ends, however it ends, so there is no stale one.
    Raises AdlbenchError where another holds it, with its name, and where the folder cannot be written.
    """
    path = results_dir / "runner.json"
    try:
        results_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise AdlbenchError(f"results_dir={results_dir}: cannot be written ({error}); use another folder") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES) or _alive(holder(results_dir)):  # else no locks here
                raise AdlbenchError(f"{results_dir}: {describe_holder(results_dir)}") from error
        me = {"pid": os.getpid(), "host": platform.node(), "since": time.time(), "command": shlex.join(sys.argv[1:])}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(me).encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(results_dir: Path) -> dict[str, Any]:
    """Who holds the results folder, or held it last."""
    try:
        return json.loads((results_dir / "runner.json").read_text())  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return {}


def is_held(results_dir: Path) -> bool:
    try:
        handle = os.open(results_dir / "runner.json", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def _alive(other: Mapping[str, Any]) -> bool:
    return bool(other) and (other.get("host") != platform.node() or Path(f"/proc/{other.get('pid')}").exists())


def describe_holder(results_dir: Path) -> str:
    other = holder(results_dir)
    since = time.strftime("%H:%M:%S", time.localtime(other.get("since", 0)))
    return (
        f"process {other.get('pid')} on {other.get('host')} has been working there since {since} (adlbench "
        f"{other.get('command')}); look with `adlbench status`, wait or end it, or use another results_dir=PATH"
    )


# ------------------------------------------------------------------------------------------------------------- the matrix
@dataclass
class Outcome:
    """``records``: of every cell that ended in this run. ``left``: cells that were selected and did not end."""

    records: dict[str, Record] = field(default_factory=dict)
    left: list[CellSpec] = field(default_factory=list)
    undelivered: str = ""  # why records did not reach MLflow, and the command that delivers them

    @property
    def counts(self) -> dict[str, int]:
        statuses = [record.status for record in self.records.values()]
        return {status: statuses.count(status) for status in sorted(set(statuses))}


def run_matrix(
    selection: Selection,
    results_dir: Path,
    executor: Executor,
    on_event: Callable[[Event], None],
    title: str,
    estimate: Estimate,
    *,
    stop: Stop | None = None,
    fail_fast: bool = False,
    deadline: float | None = None,
    index: Index | None = None,
) -> Outcome:
    """Run the selected cells, longest first, and deliver every record to MLflow.

    MLflow is opened by one writer thread, while the first cells are running. If it cannot be reached, cells run all the
    same. ``fail_fast`` ends the run at the first cell that is not done, ``deadline`` (of ``time.monotonic``) when the
    time is used up; either way running cells write a checkpoint.
    """
    stop, index, outcome = stop or Stop(), index or Index(results_dir), Outcome()
    invocation = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cells = sorted(selection.run, key=lambda cell: -(estimate(cell) or 0.0))
    for cell in cells:
        if cell.key in selection.superseded:
            supersede(results_dir, cell.folder(results_dir))
    index.save()
    deliveries: list[Future[object]] = []
    writer = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
    tracker = writer.submit(Tracker, results_dir, title, invocation)

    def forward(event: Event) -> None:
        if event.kind == "finished" and event.record is not None:
            record, folder = event.record, event.cell.folder(results_dir)
            outcome.records[event.cell.key] = record
            with contextlib.suppress(OSError):  # a full disk; the index is a cache
                index.get(folder)
                index.save()
            deliveries.append(writer.submit(lambda: tracker.result().deliver(folder, record)))
            if fail_fast and record.status not in ("done", "interrupted") and not stop.level:
                stop.request(f"{record.name} is {record.status}, and --fail-fast was given")
        if deadline is not None and time.monotonic() > deadline and not stop.level:
            stop.request("the time budget is used up")
        on_event(event)

    for cell, summary in selection.cached:
        deliveries.append(writer.submit(_deliver_again, tracker, cell.folder(results_dir), summary))
    try:
        executor.run(cells, results_dir, forward, stop)
    finally:
        outcome.left = [cell for cell in cells if cell.key not in outcome.records]
        while stop.level < 2 and not all(delivery.done() for delivery in deliveries):
            wait(deliveries, timeout=0.2)
        if stop.level < 2 and tracker.exception() is None:
            writer.submit(tracker.result().close).exception()
        writer.shutdown(wait=stop.level < 2, cancel_futures=True)
    failures = [error for d in deliveries if d.done() and not d.cancelled() and (error := d.exception()) is not None]
    missing = len(failures) + sum(delivery.cancelled() or not delivery.done() for delivery in deliveries)
    if missing:
        why = f" ({redacted(str(failures[0]))})" if failures else ""
        outcome.undelivered = (
            f"{missing} records did not reach MLflow at {redacted(default_uri(results_dir))}{why}; "
            f"they are safe in {results_dir / 'runs'}, deliver them with: adlbench sync --results-dir {results_dir}"
        )
    return outcome


def _deliver_again(tracker: Future[Tracker], folder: Path, summary: Summary) -> None:
    """A record of an earlier run, which may have ended before it was delivered."""
    if not tracker.result().has(folder, summary):
        tracker.result().deliver(folder, read_record(folder))
