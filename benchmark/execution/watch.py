"""What /proc knows of a cell's processes: which there are, what memory they hold, and how long their log has become."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TOKEN = "ADLBENCH_RUNNER"  # in the environment of everything that a runner starts: "<pid>:<start time>" of the runner
LOG_LIMIT, LOG_KEPT = 16 * 2**20, 2**19  # bytes: a log longer than the first is cut to its two ends


@dataclass(frozen=True)
class Process:
    parent: int
    session: int
    started: int  # clock ticks since boot; with the pid it names a process for good
    zombie: bool


def processes() -> dict[int, Process]:
    """Every process of this machine by pid; empty where there is no /proc."""
    found = {}
    for entry in os.listdir(PROC) if PROC.is_dir() else ():
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # "pid (name) state ppid pgrp session ...": the name may hold spaces and brackets (man 5 proc)
                fields = (PROC / entry / "stat").read_text().rpartition(")")[2].split()
                found[int(entry)] = Process(int(fields[1]), int(fields[3]), int(fields[19]), fields[0] in "ZX")
    return found


def members(leader: int, snapshot: Mapping[int, Process], known: Mapping[int, int]) -> dict[int, int]:
    """pid -> start time of the living processes of ``leader``'s session, their descendants, and of ``known`` ones."""
    family = {pid for pid, p in snapshot.items() if leader in (pid, p.session) or known.get(pid) == p.started}
    children: dict[int, list[int]] = {}
    for pid, process in snapshot.items():
        children.setdefault(process.parent, []).append(pid)
    queue = list(family)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in family:
                family.add(child)
                queue.append(child)
    return {pid: snapshot[pid].started for pid in family if not snapshot[pid].zombie}


def memory_mb(pids: Iterable[int], at_least: float = 0.0) -> float:
    """Memory that these processes hold apart from mapped files, in MB.

    Pages that several share count in parts (PSS), which the kernel works out by walking the page tables; so it is asked
    only where the cheap upper bound, the sum of the resident sizes, reaches ``at_least``.
    """
    bound = sum(_kilobytes(pid, "status", ("RssAnon", "RssShmem")) for pid in pids) / 1024
    if bound < at_least:
        return bound
    return sum(_kilobytes(pid, "smaps_rollup", ("Pss_Anon", "Pss_Shmem")) for pid in pids) / 1024


def _kilobytes(pid: int, file: str, keys: tuple[str, ...]) -> int:
    try:
        lines = (PROC / str(pid) / file).read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in keys)


def machine_memory_mb() -> tuple[float, float] | None:
    """(available, total) of the machine or of the control group that holds this process, whichever has less left."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
    except OSError:
        return None
    values = {line.partition(":")[0]: int(line.split()[1]) / 1024 for line in lines if len(line.split()) > 1}
    total, available = values["MemTotal"], values["MemAvailable"]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        path = next(text[3:] for text in (PROC / "self/cgroup").read_text().splitlines() if text.startswith("0::"))
        group = Path("/sys/fs/cgroup") / path.lstrip("/")
        limit = int((group / "memory.max").read_text()) / 2**20  # "max", which is no number, where there is none
        used = int((group / "memory.current").read_text()) / 2**20
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        left = limit - used + int(statistics["inactive_file"]) / 2**20
        if left < available:
            return left, limit
    return available, total


def kernel_kills() -> int:
    """How many processes the kernel has ended for want of memory, as far as this process may know."""
    try:
        words = (PROC / "vmstat").read_text().split()
        return int(words[words.index("oom_kill") + 1])
    except (OSError, ValueError):
        return 0


def kill_members(pids: Mapping[int, int]) -> None:
    """KILL each process that is still the one that was seen."""
    for pid, started in pids.items():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]) == started:
                os.kill(pid, signal.SIGKILL)


def mark_runner() -> str:
    """Let everything that this process starts from now on carry its name; returns the name."""
    fields = (PROC / "self/stat").read_text().rpartition(")")[2].split() if PROC.is_dir() else ["0"] * 20
    os.environ[TOKEN] = f"{os.getpid()}:{fields[19]}"
    return os.environ[TOKEN]


def end_strays() -> list[int]:
    """KILL what cells left behind: of this runner, once its cells have ended, and of runners that are gone.

    A process that made itself a session of its own and lost its parent is found too: the environment that it was born
    with cannot be changed from inside.
    """
    snapshot, me, ended = processes(), os.getpid(), []
    for pid, process in snapshot.items():
        if me in (pid, process.parent) or process.zombie:
            continue
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        token = next((e for e in environment.split(b"\0") if e.startswith(f"{TOKEN}=".encode())), b"").decode()
        runner, _, started = token.rpartition("=")[2].partition(":")
        if not runner.isdigit():
            continue
        living = snapshot.get(int(runner))
        if int(runner) == me or living is None or str(living.started) != started:
            kill_members({pid: process.started})
            ended.append(pid)
    return ended


def cut_log(path: Path) -> int:
    """Cut a log that has become too long to its beginning and its end; returns the bytes that were left out.

    The writer appends, so it goes on behind the cut. What it writes between our reading and our cutting is lost too.
    """
    try:
        size = path.stat().st_size
        if size <= LOG_LIMIT:
            return 0
        with open(path, "r+b") as file:
            head = file.read(LOG_KEPT)
            file.seek(size - LOG_KEPT)
            tail = file.read()
            left_out = size - len(head) - len(tail)
            note = f"\n[adlbench: {left_out} bytes left out here; a log is kept to {LOG_LIMIT >> 20} MB]\n".encode()
            file.seek(0)
            file.write(head + note + tail)
            file.truncate()
        return left_out
    except OSError:
        return 0
