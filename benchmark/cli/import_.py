"""Verify an archive of records and add its cells to a results folder.

Every file is checked against the archive's sha256 sums before anything is added. Conflicts are as in `adlbench merge`.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli import merge


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", metavar="ARCHIVE.zip")
    parser.add_argument("--results-dir", default="results", metavar="DIR", help="default: results")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.exchange import import_records

    return merge.show(import_records(Path(args.archive), Path(args.results_dir)), args.results_dir, args.json)
