"""Quality and throughput of a method over commits, from MLflow, with the steps in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.leaderboard.frame import cell_frame
from adlbench.benchmark.regression.steps import Step, steps

BARS = "▁▂▃▄▅▆▇█"
AXES = ["task", "dataset", "instance", "method", "fidelity", "hardware", "precision"]


@dataclass(frozen=True)
class Point:
    commit: str
    start_time: int  # milliseconds
    value: float  # mean over the seeds that ran
    seeds: int


@dataclass(frozen=True)
class Series:
    """One quantity of one method on one dataset and hardware class, oldest commit first."""

    title: str
    quantity: str
    points: tuple[Point, ...]
    steps: tuple[Step, ...] = field(default=())
    axes: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "quantity": self.quantity,
            "points": [vars(point) for point in self.points],
            "steps": [
                {"commit": self.points[s.index].commit, "before": s.before, "after": s.after, "relative": s.relative}
                for s in self.steps
            ],
        }


def history(results_dir: Path, method: str, quantities: Sequence[str] = ()) -> list[Series]:
    """Series of the primary metric and of the throughput (or of ``quantities``). Raises AdlbenchError where nothing was run."""
    frame = cell_frame(results_dir, latest=False)
    found = courses(frame[frame["method"] == method] if not frame.empty else frame, quantities)
    if not found:
        raise AdlbenchError(
            f"no finished cell of method {method!r} at a known commit; run it, e.g. adlbench run task=... method={method}"
        )
    return found


def courses(frame: pd.DataFrame, quantities: Sequence[str] = ()) -> list[Series]:
    """The same for all runs in ``frame``; those that are not done, or of an unknown commit, are left out."""
    if frame.empty or "git_commit" not in frame:
        return []
    frame = frame[(frame["status"] == "done") & (frame["git_commit"] != "None")]
    found = []
    for axes, group in frame.groupby(AXES, sort=True, observed=True):
        named = {name: str(value) for name, value in zip(AXES, axes)}
        method = named["method"]
        dataset = named["dataset"] if named["instance"] == "all" else f"{named['dataset']}.{named['instance']}"
        title = f"{named['task']}/{dataset}/{method}/{named['fidelity']} on {named['hardware']}"
        for quantity in quantities or (_primary(group), "throughput"):
            column = f"metric.{quantity}"
            if column not in group or group[column].isna().all():
                continue
            points = []
            by_commit = group.dropna(subset=[column]).groupby("git_commit", observed=True)
            for commit, rows in sorted(by_commit, key=lambda entry: int(entry[1]["start_time"].min())):
                by_seed = rows.groupby("seed")[column].mean()
                points.append(Point(str(commit), int(rows["start_time"].min()), float(by_seed.mean()), len(by_seed)))
            found.append(Series(title, quantity, tuple(points), tuple(steps([point.value for point in points])), named))
    return found


def _primary(group: Any) -> str:
    import json

    specs = json.loads(group["metric_specs"].iloc[-1])
    return next((name for name, spec in specs.items() if spec["primary"]), next(iter(specs)))


def sparkline(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def lines(series: Series) -> list[str]:
    """For the terminal: the course, its ends, and a line for each step."""
    values = [point.value for point in series.points]
    first, last = series.points[0], series.points[-1]
    told = [
        f"{series.title}: {series.quantity}",
        f"  {sparkline(values)}  {first.value:.5g} ({first.commit[:8]}) to {last.value:.5g} ({last.commit[:8]}), {len(values)} commits",
    ]
    for step in series.steps:
        point = series.points[step.index]
        told.append(
            f"  step at {point.commit[:8]}: {step.before:.5g} to {step.after:.5g} ({100 * step.relative:+.1f} %)"
        )
    return told
