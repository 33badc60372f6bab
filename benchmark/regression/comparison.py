"""Two commits, one suite, one job: accuracy by paired seeds, speed by interleaved rounds, memory beside it."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.regression import speed
from adlbench.benchmark.regression.results import (
    AccuracyFinding,
    CellResult,
    Outcome,
    compare_results,
    exit_code,
    read_result,
)
from adlbench.benchmark.regression.session import Rounds, Tree, Work, Worker, WorkerError, measure, quiet_core
from adlbench.benchmark.regression.speed import SpeedRule, SpeedVerdict
from adlbench.benchmark.specs import Request, SuiteSpec

WALL_EFFECT = 0.05  # wall time holds the waiting for others, so that less of it cannot be told
MEMORY_EFFECT, MEMORY_FLOOR_MB = 0.05, 8.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class SpeedFinding:
    group: str
    what: str  # "train", "inference" or "memory"
    outcome: Outcome
    reason: str
    clock: str = ""  # the one that decides: cpu, on an accelerator wall
    verdict: SpeedVerdict | None = None
    wall: SpeedVerdict | None = None  # where cpu decides
    per_round: int = 0
    rounds: Rounds | None = field(default=None, repr=False)
    memory_mb: tuple[float, float, float] | None = None  # base, control, head


@dataclass
class Comparison:
    base: str
    head: str
    base_commit: str
    head_commit: str
    options: list[str]  # of the command line, without the two commits
    accuracy: list[AccuracyFinding] = field(default_factory=list)
    speed: list[SpeedFinding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hardware: str = ""
    started: str = ""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        findings: list[AccuracyFinding | SpeedFinding] = [*self.accuracy, *self.speed]
        return exit_code(finding.outcome for finding in findings)


@dataclass(frozen=True)
class Plan:
    """What is compared: requests that every commit plans by its own configuration, cut to ``max_steps``."""

    requests: list[list[str]]
    max_steps: int | None = None


def plan_requests(request: Request, suite: SuiteSpec | None) -> Plan:
    """One list of overrides for each entry of the suite; what the request names replaces the suite's."""
    common = {
        "fidelity": request.fidelity or (suite.fidelity if suite else None),
        "seed": _joined(request.seed or (suite.seeds if suite else None) or range(5)),
        "device": request.device,
        "precision": request.precision,
        "plugins": _joined(request.plugins),
        **{
            key.removeprefix("method.") if key.startswith("method.budget.") else key: v
            for key, v in request.nodes.items()
        },
    }
    entries: list[dict[str, Any]] = []
    if suite is not None:
        for entry in suite.cells:
            if not request.task or entry.task in request.task:
                entries.append(
                    {
                        "task": entry.task,
                        "dataset": entry.datasets,
                        "method": entry.methods,
                        "instance": entry.instances,
                    }
                )
    else:
        entries = [{"task": task} for task in request.task]
    if not entries:
        raise AdlbenchError("nothing to compare: name a suite (--suite gate) or a task (task=classification)")
    requests = []
    for wanted in entries:
        axes = {
            name: _joined(getattr(request, name) or wanted.get(name) or ())
            for name in ("dataset", "instance", "method")
        }
        merged = {"task": wanted["task"], **axes, **common}
        requests.append([f"{key}={value}" for key, value in merged.items() if value not in (None, "")])
    return Plan(requests, suite.steps if suite else None)


def _joined(values: Iterable[object]) -> str:
    values = list(values or ())
    return ",".join(map(str, values))


def compare(
    trees: Sequence[Tree],
    what: Plan,
    folder: Path,
    *,
    changed: Sequence[str] | None = None,
    rule: SpeedRule | None = None,
    seconds: float = 1200.0,
    threads: int = 1,
    speed_too: bool = True,
    accuracy_too: bool = True,
    options: Sequence[str] = (),
    say: Say = lambda line: None,
) -> Comparison:
    """``trees`` are the base's and the head's. ``changed``: only cells that these files can change are compared."""
    begin, rule = time.monotonic(), rule or SpeedRule()
    base, head = trees
    result = Comparison(base.label, head.label, base.commit, head.commit, list(options))
    result.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        cores = quiet_core() if threads == 1 else []
        workers = [stack.enter_context(Worker(tree, cores, threads)) for tree in (base, base, head)]
        told = [worker.ask("describe", requests=what.requests, max_steps=what.max_steps) for worker in workers]
        cells = [{cell["name"]: cell for cell in answer["cells"]} for answer in (told[0], told[2])]
        _note_skips(result, told[0]["skipped"], told[2]["skipped"])
        if changed is not None:
            cells = [_affected(side, changed) for side in cells]
            left_out = len(told[2]["cells"]) - len(cells[1])
            if left_out:
                result.notes.append(f"{left_out} cells that no changed file below --paths can touch were left out")
        if not any(cells) and not (changed is not None and any(answer["cells"] for answer in told)):
            raise AdlbenchError(
                "nothing to compare: no pair fits; `adlbench plan` with the same overrides gives the reasons"
            )
        result.hardware = next((cell["hardware"] for side in cells for cell in side.values()), "")
        if accuracy_too:
            result.accuracy = _accuracy(workers, cells, folder, say)
        if speed_too:
            groups = _first_seeds(cells[0]), _first_seeds(cells[1])
            broken = {finding.group for finding in result.accuracy if finding.outcome == "could not run"}
            shared = [group for group in groups[0] if group in groups[1] and group not in broken]
            deadline = time.monotonic() + seconds
            for index, group in enumerate(shared):
                share = (deadline - time.monotonic()) / (len(shared) - index)
                say(f"speed of {group}")
                sides = (groups[0][group], groups[0][group], groups[1][group])
                result.speed += _speed(workers, sides, folder, rule, max(share, 1.0))
    result.seconds = time.monotonic() - begin
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _note_skips(result: Comparison, base: list[dict[str, str]], head: list[dict[str, str]]) -> None:
    for skip in base:
        if skip in head:
            continue
        name = f"{skip['task']}/{skip['dataset']}/{skip['method']}"
        result.notes.append(f"{name}: skipped in the base only: {skip['reason']}")
    for skip in head:
        name = f"{skip['task']}/{skip['dataset']}/{skip['method']}"
        if skip["reason"].startswith("missing data"):
            result.notes.append(f"{name}: {skip['reason']}")


def _affected(cells: dict[str, Any], changed: Sequence[str]) -> dict[str, Any]:
    """The cells that the changed files can touch."""
    return {name: cell for name, cell in cells.items() if any(_touches(path, cell) for path in changed)}


def _touches(path: str, cell: dict[str, Any]) -> bool:
    """A method's or dataset's own YAML touches its own cells, a module its family's; prose and tests none; the rest all."""
    parts = Path(path).parts
    if path.endswith((".md", ".rst", ".txt", ".svg", ".png")) and path != "constraints.txt":
        return False
    if parts[0] in ("tests", "docs", "results", ".github"):
        return False
    if len(parts) == 3 and parts[0] == "configs" and parts[1] in ("task", "dataset", "method"):
        return cell["axes"][parts[1]] == Path(path).stem
    if len(parts) == 3 and parts[0] in ("methods", "datasets") and parts[1] not in ("nn", "base", "formats"):
        family = f"adlbench.{parts[0]}.{parts[1]}."  # its modules may import each other
        return any(source.startswith(family) for source in cell["sources"])
    return True


def _first_seeds(cells: dict[str, Any]) -> dict[str, Any]:
    """group -> its first cell."""
    first: dict[str, Any] = {}
    for cell in cells.values():
        first.setdefault(cell["group"], cell)
    return first


# ------------------------------------------------------------------------------------------------------------- accuracy
def _accuracy(
    workers: Sequence[Worker], cells: Sequence[dict[str, Any]], folder: Path, say: Say
) -> list[AccuracyFinding]:
    """Cell by cell: the first seed on both sides; the others only where that one differs."""
    findings = []
    sides = (workers[0], workers[2])
    for group in dict.fromkeys(cell["group"] for side in cells for cell in side.values()):
        names = [[name for name, cell in side.items() if cell["group"] == group] for side in cells]
        if not names[0] or not names[1]:
            stub = [[_stub(side[name]) for name in own] for side, own in zip(cells, names)]
            findings += compare_results(*stub)
            continue
        results: tuple[list[CellResult], list[CellResult]] = ([], [])
        for name in names[0]:
            if name not in names[1]:
                continue
            say(f"accuracy of {name}")
            for side, worker, found, own in zip("ab", sides, results, cells):
                path = folder / side / name
                with contextlib.ExitStack() as stack:
                    _fork(stack, worker, own[name])
                    worker.ask("train", name=name, folder=str(path.absolute()))
                found.append(read_result(path))
            first = results[0][0], results[1][0]
            if all(result.status == "done" for result in first) and first[0].equals(first[1]):
                break
        findings += compare_results(*results)
    return findings


def _stub(cell: dict[str, Any]) -> CellResult:
    return CellResult(cell["group"], cell["seed"], "done", "", cell["protocol"], "", "", {}, {})


# ---------------------------------------------------------------------------------------------------------------- speed
def _speed(
    workers: Sequence[Worker], cells: Sequence[dict[str, Any]], folder: Path, rule: SpeedRule, seconds: float
) -> list[SpeedFinding]:
    """Training steps, inference calls and memory of one cell, which is given as each worker knows it."""
    group = cells[0]["group"]
    limit = min(cell["steps"] or 10**9 for cell in cells)
    clock = "cpu" if cells[0]["device"] == "cpu" else "wall"
    trio = (workers[0], workers[1], workers[2])
    findings: list[SpeedFinding] = []
    memory: list[list[dict[str, float | None]]] = []

    def train(worker: Worker, n: int) -> dict[str, float]:
        return worker.ask("steps", n=n, limit=limit)

    def infer(worker: Worker, n: int) -> dict[str, float]:
        return worker.ask("inference", n=n)

    @contextlib.contextmanager
    def opened() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for index, (worker, cell) in enumerate(zip(workers, cells)):
                _fork(stack, worker, cell)
                worker.ask("open", name=cell["name"], folder=str((folder / f"speed{index}").absolute()))
            yield
            memory.append([worker.ask("memory") for worker in workers])

    try:
        works = {"train": Work(train, max(1, limit - 1)), "inference": Work(infer)}
        for rounds in measure(trio, opened, works, rule, clock, seconds):
            findings.append(_speed_finding(group, rounds, clock, rule))
        findings.append(_memory_finding(group, memory))
    except WorkerError as error:
        findings.append(SpeedFinding(group, "speed", "could not run", str(error)))
    return findings


def _fork(stack: contextlib.ExitStack, worker: Worker, cell: dict[str, Any]) -> None:
    """On a processor each start is a process of its own; on an accelerator, where to begin takes seconds, only its arrays are."""
    if cell["device"] == "cpu":
        stack.enter_context(worker.forked())


def _speed_finding(group: str, rounds: Rounds, clock: str, rule: SpeedRule) -> SpeedFinding:
    verdict = speed.judge(*rounds.columns(clock), rule, rounds.starts)
    outcome, reason, wall = verdict.outcome, verdict.reason, None
    if clock == "cpu":
        wall_rule = SpeedRule(minimum_effect=max(WALL_EFFECT, rule.minimum_effect))
        wall = speed.judge(*rounds.columns("wall"), wall_rule, rounds.starts)
        if outcome == "pass" and wall.outcome == "slower" and wall.change.low > WALL_EFFECT:
            outcome, reason = "slower", f"{wall.reason} in wall time, while the processor does no more than before"
    return SpeedFinding(group, rounds.what, outcome, reason, clock, verdict, wall, rounds.per_round, rounds)


def _memory_finding(group: str, starts: Sequence[Sequence[dict[str, float | None]]]) -> SpeedFinding:
    """From the peaks of the three processes in each start."""
    kind = "device" if starts[0][0]["device"] is not None else "resident"
    known = [[answer[kind] for answer in answers] for answers in starts]
    if any(value is None for answers in known for value in answers):
        return SpeedFinding(group, "memory", "pass", "this system does not tell a process's peak memory")
    base, control, head = (statistics.median(float(value or 0.0) for value in side) for side in zip(*known))
    before = max(base, control)
    more = head - before
    allowed = max(MEMORY_FLOOR_MB, MEMORY_EFFECT * before, 2 * abs(control - base))
    reason = f"{head:.0f} MB after {before:.0f} MB at the peak"
    return SpeedFinding(
        group, "memory", "heavier" if more > allowed else "pass", reason, kind, memory_mb=(base, control, head)
    )
