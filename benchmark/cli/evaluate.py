"""Recompute a finished cell's metrics from its checkpoint and say whether they differ.

RECORD is the folder of a cell below results/runs. The method is restored without its training data.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", metavar="RECORD", help="folder of a finished cell")
    parser.add_argument(
        "--plugins", nargs="+", default=[], metavar="PACKAGE", help="that the cell may take classes from"
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    import torch

    from adlbench.benchmark.cell import reevaluate
    from adlbench.benchmark.config import allow
    from adlbench.benchmark.plugins import installed_packages
    from adlbench.benchmark.records import read_record

    folder = Path(args.record)
    folder = folder.parent if folder.name == "record.json" else folder
    threads = read_record(folder).environment.get("threads")
    if threads:
        torch.set_num_threads(int(threads))  # sums of another order would differ in the last bit
    allow([*installed_packages(), *args.plugins])
    result = reevaluate(folder)
    if args.json:
        print_json({"recorded": result.recorded, "recomputed": result.recomputed, "differing": result.differing})
    else:
        for name, value in sorted(result.recomputed.items()):
            recorded = result.recorded.get(name)
            same = "equal" if name not in result.differing else f"DIFFERS from the record's {recorded!r}"
            print(f"{name:<24} {value!r:<24} {same}")
    return 1 if result.differing else 0
