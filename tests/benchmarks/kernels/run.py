"""Every kernel beside its peers, in one table.

    make bench-kernels                                         all of them, to results/reference/kernels-cpu.md
    python tests/benchmarks/kernels/run.py --only sparse       the kernels whose name contains "sparse"
    python tests/benchmarks/kernels/run.py --json rows.json

Peers that are not installed are shown as absent; none of them is needed to use the kernels.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import platform
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from measure import CLOCKS, Kernel, Row, measure  # noqa: E402

PACKAGES = (
    "torch", "scipy", "MinkowskiEngine", "spconv", "torch-cluster", "ocnn", "potpourri3d", "robust-laplacian",
    "gsplat", "nerfacc", "nerfstudio", "transformers", "point-cloud-utils", "POT", "scikit-image",
)  # fmt: skip


def kernels() -> list[Kernel]:
    """In the order of the files' names."""
    modules = sorted(path.stem for path in HERE.glob("bench_*.py"))
    return [kernel for module in modules for kernel in importlib.import_module(module).KERNELS]


def table(rows: list[Row]) -> str:
    lines = [
        "| kernel | size | own [ms] | peer | peer [ms] | ratio | wanted | own peak [MB] | peer peak [MB] | growth |",
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        has_peer = row.peer_ms is not None
        peer = f"{row.peer_ms:.1f}" if has_peer else "absent"
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        peak = f"{row.peer_peak_mb:.0f}" if row.peer_peak_mb is not None else ""
        growth = f"{row.growth:.2f}" if row.growth is not None else ""
        lines.append(
            f"| {row.kernel} | {row.size:,} {row.unit} | {row.own_ms:.1f} | {row.peer} | {peer} | {ratio} "
            f"| {row.wanted:g} | {row.own_peak_mb:.0f} | {peak} | {growth} |"
        )
    return "\n".join(lines)


def versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def report(rows: list[Row], threads: int, clock: str) -> str:
    machine = f"{processor()}, {threads} thread(s), {torch.backends.cpu.get_cpu_capability()}"
    return f"""# Kernels on the CPU, beside their peers

Made by `make bench-kernels`. Medians of the {clock} time of interleaved rounds in one process; ratio = peer's time / own
time, above 1 where ours is faster; peak = memory by which the process grew during the first call; growth = exponent of
the own time over the sizes. {machine}.
{versions()}.

{table(rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=6.0, help="per kernel and size, after three rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="cpu", help="wall needs an otherwise idle machine")
    parser.add_argument("--sizes", type=int, default=None, help="only the first so many sizes")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None, help="a Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # of the peers
    rows: list[Row] = []
    for kernel in kernels():
        if arguments.only.lower() in kernel.name.lower():
            chosen = replace(kernel, sizes=kernel.sizes[: arguments.sizes])
            mine = measure(chosen, arguments.rounds, arguments.seconds, arguments.clock)
            rows += mine
            print(table(mine), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([row.as_dict() for row in rows], indent=1))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report(rows, arguments.threads, arguments.clock))


if __name__ == "__main__":
    main()
