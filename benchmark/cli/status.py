"""Show how far a running matrix is, from another terminal.

Reads what the runner writes into the results folder about once a second; also after its end.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import make_console, print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results-dir", default="results", metavar="DIR", help="default: results")
    parser.add_argument("--follow", action="store_true", help="look again every second until the run ends")


def run(args: argparse.Namespace) -> int:
    import time
    from dataclasses import asdict
    from pathlib import Path

    from adlbench.benchmark.cli.live import render, summary
    from adlbench.benchmark.errors import AdlbenchError
    from adlbench.benchmark.progress import read_state
    from adlbench.benchmark.runner import holder, is_held

    results_dir = Path(args.results_dir)
    console = make_console()
    while True:
        state, held = read_state(results_dir), is_held(results_dir)
        if state is None:
            raise AdlbenchError(f"{results_dir}: no run has left a status there; name its folder with --results-dir")
        if args.json:
            print_json({"running": held, "holder": holder(results_dir), **asdict(state)})
        elif held:
            console.print(f"{state.title} (process {holder(results_dir).get('pid')})", markup=False, highlight=False)
            console.print(render(state))
        else:
            state.slots.clear()
            how = "ended" if state.ended else "was cut off; the same command continues it"
            console.print(f"{state.title}: {how}: {summary(state)}", markup=False, highlight=False, soft_wrap=True)
        for name, status, reason in [] if args.json else state.failed:
            console.print(f"{status}: {name}: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
        if not (args.follow and held):
            return 0
        time.sleep(1.0)
