"""Pack the records of a results folder into one archive with hashes.

adlbench export-records march.zip --results-dir results
adlbench import march.zip --results-dir results      on another machine
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", metavar="ARCHIVE.zip")
    parser.add_argument("--results-dir", default="results", metavar="DIR", help="default: results")
    parser.add_argument(
        "--without-checkpoints", action="store_true", help="smaller, but cells cannot be evaluated again"
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.exchange import export_records

    archive = Path(args.archive)
    count = export_records(Path(args.results_dir), archive, checkpoints=not args.without_checkpoints)
    size = archive.stat().st_size
    if args.json:
        print_json({"archive": str(archive), "cells": count, "bytes": size})
    else:
        print(f"{count} cells in {archive}, {size / 1e6:.1f} MB")
    return 0
