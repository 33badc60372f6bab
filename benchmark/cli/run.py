"""Run cells, record them in MLflow and print the leaderboards.

    adlbench run suite=demo
    adlbench run task=classification method=vit,cnn dataset=digits seed=0,1,2 fidelity=short

The same command again continues where it was. Results go to results/ (results_dir=PATH moves all of it).
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import add_overrides, duration, make_console, print_json


def configure(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    parser.add_argument("--retry", choices=("failed", "timeout", "all"), help="run again what ended so")


def run(args: argparse.Namespace) -> int:
    import signal
    import time
    from pathlib import Path

    from adlbench.benchmark.cli.live import LiveTable
    from adlbench.benchmark.config import Catalog, parse_request
    from adlbench.benchmark.execution.base import make_executor
    from adlbench.benchmark.leaderboard.board import boards
    from adlbench.benchmark.leaderboard.export import write_boards
    from adlbench.benchmark.leaderboard.frame import cell_frame
    from adlbench.benchmark.leaderboard.tables import print_boards
    from adlbench.benchmark.plan import estimate_seconds
    from adlbench.benchmark.plan import plan as make_plan
    from adlbench.benchmark.records import read_record
    from adlbench.benchmark.runner import History, run_matrix, select
    from adlbench.benchmark.tracking import ui_command

    start = time.monotonic()
    # A job scheduler's TERM, and an INT that a background shell had ignored, end the run as Ctrl-C does: with checkpoints.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    request = parse_request(args.overrides)
    catalog = Catalog(plugins=request.plugins)
    plan = make_plan(request, catalog)
    results_dir = Path(request.results_dir)
    selection, history = select(plan, results_dir, args.retry), History(results_dir)
    console = make_console(to_stderr=args.json)
    for line in dict.fromkeys(
        f"skipped {s.dataset}: {s.reason}" for s in plan.skipped if s.reason.startswith("missing data")
    ):
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if not plan.cells:
        from adlbench.benchmark.api import AdlbenchError

        raise AdlbenchError("nothing to run: no pair fits; `adlbench plan` with the same overrides gives the reasons")
    executor = make_executor(catalog.spec("executor", request.executor), request.slots)

    def estimate(cell):  # type: ignore[no-untyped-def]
        return estimate_seconds(cell, history)

    with LiveTable(console, selection, estimate) as table:
        counts = run_matrix(selection, results_dir, executor, table.on_event, plan.title, estimate)

    keys = {cell.key for cell in plan.cells}
    frame = cell_frame(results_dir)
    found = boards(frame[frame["cell_key"].isin(keys)])
    everything = write_boards(boards(frame), results_dir / "leaderboard")
    records = [read_record(cell.folder(results_dir)) for cell in plan.cells]
    failed = [record for record in records if record.status != "done"]
    if args.json:
        print_json(
            {
                "ran": counts,
                "cached": len(selection.cached),
                "skipped": [vars(skip) for skip in plan.skipped],
                "failed": [{"name": r.name, "status": r.status, "reason": r.reason} for r in failed],
                "boards": [board.to_dict() for board in found],
            }
        )
        return 1 if failed else 0
    print_boards(found, console)
    for record in failed:
        console.print(f"{record.status}: {record.name}: {record.reason}", style="red", markup=False, highlight=False)
    console.print(
        f"{sum(counts.values())} cells run, {len(selection.cached)} cached, {len(failed)} not done, "
        f"in {duration(time.monotonic() - start)}",
        highlight=False,
    )
    console.print(f"written: {', '.join(map(str, everything))}", highlight=False, soft_wrap=True)
    console.print(f"browse: {ui_command(results_dir)}", highlight=False, soft_wrap=True)
    return 1 if failed else 0
