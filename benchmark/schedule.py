"""How long cells take, in which order they run, and which of them fit into a stretch of time."""

from __future__ import annotations

import bisect
import heapq
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from adlbench.benchmark.durations import duration
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import Index

Estimate = Callable[[CellSpec], float | None]


class History:
    """Seconds that a cell may take: the median of what the same pair took before, else of the method on other data of the
    task, else of other methods on the same data; None where nothing like it has run."""

    def __init__(self, index: Index):
        seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for summary in index.all():
            if summary.status == "done":
                for key in self._keys(summary.name):
                    seconds[key].append(summary.wall_seconds)
        self._seconds = {key: statistics.median(values) for key, values in seconds.items()}

    @staticmethod
    def _keys(name: str) -> list[tuple[str, ...]]:
        task, dataset, method, fidelity, _ = name.split("/")
        return [
            (task, dataset, method, fidelity),
            (task, dataset.partition(".")[0] + ".", method, fidelity),
            (task, method, fidelity),
            (task, dataset, fidelity, ""),
        ]

    def __call__(self, cell: CellSpec) -> float | None:
        for key in self._keys(cell.name):
            if key in self._seconds:
                return self._seconds[key]
        return cell.budget.seconds


def makespan(seconds: Iterable[float], slots: int) -> float:
    """When the last of these cells ends if each, longest first, goes to the slot that is free first."""
    ends = [0.0] * max(1, slots)
    for value in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + value)
    return max(ends)


def estimated(cells: Sequence[CellSpec], estimate: Estimate, slots: int) -> tuple[float | None, str]:
    """(seconds that the cells may take together, the same for people); None where nothing is known of any of them."""
    known = [value for cell in cells if (value := estimate(cell)) is not None]
    if not known:
        return None, "nothing to run" if not cells else "no estimate: nothing like them has run here"
    seconds = makespan(known, slots)
    unknown = f" and {len(cells) - len(known)} without an estimate" if len(known) < len(cells) else ""
    return seconds, f"about {duration(seconds)}{unknown}"


def fit(
    cells: Sequence[CellSpec], estimate: Estimate, slots: int, seconds: float
) -> tuple[list[CellSpec], list[CellSpec]]:
    """(cells that fit, cells that are left): the shortest first, so that as many as possible fit.

    A cell that nothing is known of is tried; the run ends at its deadline whatever the estimates said.
    """
    known = sorted((value, i) for i, cell in enumerate(cells) if (value := estimate(cell)) is not None)
    count = bisect.bisect_right(
        range(len(known)), seconds, key=lambda k: makespan((value for value, _ in known[: k + 1]), slots)
    )
    late = {i for _, i in known[count:]}
    return [c for i, c in enumerate(cells) if i not in late], [c for i, c in enumerate(cells) if i in late]
