"""Print the leaderboards of everything that has been run, and write them as CSV, Markdown and JSON.

Cells of different protocol, fidelity, hardware, precision or data never share a table.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import make_console, print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "filters",
        nargs="*",
        metavar="KEY=VALUE",
        help="keep what matches: task, dataset, method, fidelity, hardware, protocol, seed; results_dir=PATH",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for leaderboard.csv, .md and .json (default: results/leaderboard)"
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.api import AdlbenchError
    from adlbench.benchmark.leaderboard.board import boards
    from adlbench.benchmark.leaderboard.frame import AXES, cell_frame
    from adlbench.benchmark.leaderboard.tables import print_boards, write_boards

    results_dir, wanted = Path("results"), {}
    for text in args.filters:
        key, _, value = text.partition("=")
        if key == "results_dir" and value:
            results_dir = Path(value)
        elif key in AXES and value:
            wanted[key] = value.split(",")
        else:
            raise AdlbenchError(f"{text!r}: not a filter; use KEY=VALUE with {', '.join(AXES)} or results_dir")
    frame = cell_frame(results_dir)
    for key, values in wanted.items():
        frame = frame[frame[key].astype(str).isin(values)]
    found = boards(frame)
    if not found:
        raise AdlbenchError("no cell matches; `adlbench leaderboard` without filters shows what there is")
    out = Path(args.out) if args.out else results_dir / "leaderboard"
    paths = write_boards(found, out)
    if args.json:
        print_json({"boards": [board.to_dict() for board in found]})
    else:
        print_boards(found, make_console())
        print(f"written: {', '.join(map(str, paths))}")
    return 0
