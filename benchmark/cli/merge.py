"""Join the results folders of several machines.

    adlbench merge laptop/results cluster/results --into results

Ended cells are copied. A cell that both sides have with another content is shown as a conflict and nothing is
overwritten: look at both with `adlbench show`, and delete the folder of the one that is to go. Exit code 1 then.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from adlbench.benchmark.cli.common import print_json

if TYPE_CHECKING:
    from adlbench.benchmark.exchange import Exchange


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="DIR", help="results folders")
    parser.add_argument(
        "--into", default="results", metavar="DIR", help="the results folder to add to; default: results"
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.exchange import merge

    return show(merge([Path(source) for source in args.sources], Path(args.into)), args.into, args.json)


def show(found: Exchange, into: str, as_json: bool) -> int:
    """Print what became of the cells; 1 when there are conflicts."""
    if as_json:
        print_json({"into": into, **vars(found)})
    else:
        for cell, files in found.conflicts.items():
            print(f"CONFLICT {cell}: {', '.join(files)}")
        print(f"{len(found.copied)} cells copied, {len(found.same)} there already, {len(found.conflicts)} conflicts")
        if found.copied:
            print(f"deliver them to MLflow with: adlbench sync --results-dir {into}")
    return 1 if found.conflicts else 0
