"""Show the cells that a run would do: what is cached, what is skipped and why, how long it may take.

Takes the same overrides as `adlbench run`.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import add_overrides, duration, make_console, print_json

MOST = 500  # rows of a table for people; `--json` gives all


def configure(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    parser.add_argument("--retry", choices=("failed", "timeout", "all"), help="as a run with this option would")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="only cells of this name or key")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from rich.markup import escape
    from rich.table import Table

    from adlbench.benchmark.cli.run import tell_changes
    from adlbench.benchmark.config import Catalog, parse_request
    from adlbench.benchmark.execution.base import make_executor
    from adlbench.benchmark.plan import plan as make_plan
    from adlbench.benchmark.records import Index
    from adlbench.benchmark.runner import select
    from adlbench.benchmark.schedule import History, estimated

    request = parse_request(args.overrides)
    plan = make_plan(request, Catalog(plugins=request.plugins))
    results_dir = Path(request.results_dir)
    index = Index(results_dir)
    selection, history = select(plan, results_dir, args.retry, args.only, index=index), History(index)
    states = {cell.key: summary.status for cell, summary in selection.cached}
    cells = [*(cell for cell, _ in selection.cached), *selection.run]
    slots = make_executor(plan.executor, request.slots).slots(plan.cells)
    seconds, text = estimated(selection.run, history, slots)
    if args.json:
        print_json(
            {
                "cells": [
                    {
                        "name": cell.name,
                        "key": cell.key,
                        "cached": states.get(cell.key),
                        "new_because_of": selection.changes.get(cell.key),
                        "estimated_seconds": history(cell),
                    }
                    for cell in cells
                ],
                "skipped": [vars(skip) for skip in plan.skipped],
                "slots": slots,
                "estimated_seconds": seconds,
            }
        )
        return 0
    console = make_console()

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    table = Table(title="Cells", title_justify="left")
    for column in ("cell", "key", "budget", "presets", "estimate", "state"):
        table.add_column(column, overflow="fold")
    for cell in cells[:MOST]:
        budget = ", ".join(f"{value:g} {name}" for name, value in vars(cell.budget).items() if value is not None)
        presets = "; ".join(preset.partition(": ")[2] for preset in cell.applied_presets)
        state = states.get(cell.key) or ("to run again" if cell.key in selection.superseded else "to run")
        table.add_row(*map(escape, (cell.name, cell.key, budget, presets, duration(history(cell)), state)))
    console.print(table)
    if len(cells) > MOST:
        say(f"and {len(cells) - MOST} more; choose with --only, or see all with --json")
    if plan.skipped:
        table = Table(title="Skipped", title_justify="left")
        for column in ("task", "dataset", "method", "reason"):
            table.add_column(column, overflow="fold")
        for skip in plan.skipped[:MOST]:
            dataset = skip.dataset if skip.instance == "all" else f"{skip.dataset}.{skip.instance}"
            table.add_row(*map(escape, (skip.task, dataset, skip.method, skip.reason)))
        console.print(table)
    tell_changes(selection.changes, {cell.key: cell.name for cell in selection.run}, say)
    say(f"{len(cells)} cells, {len(selection.cached)} cached, {len(selection.run)} to run on {slots} slots, {text}")
    return 0
