"""The part of `adlbench compare` that sets methods against each other, from the records of a results folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from adlbench.benchmark.cli.common import make_console, print_json

if TYPE_CHECKING:
    from adlbench.benchmark.leaderboard.comparison import Duel


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", metavar="T", help="methods: in this task only")
    parser.add_argument("--dataset", metavar="D", help="methods: this dataset only")
    parser.add_argument("--fidelity", metavar="F", help="methods: this fidelity only")
    parser.add_argument("--all-metrics", action="store_true", help="methods: not the primary metric alone")
    parser.add_argument("--pictures", metavar="DIR", help="methods: draw the items that differ most")
    parser.add_argument("--results-dir", default="results", metavar="DIR", help="methods: default results")


def run(mine: str, others: list[str], args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.leaderboard.comparison import compare_methods

    duels = compare_methods(
        Path(args.results_dir),
        mine,
        others,
        tasks=[args.task] if args.task else (),
        datasets=[args.dataset] if args.dataset else (),
        fidelity=args.fidelity,
        all_metrics=args.all_metrics,
    )
    files = []
    if args.pictures:
        from adlbench.benchmark.leaderboard.comparison_pictures import write_pictures

        files = [str(path) for path in write_pictures(duels, Path(args.pictures))]
    if args.json:
        print_json({"duels": [duel.to_dict() for duel in duels], "files": files})
        return 0
    show(duels)
    for path in files:
        print(path)
    return 0


def show(duels: list[Duel]) -> None:
    """A table with a line for each duel."""
    from rich.table import Table

    from adlbench.benchmark.leaderboard.tables import number

    table = Table(title=f"{duels[0].mine} against {', '.join(sorted({duel.other for duel in duels}))}")
    for heading in ("task", "dataset", "fidelity", "metric", "against"):
        table.add_column(heading)
    for heading in (duels[0].mine, "other", "difference", "seeds", "items won", "share of wins"):
        table.add_column(heading, justify="right")
    table.add_column("so it is")
    for duel in duels:
        dataset = duel.dataset if duel.instance == "all" else f"{duel.dataset}.{duel.instance}"
        sign = "+" if duel.difference >= 0 else ""
        interval = "" if duel.interval is None else f" ± {number(duel.interval)}"
        share = "-"
        if duel.win_share is not None and duel.win_interval is not None:
            share = f"{duel.win_share:.0%} ({duel.win_interval[0]:.0%}-{duel.win_interval[1]:.0%})"
        table.add_row(
            *(duel.task, dataset, duel.fidelity, f"{duel.metric} {duel.unit}".rstrip(), duel.other),
            *(number(duel.mean_mine), number(duel.mean_other), f"{sign}{number(duel.difference)}{interval}"),
            *(str(len(duel.seeds)), f"{duel.wins}:{duel.losses} of {duel.items}" if duel.items else "-", share),
            duel.verdict,
        )
    console = make_console()
    console.print(table)
    console.print(
        "Differences are positive where the first is better; ± is the 95 % t-interval over shared seeds, without which "
        "nothing is shown."
    )
