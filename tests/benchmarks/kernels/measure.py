"""What a kernel's benchmark is, and how it is measured beside its peers.

A file ``bench_*.py`` beside this one has a list ``KERNELS``; ``run.py`` finds it. For every size the own function and
its peers run in rounds, in a new random order each round, and the medians are compared: on a busy machine both meet the
same disturbance, so that ratios hold where absolute times do not. Times are CPU times by default.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

Run = Callable[[], object]


@dataclass(frozen=True)
class Kernel:
    """One row group of the table. ``make(size)`` builds the inputs and gives name -> function, "own" among the names.

    Peers that are not installed, or too slow at a size, are left out of what ``make`` returns: a name in ``peers`` that
    is missing is shown as absent. What one call does (forward + backward, maps included ...) is the ``name``'s to say.
    """

    name: str
    sizes: Sequence[int]  # three or more, for the growth exponent
    unit: str  # what ``sizes`` counts: "voxels", "points"
    make: Callable[[int], Mapping[str, Run]]
    peers: Mapping[str, float] = field(default_factory=dict)  # name -> the ratio (peer's time / own) that is wanted


@dataclass(frozen=True)
class Row:
    kernel: str
    size: int
    unit: str
    own_ms: float
    peer: str
    peer_ms: float | None  # None: absent
    ratio: float | None
    wanted: float
    rounds: int
    own_peak_mb: float
    peer_peak_mb: float | None
    growth: float | None = None  # slope of log(own time) over log(size), the same in all rows of a kernel

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def peak_memory(run: Run) -> float:
    """MB by which the process grows at most during the call; NaN where the kernel does not tell (not Linux)."""
    gc.collect()
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if sys.platform != "linux" or not reset.exists():
        run()
        return math.nan
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text("5")  # the high-water mark starts again from what is in use
    before = _kilobytes(status, "VmRSS")
    run()
    return max(_kilobytes(status, "VmHWM") - before, 0) / 1e3


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


CLOCKS: Mapping[str, Callable[[], float]] = {
    "cpu": time.process_time,  # of all threads: what counts on a machine that others use too
    "wall": time.perf_counter,
}


def interleaved(
    runs: Mapping[str, Run], rounds: int, seconds: float, clock: str, seed: int = 0
) -> dict[str, list[float]]:
    """Seconds of every call, by name. At least three rounds; then until ``rounds`` or ``seconds`` are used up."""
    names, rng, now = list(runs), np.random.default_rng(seed), CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in names}
    begin = now()
    for done in range(rounds):
        if done >= 3 and now() - begin > seconds:
            break
        for index in rng.permutation(len(names)):
            start = now()
            runs[names[index]]()
            times[names[index]].append(now() - start)
    return times


def growth_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Least-squares slope in log-log; None for fewer than three sizes."""
    if len(sizes) < 3:
        return None
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(kernel: Kernel, rounds: int, seconds: float, clock: str = "cpu") -> list[Row]:
    for run in kernel.make(min(kernel.sizes)).values():  # libraries load, threads start
        run()
    rows: list[Row] = []
    medians = []
    for size in kernel.sizes:
        runs = kernel.make(size)
        peaks = {name: peak_memory(run) for name, run in runs.items()}
        times = interleaved(runs, rounds, seconds, clock)
        own = statistics.median(times["own"])
        medians.append(own)
        for peer, wanted in (kernel.peers or {"none": 1.0}).items():
            theirs = statistics.median(times[peer]) if peer in times else None
            row = Row(
                kernel=kernel.name,
                size=size,
                unit=kernel.unit,
                own_ms=own * 1e3,
                peer=peer,
                peer_ms=None if theirs is None else theirs * 1e3,
                ratio=None if theirs is None else theirs / own,
                wanted=wanted,
                rounds=len(times["own"]),
                own_peak_mb=peaks["own"],
                peer_peak_mb=peaks.get(peer),
            )
            rows.append(row)
    growth = growth_exponent(kernel.sizes, medians)
    return [replace(row, growth=growth) for row in rows]
