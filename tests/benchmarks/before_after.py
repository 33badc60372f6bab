"""Did a kernel or one of the engine's hot paths get slower since a commit? Both run here, in turn.

    make bench BEFORE=main
    python tests/benchmarks/before_after.py main --only "hash grid"

The commit is checked out into a work tree. Three processes stay: the commit, the commit again, and the present tree with
whatever is not committed. In every round each runs the case once, in random order, and `adlbench compare`'s rule judges the
CPU times on one thread. The benchmarks are those of the present tree, on both sides; a case that the commit cannot run is
said to be new. Exit code 1: something is slower; 3: something stayed open; else 0.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE / "kernels")]

EXIT = {"pass": 0, "new": 0, "slower": 1, "inconclusive": 3}


# ----------------------------------------------------------------------------------------------------------- one process
def cases(folder: Path) -> Mapping[str, Callable[[], Callable[[], object]]]:
    """What makes each function to be timed: kernels at their smallest size, and the hot paths.

    What an older tree lacks is left out.
    """

    def kernel(chosen: Any) -> Callable[[], Callable[[], object]]:
        return lambda: chosen.make(min(chosen.sizes))["own"]  # type: ignore[no-any-return]

    def hot_path(make: Callable[[Path], Callable[[], object]]) -> Callable[[], Callable[[], object]]:
        return lambda: make(Path(tempfile.mkdtemp(dir=folder)))

    found = {}
    for path in sorted((HERE / "kernels").glob("bench_*.py")):
        with contextlib.suppress(ImportError):
            for each in importlib.import_module(path.stem).KERNELS:
                found[f"{each.name}, {min(each.sizes):,} {each.unit}"] = kernel(each)
    with contextlib.suppress(ImportError):
        paths = importlib.import_module("hot_paths").HOT_PATHS
        found |= {name: hot_path(make) for name, (make, _) in paths.items()}
    return found


def serve(answers: IO[str]) -> None:
    """A line of JSON in, a line out: {"open": name} makes a case and warms it up, {"run": n} times n calls."""
    import torch

    torch.set_num_threads(1)
    run: Callable[[], object] = lambda: None  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        known = cases(Path(folder))
        for line in sys.stdin:
            request = json.loads(line)
            try:
                if "open" in request:
                    if request["open"] not in known:
                        raise LookupError("what it measures is not there")
                    run = known[request["open"]]()
                    for _ in range(2):
                        run()
                start = time.process_time()
                for _ in range(request.get("run", 1)):
                    run()
                answer: dict[str, Any] = {"seconds": time.process_time() - start}
            except Exception as error:  # told to the other side
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


# ----------------------------------------------------------------------------------------------------------- all of them
class Process:
    def __init__(self, tree: Path, environment: Mapping[str, str], python: str):
        paths = os.pathsep.join([str(tree / "src"), os.environ.get("PYTHONPATH", "")])
        given = {**os.environ, **environment, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [python, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=given, cwd=tree
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}  # type: ignore[no-any-return]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def processes(before: str, folder: Path) -> Iterator[list[Process]]:
    from adlbench.benchmark.regression.worktrees import checked_out

    with checked_out(ROOT, [before], folder) as (tree,), contextlib.ExitStack() as stack:
        present = {
            name: str(folder / "present" / name.lower()) for name in tree.environment
        }  # as many variables: they move the stack
        sides = [(tree.path, tree.environment), (tree.path, tree.environment), (ROOT, present)]
        started = [Process(path, environment, tree.python) for path, environment in sides]
        for each in started:
            stack.callback(each.close)
        yield started


def compare(name: str, sides: list[Process], seconds: float, rule: Any, rng: random.Random) -> dict[str, Any]:
    from adlbench.benchmark.regression import speed

    opened = [side.ask(open=name) for side in sides]
    if "error" in opened[2]:
        raise SystemExit(f"{name}: the present tree cannot run it: {opened[2]['error']}")
    if "error" in opened[0]:
        return {"case": name, "outcome": "new", "reason": f"the commit cannot run it: {opened[0]['error']}"}
    calls = max(1, round(0.02 / max(opened[0]["seconds"], 1e-6)))  # some 20 ms a round
    taken: list[list[float]] = [[], [], []]
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        for which in rng.sample(range(3), 3):
            taken[which].append(sides[which].ask(run=calls)["seconds"])
        if speed.enough(*taken, rule):
            break
    verdict = speed.judge(*taken, rule)
    change = verdict.change
    return {
        "case": name,
        "before_ms": verdict.base_seconds / calls * 1e3,
        "after_ms": verdict.head_seconds / calls * 1e3,
        "change": [change.low, change.estimate, change.high],
        "rounds": verdict.rounds,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
    }


def line(row: Mapping[str, Any]) -> str:
    if row["outcome"] == "new":
        return f"| {row['case']} | | | | | new: {row['reason']} |"
    low, estimate, high = (100 * value for value in row["change"])
    return (
        f"| {row['case']} | {row['before_ms']:.3g} | {row['after_ms']:.3g} | {estimate:+.1f} % ({low:+.1f} to {high:+.1f}) "
        f"| {row['rounds']} | {row['outcome']}: {row['reason']} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", help="commit, branch or tag")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=60, help="of one case, at most")
    parser.add_argument("--json", type=Path, help="the rows, as a file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever a kernel prints
        serve(answers)
        return 0
    if not options.before:
        parser.error("name the commit to compare with, e.g. main")
    from adlbench.benchmark.regression.speed import SpeedRule

    rows, rng = [], random.Random(0)
    with tempfile.TemporaryDirectory() as empty, processes(options.before, ROOT / "build" / "gate") as sides:
        names = [name for name in cases(Path(empty)) if options.only.lower() in name.lower()]
        print("| case | before ms | after ms | change (99 % interval) | rounds | verdict |\n|---|--:|--:|---|--:|---|")
        for name in names:
            rows.append(compare(name, sides, options.seconds, SpeedRule(), rng))
            print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    codes = {EXIT[row["outcome"]] for row in rows}
    return 1 if 1 in codes else max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
