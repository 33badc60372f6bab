"""Write the leaderboards, pictures and runs as one HTML page that works offline.

    adlbench report
    adlbench report task=novel_view_synthesis --out site --embed

Pictures lie in report_files/ beside the page; --embed puts them into it. Where methods ran at several commits, tables show
their course; what `adlbench compare A B --suite gate` has left in RESULTS/gate is shown before and after.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json
from adlbench.benchmark.cli.leaderboard import add_filters, filtered_frame


def configure(parser: argparse.ArgumentParser) -> None:
    add_filters(parser)
    parser.add_argument("--out", metavar="DIR", help="folder for report.html (default: results/report)")
    parser.add_argument("--embed", action="store_true", help="put pictures into the page: one file, but a large one")
    parser.add_argument(
        "--comparison",
        nargs="+",
        metavar="FILE",
        help="gate.json of comparisons of two commits (default: RESULTS/gate/gate.json where it is)",
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.leaderboard.frame import newest

    runs, results_dir = filtered_frame(args.filters, latest=False)
    frame = newest(runs) if not runs.empty else runs
    if frame.empty:
        from adlbench.benchmark.errors import AdlbenchError

        raise AdlbenchError("no cell matches; `adlbench leaderboard` without filters shows what there is")
    from adlbench.benchmark.leaderboard.report.page import write_report

    out = Path(args.out) if args.out else results_dir / "report"
    left = results_dir / "gate" / "gate.json"
    comparisons = [Path(text) for text in args.comparison] if args.comparison else [left] if left.exists() else []
    made = write_report(frame, results_dir, out, embed=args.embed, runs=runs, comparisons=comparisons)
    if args.json:
        print_json(vars(made))
    else:
        print(f"{made.boards} tables, {made.runs} runs; page {made.page_bytes / 1e6:.2f} MB, "
              f"pictures {made.picture_bytes / 1e6:.2f} MB")  # fmt: skip
        print(f"written: {made.path}")
    return 0
