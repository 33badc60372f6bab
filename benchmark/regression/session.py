"""Three persistent workers (A, A again, B) on one core, forks of them that are timed, and rounds that interleave these."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.regression.speed import SpeedRule, enough

SCRIPT = Path(__file__).resolve().with_name("worker.py")
WARM_UP_ROUNDS = 2  # in each start of the processes
ROUNDS_A_START = 3, 10  # at least; and at most, while measuring has taken less time than preparing
ROUND_SECONDS = (
    0.004  # of CPU time, aimed at: many short rounds tell more than few long ones, which seldom end undisturbed
)
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}


class WorkerError(AdlbenchError):
    """A side that does not start, answers with an error, dies or hangs."""


@dataclass(frozen=True)
class Tree:
    """Where the code of one side is, and the interpreter that runs it."""

    label: str  # what the user called it
    commit: str
    path: Path
    python: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def import_path(self) -> str:
        return str(self.path / "src" if (self.path / "src").is_dir() else self.path)


class Worker:
    def __init__(self, tree: Tree, cores: Sequence[int] = (), threads: int = 1, timeout: float = 600.0):
        self.tree, self._timeout, self._modules = tree, timeout, list[str]()
        path = os.pathsep.join(filter(None, [tree.import_path, os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, **(ONE_THREAD if threads == 1 else {}), **tree.environment, "PYTHONPATH": path}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [tree.python, str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent, which ends its workers
        )
        try:
            answer = self.ask("hello", threads=threads, cores=list(cores))
            wanted = Path(tree.import_path).resolve()
            if not Path(answer["package"]).resolve().is_relative_to(wanted) and (wanted / "adlbench").is_dir():
                raise WorkerError(f"{tree.label}: it imports adlbench from {answer['package']} instead of {wanted}")
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Raises WorkerError with the side's name and the reason, which is the last line that the process printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"{self.tree.label}: the process ended{self._last_words()}") from None
        ready, _, _ = select.select([self._process.stdout], [], [], self._timeout)
        if not ready:
            self._kill()  # a late answer would be taken for the next one
            raise WorkerError(f"{self.tree.label}: no answer to {do!r} within {self._timeout:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.tree.label}: the process ended{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.tree.label}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f" with exit code {code}" + (f": {lines[-1]}" if lines else "")

    @contextlib.contextmanager
    def forked(self) -> Iterator[None]:
        """A fork of the process answers inside.

        What a fork imports, the process imports too before the next one, which then need not.
        """
        self.ask("begin", modules=self._modules)
        try:
            yield
        except BaseException:
            with contextlib.suppress(WorkerError):  # it may be gone
                self.ask("end")
            raise
        self._modules = self.ask("end")["modules"]

    def _kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # the group: a fork of it may be computing

    def close(self) -> None:
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Rounds:
    """Seconds by round of each process, by clock."""

    what: str  # "train" or "inference"
    per_round: int = 0  # steps or calls
    cpu: list[tuple[float, ...]] = field(default_factory=list)  # base, control, head
    wall: list[tuple[float, ...]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # of each round: which start of the processes it belongs to

    def columns(self, clock: str, head: int = 2) -> tuple[list[float], list[float], list[float]]:
        """Of base, control and the ``head``-th process."""
        rounds = self.cpu if clock == "cpu" else self.wall
        base, control, judged = ([entry[i] for entry in rounds] for i in (0, 1, head))
        return base, control, judged


def quiet_core(spin: float = 0.005) -> list[int]:
    """The one allowed core that gives a process the most of its time; empty where cores cannot be chosen.

    It is tried out, since idleness does not tell what priorities the others on a busy core have.
    """
    try:
        allowed = sorted(os.sched_getaffinity(0))
        shares = {}
        for core in allowed:
            os.sched_setaffinity(0, [core])
            wall, cpu = time.perf_counter(), time.thread_time()
            while time.thread_time() - cpu < spin:
                pass
            shares[core] = spin / (time.perf_counter() - wall)
        os.sched_setaffinity(0, allowed)
        return [max(allowed, key=lambda core: shares[core])]
    except (AttributeError, OSError):
        return []


class Work(NamedTuple):
    ask: Callable[[Worker, int], dict[str, float]]  # (worker, n): do n units and tell the seconds
    most: int = 10**6  # units in a round


Trio = tuple[Worker, Worker, Worker]


def measure(
    workers: Trio,
    opened: Callable[[], AbstractContextManager[object]],
    works: Mapping[str, Work],
    rule: SpeedRule,
    clock: str,
    seconds: float,
    seed: int = 0,
) -> list[Rounds]:
    """Rounds of each of ``works``, until its interval on ``clock`` is narrow enough or ``seconds`` have passed.

    ``opened`` starts the processes anew and prepares them; some rounds of each work are done in every start.
    """
    order, deadline = random.Random(seed), time.monotonic() + seconds
    found = {what: Rounds(what) for what in works}
    wanted, start = list(works), 0
    while wanted and (start == 0 or time.monotonic() < deadline):
        began = time.monotonic()
        with opened():
            share = (time.monotonic() - began) / len(wanted)
            for what in wanted:
                measure_start(workers, works[what], found[what], start, share, deadline, order)
        wanted = [what for what in wanted if not enough(*found[what].columns(clock), rule, found[what].starts)]
        start += 1
    return list(found.values())


def measure_start(
    workers: Sequence[Worker],
    work: Work,
    rounds: Rounds,
    start: int,
    at_least: float,
    deadline: float,
    order: random.Random,
) -> None:
    """Rounds in one start of the processes, which are prepared: some, and more until ``at_least`` seconds have passed."""
    if not rounds.per_round:
        spent = [min(work.ask(worker, 1)["cpu"] for _ in range(4)) for worker in workers]
        rounds.per_round = max(1, min(work.most, math.ceil(ROUND_SECONDS / max(*spent, 1e-5))))
    for _ in range(WARM_UP_ROUNDS):
        for worker in workers:
            work.ask(worker, rounds.per_round)
    begin, done = time.monotonic(), 0
    least, most = ROUNDS_A_START
    while done < least or (done < most and time.monotonic() - begin < at_least):
        turns = order.sample(range(len(workers)), len(workers))
        took = {which: work.ask(workers[which], rounds.per_round) for which in turns}
        rounds.cpu.append(tuple(took[which]["cpu"] for which in range(len(workers))))
        rounds.wall.append(tuple(took[which]["wall"] for which in range(len(workers))))
        rounds.starts.append(start)
        done += 1
        if time.monotonic() > deadline:
            break
