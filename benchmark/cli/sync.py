"""Deliver records to MLflow that have not arrived there, once each."""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results-dir", default="results", metavar="DIR", help="default: results")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.tracking import default_uri, sync

    results_dir = Path(args.results_dir)
    delivered = sync(results_dir)
    if args.json:
        print_json({"delivered": delivered, "uri": default_uri(results_dir)})
    else:
        print(f"{delivered} records delivered to {default_uri(results_dir)}")
    return 0
