"""Deliver records to MLflow that have not arrived there, once each."""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results-dir", default="results", metavar="DIR", help="default: results")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.runner import exclusive
    from adlbench.benchmark.tracking import default_uri, redacted, sync

    results_dir = Path(args.results_dir)
    with exclusive(results_dir):  # a runner delivers its records itself
        delivered = sync(results_dir)
    uri = redacted(default_uri(results_dir))
    if args.json:
        print_json({"delivered": delivered, "uri": uri})
    else:
        print(f"{delivered} records delivered to {uri}")
    return 0
