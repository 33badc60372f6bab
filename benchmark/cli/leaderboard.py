"""Print the leaderboards of everything that has been run, and write them as CSV, Markdown, LaTeX and JSON.

    adlbench leaderboard task=classification fidelity=short
    adlbench leaderboard --against reference      paper number, reproduced number, gap and verdict

Cells of different protocol, fidelity, hardware, precision or data never share a table.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from adlbench.benchmark.cli.common import make_console, print_json

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "filters",
        nargs="*",
        metavar="KEY=VALUE",
        help="keep what matches: task, dataset, method, fidelity, hardware, protocol, seed; results_dir=PATH",
    )


def configure(parser: argparse.ArgumentParser) -> None:
    add_filters(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for leaderboard.csv, .md, .tex and .json (default: results/leaderboard)"
    )
    parser.add_argument("--against", choices=("reference",), help="compare with the numbers that papers report")


def filtered_frame(filters: list[str], *, latest: bool = True) -> tuple[pd.DataFrame, Path]:
    """The cells that match, or all of their runs, and the results folder. Raises AdlbenchError for what is no filter."""
    from pathlib import Path

    from adlbench.benchmark.leaderboard.frame import AXES, cell_frame

    results_dir, wanted = Path("results"), {}
    for text in filters:
        key, _, value = text.partition("=")
        if key == "results_dir" and value:
            results_dir = Path(value)
        elif key in AXES and value:
            wanted[key] = value.split(",")
        else:
            from adlbench.benchmark.errors import AdlbenchError

            raise AdlbenchError(f"{text!r}: not a filter; use KEY=VALUE with {', '.join(AXES)} or results_dir")
    frame = cell_frame(results_dir, latest=latest)
    for key, values in wanted.items():
        frame = frame[frame[key].astype(str).isin(values)]
    return frame.reset_index(drop=True), results_dir


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    frame, results_dir = filtered_frame(args.filters)
    if args.against:
        return _against_references(args, frame)

    from adlbench.benchmark.leaderboard.board import boards
    from adlbench.benchmark.leaderboard.export import write_boards
    from adlbench.benchmark.leaderboard.tables import print_boards

    found = boards(frame)
    if not found:
        from adlbench.benchmark.errors import AdlbenchError

        raise AdlbenchError("no cell matches; `adlbench leaderboard` without filters shows what there is")
    paths = write_boards(found, Path(args.out) if args.out else results_dir / "leaderboard")
    if args.json:
        print_json({"boards": [board.to_dict() for board in found]})
    else:
        print_boards(found, make_console())
        print(f"written: {', '.join(map(str, paths))}")
    return 0


def _against_references(args: argparse.Namespace, frame: pd.DataFrame) -> int:
    from adlbench.benchmark.config import Catalog
    from adlbench.benchmark.leaderboard.references import compare_with_references, print_comparisons

    catalog = Catalog()
    wanted = [text.partition("=")[2].split(",") for text in args.filters if text.startswith("task=")]
    names = [name for name in catalog.names("task") if not wanted or name in wanted[-1]]
    found = compare_with_references([(name, catalog.spec("task", name)) for name in names], frame)
    if args.json:
        print_json({"comparisons": [line.to_dict() for line in found]})
    else:
        print_comparisons(found, make_console())
    return 0
