"""Draw a method's quality and throughput over commits, with the steps in them.

Each commit at which the method was run is a point; hardware classes, datasets and fidelities are never mixed. Steps are found
by a penalised piecewise-constant fit, as asv does. Speeds of other days are a trend, not a verdict: see `adlbench compare`.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument(
        "--quantity",
        nargs="+",
        default=[],
        metavar="Q",
        help="metrics to draw (default: the primary one and throughput)",
    )
    parser.add_argument("--results-dir", metavar="DIR", default="results", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.regression.history import history, lines

    found = history(Path(args.results_dir), args.method, args.quantity)
    if args.json:
        print_json([series.to_dict() for series in found])
    else:
        for series in found:
            print("\n".join(lines(series)))
    return 0
