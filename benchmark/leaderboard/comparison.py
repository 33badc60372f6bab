"""Methods against each other, paired: the same seeds, the same test items, and where they differ most.

Read from the records of one results folder. Two methods meet where task, protocol, dataset, instance, fidelity
and the fingerprint of the data are the same; different hardware does not matter, as only metrics are compared.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.leaderboard.statistics import CONFIDENCE, t_interval
from adlbench.benchmark.records import Record, find_records, read_arrays

Axes = tuple[str, str, str, str, str, str]  # task, protocol, dataset, instance, fidelity, fingerprint


@dataclass(frozen=True)
class Duel:
    """``mine`` against ``other`` in one metric on one dataset instance. Differences are positive where mine is better."""

    task: str
    dataset: str
    instance: str
    fidelity: str
    metric: str
    unit: str
    mine: str
    other: str
    seeds: tuple[int, ...]  # that both have
    mean_mine: float
    mean_other: float
    difference: float  # mean over the shared seeds
    interval: float | None  # half-width of its 95 % t-interval over seeds; None for one seed
    items: int = 0  # test items that both scored, over all shared seeds; 0 where the metric has no value per item
    wins: int = 0
    losses: int = 0
    win_share: float | None = None  # of the items that are not ties
    win_interval: tuple[float, float] | None = None  # 95 % of it, Wilson; items of one seed are not independent of it
    widest: tuple[
        int, ...
    ] = ()  # items of the first shared seed, by how much they differ, the greatest difference first
    folders: tuple[Path, Path] | None = field(default=None, compare=False)  # the cells of that seed

    @property
    def verdict(self) -> str:
        """Whether the interval over seeds excludes 0; with one seed nothing is tested."""
        if self.interval is None:
            return "one seed, not tested" if self.difference else "equal"
        if abs(self.difference) <= self.interval:
            return "no difference shown" if self.difference or self.interval else "equal"
        return "better" if self.difference > 0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        named = {key: value for key, value in vars(self).items() if key != "folders"}
        return {**named, "verdict": self.verdict}


def compare_methods(
    results_dir: Path,
    mine: str,
    others: Sequence[str],
    *,
    tasks: Sequence[str] = (),
    datasets: Sequence[str] = (),
    fidelity: str | None = None,
    all_metrics: bool = False,
) -> list[Duel]:
    """One duel for every dataset instance and other method that ``mine`` meets, in the primary metric or in all of them.

    Raises AdlbenchError when a method has no finished cell, or they never meet, saying what to run.
    """
    cells: dict[str, dict[Axes, dict[int, tuple[Path, Record]]]] = defaultdict(lambda: defaultdict(dict))
    for folder, record in find_records(results_dir):
        wanted = record.status == "done" and record.method in (mine, *others)
        wanted = wanted and (not tasks or record.task in tasks) and (not datasets or record.dataset in datasets)
        if wanted and fidelity in (None, record.fidelity):
            where = (record.task, record.protocol, record.dataset, record.instance, record.fidelity)
            cells[record.method][*where, record.data_fingerprint][record.seed] = (folder, record)
    for method in (mine, *others):
        if not cells[method]:
            raise AdlbenchError(
                f"{method} has no finished cell of this kind in {results_dir}; "
                f"run it with: adlbench run task=TASK method={','.join([mine, *others])}"
            )
    duels = []
    for axes in sorted(cells[mine]):
        for other in others:
            seeds = sorted(cells[mine][axes].keys() & cells[other].get(axes, {}).keys())
            if seeds:
                pairs = [(cells[mine][axes][seed], cells[other][axes][seed]) for seed in seeds]
                duels += _duels(pairs, mine, other, all_metrics)
    if not duels:
        raise AdlbenchError(
            f"{mine} and {', '.join(others)} share no dataset, seed and fidelity in {results_dir}; run both with: "
            f"adlbench run task=TASK method={','.join([mine, *others])} seed=0,1,2"
        )
    return duels


def _duels(
    pairs: list[tuple[tuple[Path, Record], tuple[Path, Record]]], mine: str, other: str, all_metrics: bool
) -> list[Duel]:
    (folder, first), (other_folder, _) = pairs[0]
    specs: dict[str, dict[str, Any]] = first.specification["task"]["metrics"]
    items = [(read_items(a[0]), read_items(b[0])) for a, b in pairs]
    duels = []
    for metric in specs if all_metrics else [first.primary]:
        values = [(a[1].metrics.get(metric, math.nan), b[1].metrics.get(metric, math.nan)) for a, b in pairs]
        if not all(math.isfinite(value) for pair in values for value in pair):
            continue
        sign = 1.0 if specs[metric]["direction"] == "up" else -1.0
        differences = [sign * (a - b) for a, b in values]
        interval = t_interval(differences)
        per_item = [sign * (a[metric] - b[metric]) for a, b in items if _paired(a, b, metric)]
        extra: dict[str, Any] = {}
        if per_item and len(per_item) == len(pairs):
            extra = _item_statistics(np.concatenate(per_item))
            order = np.argsort(-np.abs(np.nan_to_num(per_item[0])), kind="stable")
            extra["widest"] = tuple(int(i) for i in order if per_item[0][i] != 0 and np.isfinite(per_item[0][i]))[:32]
        duels.append(
            Duel(
                task=first.task,
                dataset=first.dataset,
                instance=first.instance,
                fidelity=first.fidelity,
                metric=metric,
                unit=specs[metric]["unit"],
                mine=mine,
                other=other,
                seeds=tuple(a[1].seed for a, _ in pairs),
                mean_mine=float(np.mean([a for a, _ in values])),
                mean_other=float(np.mean([b for _, b in values])),
                difference=float(np.mean(differences)),
                interval=None if math.isnan(interval) else interval,
                folders=(folder, other_folder),
                **extra,
            )
        )
    return duels


def read_items(folder: Path) -> dict[str, NDArray[np.floating]]:
    """Metric -> one value per test item; empty where the cell kept none."""
    path = folder / "items.npz"
    return read_arrays(path) if path.exists() else {}


def _paired(first: dict[str, Any], second: dict[str, Any], metric: str) -> bool:
    return metric in first and metric in second and first[metric].shape == second[metric].shape


def _item_statistics(differences: NDArray[np.floating]) -> dict[str, Any]:
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    found: dict[str, Any] = {"items": int(np.isfinite(differences).sum()), "wins": wins, "losses": losses}
    if wins + losses:
        test = stats.binomtest(wins, wins + losses)
        low, high = test.proportion_ci(CONFIDENCE, method="wilson")
        found |= {"win_share": wins / (wins + losses), "win_interval": (float(low), float(high))}
    return found
