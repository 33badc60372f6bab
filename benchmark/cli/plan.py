"""Show the cells that a run would do: what is cached, what is skipped and why, how long it may take.

Takes the same overrides as `adlbench run`.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import add_overrides, duration, make_console, print_json


def configure(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from rich.markup import escape
    from rich.table import Table

    from adlbench.benchmark.config import Catalog, parse_request
    from adlbench.benchmark.execution.base import make_executor
    from adlbench.benchmark.plan import estimate_seconds
    from adlbench.benchmark.plan import plan as make_plan
    from adlbench.benchmark.runner import History, select

    request = parse_request(args.overrides)
    catalog = Catalog(plugins=request.plugins)
    plan = make_plan(request, catalog)
    results_dir = Path(request.results_dir)
    selection, history = select(plan, results_dir), History(results_dir)
    cached = {cell.key: record.status for cell, record in selection.cached}
    estimates = {cell.key: estimate_seconds(cell, history) for cell in plan.cells}
    known = [seconds for cell in selection.run if (seconds := estimates[cell.key]) is not None]
    slots = make_executor(catalog.spec("executor", request.executor), request.slots).slots(plan.cells)  # type: ignore[attr-defined]
    total = sum(known) / slots if known else None
    if args.json:
        print_json(
            {
                "cells": [
                    {"name": c.name, "key": c.key, "cached": cached.get(c.key), "estimated_seconds": estimates[c.key]}
                    for c in plan.cells
                ],
                "skipped": [vars(skip) for skip in plan.skipped],
                "slots": slots,
                "estimated_seconds": total,
            }
        )
        return 0
    console = make_console()
    table = Table(title="Cells", title_justify="left")
    for column in ("cell", "key", "budget", "presets", "estimate", "state"):
        table.add_column(column, overflow="fold")
    for cell in plan.cells:
        budget = ", ".join(f"{value:g} {name}" for name, value in vars(cell.budget).items() if value is not None)
        state = cached.get(cell.key, "to run")
        presets = "; ".join(preset.partition(": ")[2] for preset in cell.applied_presets)
        table.add_row(*map(escape, (cell.name, cell.key, budget, presets, duration(estimates[cell.key]), state)))
    console.print(table)
    if plan.skipped:
        table = Table(title="Skipped", title_justify="left")
        for column in ("task", "dataset", "method", "reason"):
            table.add_column(column, overflow="fold")
        for skip in plan.skipped:
            dataset = skip.dataset if skip.instance == "all" else f"{skip.dataset}.{skip.instance}"
            table.add_row(*map(escape, (skip.task, dataset, skip.method, skip.reason)))
        console.print(table)
    unknown = len(selection.run) - len(known)
    console.print(
        f"{len(plan.cells)} cells, {len(selection.cached)} cached, {len(selection.run)} to run on {slots} slots, "
        f"about {duration(total)}" + (f" and {unknown} without an estimate" if unknown else ""),
        highlight=False,
    )
    return 0
