"""What two sides' cells gave, read from their record folders, and the accuracy verdicts between them.

A record is read as plain JSON, because another commit may have written it under another schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.records import read_arrays
from adlbench.benchmark.regression import accuracy
from adlbench.benchmark.regression.accuracy import MIN_SEEDS, AccuracyVerdict

Outcome = Literal["pass", "worse", "slower", "heavier", "inconclusive", "could not run"]
EXIT_CODES = {"worse": 1, "slower": 1, "heavier": 1, "could not run": 2, "inconclusive": 3, "pass": 0}


def exit_code(outcomes: Iterable[str]) -> int:
    """1 for a finding, else 2 where something could not run, else 3 where something is open, else 0."""
    codes = {EXIT_CODES[outcome] for outcome in outcomes}
    return next((code for code in (1, 2, 3) if code in codes), 0)


@dataclass(frozen=True)
class CellResult:
    """One cell of one side."""

    group: str  # task/dataset/method/fidelity: the cell without its seed
    seed: int
    status: str
    reason: str
    protocol: str
    fingerprint: str
    hardware: str
    metrics: dict[str, float]
    specs: dict[str, dict[str, Any]]  # direction, margin, primary by metric
    items: dict[str, NDArray[np.float64]] = field(repr=False, default_factory=dict)
    throughput: float | None = None
    cpu_seconds_per_step: float | None = None
    budget: dict[str, Any] = field(default_factory=dict)

    def equals(self, other: CellResult) -> bool:
        """To the bit: every metric, and every item's value."""
        same = {k: v.hex() for k, v in self.metrics.items()} == {k: v.hex() for k, v in other.metrics.items()}
        return (
            same
            and self.items.keys() == other.items.keys()
            and all(np.array_equal(values, other.items[name], equal_nan=True) for name, values in self.items.items())
        )


def read_result(folder: Path) -> CellResult:
    """Raises AdlbenchError where the folder holds no readable record."""
    try:
        record = json.loads((folder / "record.json").read_text())
        return CellResult(
            group=record["name"].rpartition("/")[0],
            seed=int(record["seed"]),
            status=record["status"],
            reason=record.get("reason", ""),
            protocol=record["protocol"],
            fingerprint=record.get("data_fingerprint", ""),
            hardware=record.get("hardware", ""),
            metrics={name: float(value) for name, value in record["metrics"].items()},
            specs=record["specification"]["task"]["metrics"],
            items={k: np.asarray(v, dtype=np.float64) for k, v in _arrays(folder / "items.npz").items()},
            throughput=record.get("throughput"),
            cpu_seconds_per_step=record.get("train_cpu_seconds", 0.0) / max(1, record.get("steps", 0)) or None,
            budget=record["specification"]["budget"],
        )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise AdlbenchError(f"{folder}: not a readable record ({type(error).__name__}: {error})") from error


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    return read_arrays(path) if path.exists() else {}


@dataclass(frozen=True)
class AccuracyFinding:
    group: str
    outcome: Outcome
    reason: str
    metric: str = ""  # empty for what is said of the whole cell
    verdict: AccuracyVerdict | None = None
    throughput: tuple[float | None, float | None] = (None, None)  # base, head: information only

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_results(
    base: Sequence[CellResult], head: Sequence[CellResult], *, same_hardware: bool = True
) -> list[AccuracyFinding]:
    """Findings by cell: every base cell is answered for; cells that only the head has are listed as new."""
    findings = []
    for group in dict.fromkeys(result.group for result in [*base, *head]):
        old = {result.seed: result for result in base if result.group == group}
        new = {result.seed: result for result in head if result.group == group}
        findings += _compare_cell(group, old, new, same_hardware)
    return findings


def _compare_cell(
    group: str, base: dict[int, CellResult], head: dict[int, CellResult], same_hardware: bool
) -> list[AccuracyFinding]:
    shared = sorted(base.keys() & head.keys())
    whole = _said_of_the_whole(base, head, shared, same_hardware)
    rates = tuple(_mean([side[seed].throughput for seed in shared]) for side in (base, head))
    if whole is not None:
        return [AccuracyFinding(group, *whole, throughput=(rates[0], rates[1]))]
    findings = []
    for name, spec in base[shared[0]].specs.items():
        if spec.get("margin") is None or name not in base[shared[0]].metrics:
            continue
        values = [{s: side[s].metrics[name] for s in shared} for side in (base, head)]
        items = [{s: side[s].items[name] for s in shared if name in side[s].items} for side in (base, head)]
        verdict = accuracy.judge(values[0], values[1], spec["direction"], float(spec["margin"]), items[0], items[1])
        findings.append(AccuracyFinding(group, verdict.outcome, verdict.reason, name, verdict, (rates[0], rates[1])))
    if not findings:
        reason = "the numbers differ and the task declares no margin for any metric"
        return [AccuracyFinding(group, "inconclusive", reason, throughput=(rates[0], rates[1]))]
    return findings


def _said_of_the_whole(
    base: dict[int, CellResult], head: dict[int, CellResult], shared: Sequence[int], same_hardware: bool
) -> tuple[Outcome, str] | None:
    """What makes single metrics moot: nothing to compare, nothing comparable, a failure, too few seeds, or equal bits."""
    if not base:
        return "pass", "new: there is nothing to compare it with"
    if not head:
        return "could not run", "the cell is gone: the second side has none of this name"
    for seed in shared:
        problem = _mismatch(base[seed], head[seed], same_hardware)
        if problem is not None:
            return "could not run", problem
    failed = [[side[seed] for seed in shared if side[seed].status != "done"] for side in (base, head)]
    if failed[1]:
        worst, where = failed[1][0], "on both sides" if failed[0] else "in the second side only"
        return "could not run", f"seed {worst.seed} ended {worst.status} {where}: {worst.reason}"
    if failed[0]:
        worst = failed[0][0]
        return "inconclusive", f"seed {worst.seed} ended {worst.status} in the first side only: {worst.reason}"
    if shared and all(base[seed].equals(head[seed]) for seed in shared):
        return "pass", f"equal to the bit, metrics and items, at seed {', '.join(map(str, shared))}"
    if len(shared) < MIN_SEEDS:
        return "inconclusive", f"{len(shared)} shared seeds; {MIN_SEEDS} are needed"
    lost = {name for seed in shared for name in base[seed].metrics.keys() ^ head[seed].metrics.keys()}
    lost &= set(base[shared[0]].specs)
    if lost:
        return "could not run", f"{', '.join(sorted(lost))}: one side gives a value and the other none"
    return None


def _mismatch(base: CellResult, head: CellResult, same_hardware: bool) -> str | None:
    remedy = "; they do not compare, save a new baseline"
    if base.protocol != head.protocol:
        return f"protocol {base.protocol} against {head.protocol}{remedy}"
    if base.fingerprint != head.fingerprint and base.fingerprint and head.fingerprint:
        return f"other data, fingerprint {base.fingerprint[:12]} against {head.fingerprint[:12]}{remedy}"
    if same_hardware and base.hardware != head.hardware and base.hardware and head.hardware:
        return f"another hardware class, {base.hardware!r} against {head.hardware!r}{remedy}"
    if base.budget != head.budget:
        return f"another budget, {base.budget} against {head.budget}{remedy}"
    return None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
