"""Save the records of a suite as a baseline, or list the saved ones.

adlbench baseline save NAME --suite gate     runs the suite and keeps its records
adlbench baseline list
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json

FOLDER = "results/baselines"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("save", "list"))
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDES", help="e.g. task=classification method=cnn seed='range(0,5)'"
    )
    parser.add_argument("--suite", help="what is run, e.g. gate")
    parser.add_argument(
        "--records", metavar="DIR", help="take the records below this results folder instead of running"
    )
    parser.add_argument("--folder", metavar="DIR", default=FOLDER, help="of the baselines (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.environment import code_version
    from adlbench.benchmark.errors import AdlbenchError
    from adlbench.benchmark.regression import baseline

    folder = Path(args.folder)
    if args.action == "list":
        listed = baseline.names(folder)
        print_json(listed) if args.json else print("\n".join(listed) or f"no baselines in {folder}")
        return 0
    if args.name is None or "=" in args.name:
        raise AdlbenchError("a name is missing: adlbench baseline save NAME --suite gate")
    code = code_version()
    if code["dirty"]:
        raise AdlbenchError("uncommitted changes: a baseline belongs to a commit; commit or stash them")
    cells = plan_cells(args.suite, args.overrides)
    records = Path(args.records) if args.records else run_cells(args.suite, args.overrides, cells)
    target = baseline.save(args.name, folder, args.suite, args.overrides, cells, records, code)
    if args.json:
        print_json({"baseline": str(target), "cells": [cell.name for cell in cells]})
    else:
        print(f"{len(cells)} cells saved in {target}")
    return 0


def plan_cells(suite, overrides):  # type: ignore[no-untyped-def]
    """The cells that a suite and overrides mean. Raises AdlbenchError where there are none."""
    from adlbench.benchmark.config import Catalog, parse_request
    from adlbench.benchmark.errors import AdlbenchError
    from adlbench.benchmark.plan import plan

    request = parse_request([*([f"suite={suite}"] if suite else []), *overrides])
    cells = plan(request, Catalog(plugins=request.plugins)).cells
    if not cells:
        raise AdlbenchError("nothing to run: no pair fits; `adlbench plan` with the same overrides gives the reasons")
    return cells


def run_cells(suite, overrides, cells):  # type: ignore[no-untyped-def]
    """Run the cells afresh, in a results folder of their own, which is returned; a line for each that ends."""
    import shutil
    import sys
    from pathlib import Path

    from adlbench.benchmark.config import Catalog, parse_request
    from adlbench.benchmark.execution.base import Event, make_executor
    from adlbench.benchmark.plan import plan

    request = parse_request([*([f"suite={suite}"] if suite else []), *overrides])
    folder = Path("build/gate/records")
    shutil.rmtree(folder, ignore_errors=True)
    executor = make_executor(plan(request, Catalog(plugins=request.plugins)).executor, request.slots)

    def tell(event: Event) -> None:
        if event.kind == "finished" and event.record is not None:
            print(f"{event.record.status}: {event.cell.name}", file=sys.stderr, flush=True)

    executor.run(cells, folder, tell)
    return folder
