"""Show one cell: its status, numbers, curve, log and where its pictures are.

CELL is a folder below results/runs, the beginning of a key, or a part of a name that only one cell has.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from adlbench.benchmark.cli.common import duration, make_console, print_json

if TYPE_CHECKING:
    from adlbench.benchmark.records import Record

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cell", metavar="CELL")
    parser.add_argument("--results-dir", default="results", metavar="DIR", help="default: results")
    parser.add_argument("--lines", type=int, default=20, help="of the log; default: 20")


def run(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from adlbench.benchmark.records import read_record

    folder = find(args.cell, Path(args.results_dir))
    record = read_record(folder) if (folder / "record.json").exists() else None
    curve = json.loads((folder / "curve.json").read_text()) if (folder / "curve.json").exists() else []
    pictures = [str(path) for path in sorted((folder / "images").glob("*.png"))]
    log = _tail(folder / "log.txt", args.lines)
    if args.json:
        details = asdict(record) if record else None
        print_json({"folder": str(folder), "record": details, "curve": curve, "pictures": pictures, "log": log})
        return 0
    console = make_console()
    facts = _facts(record) if record else [("status", "no record: it runs now, or its process was killed")]
    for name, text in [("folder", str(folder)), *facts, *_curves(curve), *(("picture", path) for path in pictures)]:
        console.print(f"{name:<14} {text}", markup=False, highlight=False, soft_wrap=True)
    if log:
        console.print("log.txt", markup=False)
        for line in log:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    return 0


def find(cell: str, results_dir: Path) -> Path:
    """The folder of a cell. Raises AdlbenchError where none, or more than one, has such a name."""
    from adlbench.benchmark.errors import AdlbenchError

    if (Path(cell) / "cell.json").exists():
        return Path(cell)
    folders = sorted(path.parent for path in (results_dir / "runs").glob("**/cell.json"))
    found = [folder for folder in folders if folder.name.rpartition("-")[2].startswith(cell)]
    found = found or [folder for folder in folders if cell in folder.relative_to(results_dir / "runs").as_posix()]
    if len(found) == 1:
        return found[0]
    names = ", ".join(folder.name for folder in found[:5]) + (", ..." if len(found) > 5 else "")
    hint = f"{len(found)} cells have it in their names ({names}); give more of it" if found else "there is no such cell"
    raise AdlbenchError(f"{cell}: {hint}; `adlbench plan` lists names and keys")


def _facts(record: Record) -> list[tuple[str, str]]:
    facts = [("name", record.name), ("status", f"{record.status}{': ' if record.reason else ''}{record.reason}")]
    facts += [(name, f"{value:.6g}") for name, value in record.metrics.items()]
    facts += [(name, f"n/a: {why}") for name, why in record.absent.items()]
    accounts = ", ".join(f"{name} {duration(value)}" for name, value in record.accounts.items() if value >= 0.5)
    facts.append(
        ("time", f"{duration(record.wall_seconds)}{f' ({accounts})' if accounts else ''}, from {record.started}")
    )
    facts.append(("steps", f"{record.steps}, {record.samples} {record.throughput_unit}, {record.num_resumes} resumes"))
    if record.throughput is not None:
        facts.append(("throughput", f"{record.throughput:.4g} {record.throughput_unit}/s on {record.hardware}"))
    commit = record.code.get("commit") or "no commit"
    facts.append(("code", f"{commit[:12]}{' and changes' if record.code.get('dirty') else ''}"))
    facts.append(("data", record.data_fingerprint[:12]))
    return facts


def _curves(curve: list[dict[str, float]]) -> list[tuple[str, str]]:
    names = [name for name in (curve[-1] if curve else {}) if name not in ("step", "seconds")]
    return [(name, sparkline([point[name] for point in curve if name in point])) for name in names]


def sparkline(values: list[float]) -> str:
    """``3.1 ▇▅▃▁ 0.2``: first value, shape, last value."""
    step = max(1, len(values) // WIDTH)
    shown = [value for value in values[::step] if math.isfinite(value)]
    low, high = (min(shown), max(shown)) if shown else (0.0, 0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return f"{values[0]:.4g} {''.join(BARS[round((value - low) * scale)] for value in shown)} {values[-1]:.4g}"


def _tail(path: Path, lines: int) -> list[str]:
    if not path.exists() or lines < 1:
        return []
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 400 * lines))
        return file.read().decode(errors="replace").splitlines()[-lines:]
