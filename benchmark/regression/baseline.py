"""Saved baselines: the records of a suite, kept beside the code, and checked against what the code gives now."""

from __future__ import annotations

import datetime
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adlbench.benchmark.config import nearest
from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import write_json
from adlbench.benchmark.regression.accuracy import MIN_SEEDS, one_sided_ends
from adlbench.benchmark.regression.results import AccuracyFinding, CellResult, compare_results, read_result

SCHEMA_VERSION = 1
FILES = ("record.json", "items.npz")
STORED_EFFECT = 0.10  # a stored time says nothing about less: other load, other clocks, another day


@dataclass(frozen=True)
class Baseline:
    name: str
    suite: str | None
    overrides: tuple[str, ...]
    code: dict[str, Any]  # version, git commit, dirty flag
    created: str
    results: tuple[CellResult, ...]


def names(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/baseline.json"))


def save(
    name: str,
    folder: Path,
    suite: str | None,
    overrides: Sequence[str],
    cells: Sequence[CellSpec],
    records: Path,
    code: dict[str, Any],
) -> Path:
    """Copy the cells' records below ``folder / name``. Raises AdlbenchError, and leaves nothing, where a verdict could never
    follow: a cell that is not done, fewer than five seeds."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise AdlbenchError(f"baseline {name!r}: letters, digits, dot, dash and underscore only")
    seeds = {cell.seed for cell in cells}
    if len(seeds) < MIN_SEEDS:
        raise AdlbenchError(
            f"{len(seeds)} seeds: a verdict on accuracy needs {MIN_SEEDS}; add seed='range(0,{MIN_SEEDS})'"
        )
    sources = [cell.folder(records) for cell in cells]
    for cell, source in zip(cells, sources):
        if not (source / "record.json").exists():
            raise AdlbenchError(f"{cell.name}: no record below {records}; run the suite first, without --records")
        result = read_result(source)
        if result.status != "done":
            raise AdlbenchError(f"{cell.name}: {result.status} ({result.reason}); a baseline holds finished cells only")
    target, draft = folder / name, folder / f".{name}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    for cell, source in zip(cells, sources):
        (draft / "records" / cell.name).mkdir(parents=True)
        for file in FILES:
            if (source / file).exists():
                shutil.copyfile(source / file, draft / "records" / cell.name / file)
    write_json(
        draft / "baseline.json",
        {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "suite": suite,
            "overrides": list(overrides),
            "code": code,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return target


def load(name: str, folder: Path) -> Baseline:
    path = folder / name / "baseline.json"
    if not path.is_file() or path.parent.parent != folder:
        known = names(folder)
        remedy = nearest(name, known) if known else f"; save one with: adlbench baseline save {name} --suite gate"
        raise AdlbenchError(f"there is no baseline {name!r} in {folder}{remedy}")
    try:
        node = json.loads(path.read_text())
        if node["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {node['schema_version']}, and this version reads {SCHEMA_VERSION}")
        results = tuple(read_result(record.parent) for record in sorted(path.parent.glob("records/**/record.json")))
        if not results:
            raise ValueError("it holds no records")
        return Baseline(name, node["suite"], tuple(node["overrides"]), node["code"], node["created"], results)
    except (ValueError, KeyError, TypeError) as error:
        raise AdlbenchError(f"{path}: not a baseline ({error}); save it again") from error


def check(baseline: Baseline, head: Sequence[CellResult], *, speed: bool = False) -> list[AccuracyFinding]:
    """Accuracy verdicts of ``head`` against the baseline, and with ``speed`` also one on stored times for each cell."""
    findings = compare_results(baseline.results, head)
    if speed:
        findings += _stored_speed(baseline.results, head)
    return findings


def _stored_speed(base: Sequence[CellResult], head: Sequence[CellResult]) -> list[AccuracyFinding]:
    """CPU time of a training step, paired by seed: slower where the one-sided interval lies above ten percent."""
    findings = []
    for group in dict.fromkeys(result.group for result in base):
        times = [
            {r.seed: r.cpu_seconds_per_step for r in side if r.group == group and r.cpu_seconds_per_step}
            for side in (base, head)
        ]
        shared = sorted(times[0].keys() & times[1].keys())
        if len(shared) < MIN_SEEDS:
            reason = f"{len(shared)} shared seeds with a CPU time; {MIN_SEEDS} are needed"
            findings.append(AccuracyFinding(group, "inconclusive", reason, "stored speed"))
            continue
        ratios = [math.log(float(times[1][seed] or 1)) - math.log(float(times[0][seed] or 1)) for seed in shared]
        low, high = (math.expm1(end) for end in one_sided_ends(ratios))
        change = math.expm1(float(np.mean(ratios)))
        slower = low > STORED_EFFECT
        reason = f"{100 * change:+.1f} % CPU time a step ({100 * low:+.1f} … {100 * high:+.1f}) against the stored one"
        findings.append(AccuracyFinding(group, "slower" if slower else "pass", reason, "stored speed"))
    return findings
