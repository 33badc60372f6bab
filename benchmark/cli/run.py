"""Run cells, record them in MLflow and print the leaderboards.

    adlbench run suite=demo
    adlbench run task=classification method=vit,cnn dataset=digits seed=0,1,2 fidelity=short

The same command again continues where it was. Results go to results/ (results_dir=PATH moves all of it).
Ctrl-C ends the run with checkpoints, a second one at once. Another terminal sees it with `adlbench status`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adlbench.benchmark.cli.common import add_overrides, duration, make_console, print_json
from adlbench.benchmark.durations import parse_duration

if TYPE_CHECKING:
    from adlbench.benchmark.cli.live import LiveTable
    from adlbench.benchmark.execution.base import Stop
    from adlbench.benchmark.plan import CellSpec, Plan, Skip
    from adlbench.benchmark.records import Record, Summary

INTERRUPTED = "interrupted"
SHOWN = 20  # lines of one kind; of more, only the number is told


def configure(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    parser.add_argument("--retry", choices=("failed", "timeout", "all"), help="run again what ended so")
    parser.add_argument("--keep", action="store_true", help="keep records although their code or data changed since")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="only cells of this name (part, * and ?) or key"
    )
    parser.add_argument("--fail-fast", action="store_true", help="end the run at the first cell that fails")
    parser.add_argument("--budget", metavar="TIME", help="run what fits into this time: 90s, 30min, 2h")


def run(args: argparse.Namespace) -> int:
    import os
    import time
    from dataclasses import replace
    from pathlib import Path

    from adlbench.benchmark.cli.live import LiveTable
    from adlbench.benchmark.config import Catalog, parse_request
    from adlbench.benchmark.errors import AdlbenchError
    from adlbench.benchmark.execution.base import Stop, make_executor
    from adlbench.benchmark.plan import plan as make_plan
    from adlbench.benchmark.progress import Progress
    from adlbench.benchmark.records import Index
    from adlbench.benchmark.runner import exclusive, run_matrix, select
    from adlbench.benchmark.schedule import History, estimated, fit

    request = parse_request(args.overrides)
    budget = parse_duration(args.budget) if args.budget else None
    plan = make_plan(request, Catalog(plugins=request.plugins))
    results_dir = Path(request.results_dir)
    console = make_console(to_stderr=args.json)

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    broken = _tell_skipped(plan, say)
    if not plan.cells:
        raise AdlbenchError("nothing to run: no pair fits; `adlbench plan` with the same overrides gives the reasons")
    executor = make_executor(plan.executor, request.slots)
    slots, stop = executor.slots(plan.cells), Stop()
    with exclusive(results_dir):
        index = Index(results_dir)
        history = History(index)
        selection = select(plan, results_dir, args.retry, args.only, args.keep, index)
        if args.only and not (selection.run or selection.cached):
            raise AdlbenchError(f"--only {' '.join(args.only)}: no cell of the plan has such a name or key")
        tell_changes(selection.changes, {cell.key: cell.name for cell in selection.run}, say)
        late: list[CellSpec] = []
        if budget is not None:
            chosen, late = fit(selection.run, history, slots, budget)
            selection = replace(selection, run=tuple(chosen))
        seconds, text = estimated(selection.run, history, slots)
        say(f"{len(selection.run)} cells on {slots} slots, {text}; {len(selection.cached)} are there already")
        progress = Progress(results_dir, plan.title, selection.run, len(selection.cached), slots, history)
        began = time.monotonic()
        with LiveTable(console, progress) as table, _signals(stop, table):
            outcome = run_matrix(
                selection,
                results_dir,
                executor,
                table.on_event,
                plan.title,
                history,
                stop=stop,
                fail_fast=args.fail_fast,
                deadline=began + budget if budget is not None else None,
                index=index,
            )
    took = time.monotonic() - began
    left = [*late, *outcome.left]
    _listed("left for want of time" if budget else "not run", [cell.name for cell in left], say)
    if stop.reason and stop.reason != INTERRUPTED:
        say(f"ended early: {stop.reason}", "yellow")
    if stop.reason == INTERRUPTED:
        if outcome.undelivered:
            say(outcome.undelivered, "yellow")
        if stop.level > 1:  # the writer may hang in a call to a server that does not answer
            say("interrupted; the same command continues")
            console.file.flush()
            os._exit(130)
        raise KeyboardInterrupt
    ended: list[Record | Summary] = [*outcome.records.values(), *(summary for _, summary in selection.cached)]
    failed = [record for record in ended if record.status not in ("done", "interrupted")]
    if selection.run and seconds is not None and not left:
        say(f"estimated {duration(seconds)}, took {duration(took)} ({took / max(seconds, 1e-9):.2f} of it)")
    if args.json:
        print_json(
            {
                "ran": outcome.counts,
                "cached": len(selection.cached),
                "left": [cell.name for cell in left],
                "estimated_seconds": seconds,
                "seconds": took,
                "skipped": [vars(skip) for skip in plan.skipped],
                "failed": [{"name": r.name, "status": r.status, "reason": r.reason} for r in failed],
                "boards": [board.to_dict() for board in _boards(plan, results_dir)[0]],
            }
        )
    else:
        from adlbench.benchmark.leaderboard.tables import print_boards
        from adlbench.benchmark.tracking import ui_command

        found, written = _boards(plan, results_dir)
        print_boards(found, console)
        for record in failed:
            say(f"{record.status}: {record.name}: {record.reason}", "red")
        say(
            f"{len(outcome.records)} cells run, {len(selection.cached)} cached, {len(failed)} not done, in {duration(took)}"
        )
        say(f"written: {', '.join(map(str, written))}")
        say(f"browse: {ui_command(results_dir)}")
    if outcome.undelivered:
        raise AdlbenchError(outcome.undelivered)
    return 1 if failed or broken or (left and not budget) else 0


def _boards(plan: Plan, results_dir):  # type: ignore[no-untyped-def]
    """The boards of the plan's cells, and the files that hold those of everything in the results folder."""
    from adlbench.benchmark.leaderboard.board import boards
    from adlbench.benchmark.leaderboard.export import write_boards
    from adlbench.benchmark.leaderboard.frame import cell_frame

    frame = cell_frame(results_dir)
    written = write_boards(boards(frame), results_dir / "leaderboard")
    return boards(frame[frame["cell_key"].isin({cell.key for cell in plan.cells})]), written


def _tell_skipped(plan: Plan, say: Callable[..., None]) -> list[Skip]:
    for line in dict.fromkeys(
        f"skipped {skip.dataset}: {skip.reason}" for skip in plan.skipped if skip.reason.startswith("missing data")
    ):
        say(line, "yellow")
    broken = [skip for skip in plan.skipped if skip.broken]
    for line in dict.fromkeys(f"failed: {skip.task}/{skip.dataset}/{skip.method}: {skip.reason}" for skip in broken):
        say(line, "red")
    return broken


def tell_changes(changes: Mapping[str, str], names: dict[str, str], say: Callable[..., None]) -> None:
    """One line for each reason, with the cells that it makes new."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in changes.items():
        by_reason.setdefault(reason, []).append(names[key])
    for reason, cells in by_reason.items():
        more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
        say(f"new because of {reason}: {cells[0]}{more}", "yellow")


def _listed(title: str, names: list[str], say: Callable[..., None]) -> None:
    for name in names[:SHOWN]:
        say(f"{title}: {name}", "yellow")
    if len(names) > SHOWN:
        say(f"{title}: {len(names) - SHOWN} more", "yellow")


@contextmanager
def _signals(stop: Stop, table: LiveTable) -> Iterator[None]:
    """INT, and a job scheduler's TERM, end the run with checkpoints; a second one ends it at once."""
    import signal

    def request(number: int, frame: object) -> None:
        stop.request(INTERRUPTED)
        table.stopping = (
            "running cells write a checkpoint; Ctrl-C again ends them at once" if stop.level == 1 else "at once"
        )

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number] or signal.default_int_handler)
