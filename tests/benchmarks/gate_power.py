"""How often the gate cries wolf, and how often it sees the wolf: false alarms and power, measured.

    python tests/benchmarks/gate_power.py speed --comparisons 100 --out speed.json
    python tests/benchmarks/gate_power.py accuracy --out build/gate-accuracy

speed: real worker processes, started anew every few comparisons, and the verdict rule of `adlbench compare`. A step is 100
small matrix products in commit A and 100, 103 or 105 in commit B. A further process loads the workers' own core half of the time.
accuracy: cells of the gate suite are really trained, at more seeds than a comparison needs, in A and, with a learning rate that
differs in its fifth digit, in B: other bits, the same quality. A comparison draws five seeds, for both; or, as the worst case,
five others for B, so that pairing gains nothing. A drop of two margins is planted in B's recorded values by item.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlbench.benchmark.cell import run_cell
from adlbench.benchmark.config import Catalog, parse_request
from adlbench.benchmark.plan import CellSpec, plan
from adlbench.benchmark.records import read_record
from adlbench.benchmark.regression import accuracy, speed
from adlbench.benchmark.regression.comparison import WALL_EFFECT
from adlbench.benchmark.regression.results import CellResult, read_result
from adlbench.benchmark.regression.session import Rounds, Tree, Work, Worker, measure_start, quiet_core

ROOT = Path(__file__).resolve().parents[2]
WORLD = ROOT / "tests" / "regression"
CELL = ["task=coins", "plugins=gateworld", "fidelity=short", "seed=0", "device=cpu"]
UNITS = {"A/A": 100, "+3 %": 103, "+5 %": 105}


def load(duty: float, period: float, cores: list[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)
    while os.getppid() != 1:  # an orphan ends
        end = time.perf_counter() + duty * period
        while time.perf_counter() < end:
            pass
        time.sleep((1 - duty) * period)


def speed_power(comparisons: int, per_start: int, seconds: float, out: Path) -> list[dict[str, Any]]:
    """The three cases share A's two processes and the rounds, which spares four of nine processes; each case is judged alone."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(WORLD), os.environ.get("PYTHONPATH", "")])
    tree, rule, cores = Tree("A", "", ROOT, sys.executable), speed.SpeedRule(), quiet_core()
    loader = multiprocessing.get_context("spawn").Process(target=load, args=(0.5, 0.1, cores), daemon=True)
    loader.start()
    rows: list[dict[str, Any]] = json.loads(out.read_text()) if out.exists() else []
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            for index in range(len(rows) // len(UNITS), comparisons):
                if index % per_start == 0 or not rows or "workers" not in locals():
                    stack.close()
                    workers = [stack.enter_context(Worker(tree, cores)) for _ in range(5)]
                names = []
                for worker, units in zip(workers, (100, 100, *UNITS.values())):
                    request = [*CELL, f"method.parameters.units={units}"]
                    names.append(worker.ask("describe", requests=[request], max_steps=None)["cells"][0]["name"])
                rows += compare_once(workers, names, folder, rule, seconds, index)
                print(
                    *(f"{row['case']}: {row['outcome']};" for row in rows[-3:]),
                    rows[-1]["starts"],
                    "starts",
                    flush=True,
                )
                out.write_text(json.dumps(rows))
    finally:
        loader.kill()
        loader.join()
    return rows


def compare_once(
    workers: list[Worker], names: list[str], folder: str, rule: speed.SpeedRule, seconds: float, seed: int
) -> list[dict[str, Any]]:
    """As ``session.measure`` does it, with three heads beside the two processes of A, and the most rounds in each start."""
    order, rounds, start = random.Random(seed), Rounds("train"), 0
    work = Work(lambda worker, n: worker.ask("steps", n=n, limit=10**9))
    heads = range(2, 2 + len(UNITS))
    deadline = time.monotonic() + seconds
    while start == 0 or time.monotonic() < deadline:
        with contextlib.ExitStack() as stack:
            for worker, name in zip(workers, names):
                stack.enter_context(worker.forked())
                worker.ask("open", name=name, folder=folder)
            measure_start(workers, work, rounds, start, math.inf, deadline, order)
        start += 1
        if all(speed.enough(*rounds.columns("cpu", head), rule, rounds.starts) for head in heads):
            break
    rows = []
    wall_rule = speed.SpeedRule(minimum_effect=WALL_EFFECT)
    for case, head in zip(UNITS, heads):
        sides = rounds.columns("cpu", head)
        verdict = speed.judge(*sides, rule, rounds.starts)
        wall = speed.judge(*rounds.columns("wall", head), wall_rule, rounds.starts)
        rows.append({"case": case, **asdict(verdict), "wall": wall.outcome, "cpu_seconds": sum(map(sum, sides))})
    return rows


def speed_table(rows: list[dict[str, Any]]) -> None:
    print("| B's step | comparisons | slower | pass | inconclusive | starts, median | CPU s, median |")
    print("|---|---|---|---|---|---|---|")
    for name in UNITS:
        own = [row for row in rows if row["case"] == name]
        counts = [sum(row["outcome"] == outcome for row in own) for outcome in ("slower", "pass", "inconclusive")]
        medians = [float(np.median([float(str(row[key])) for row in own])) for key in ("starts", "cpu_seconds")]
        print(
            f"| {name} | {len(own)} | {counts[0]} | {counts[1]} | {counts[2]} | {medians[0]:.0f} | {medians[1]:.1f} |"
        )


TRAINED = {"classification": "cnn", "image_reconstruction": "autoencoder"}
NUDGE = 1 + 1e-5  # of the learning rate: other bits, the same quality


def accuracy_power(comparisons: int, seeds: int, steps: int, folder: Path) -> list[dict[str, Any]]:
    """Trains what is not below ``folder`` yet, then resamples five seeds for A, and the same or five others for B."""
    rows = []
    for task, method in TRAINED.items():
        request = [f"task={task}", f"method={method}", "dataset=digits", "fidelity=short", f"seed=range(0,{seeds})"]
        request += ["device=cpu", f"budget.steps={steps}"]
        cells = plan(parse_request(request), Catalog()).cells
        rate = cells[0].parameters["learning_rate"] * NUDGE
        nudged = plan(parse_request([*request, f"method.parameters.learning_rate={rate!r}"]), Catalog()).cells
        sides = [[trained(cell, folder) for cell in side] for side in (cells, nudged)]
        primary = cells[0].task.primary
        spec = cells[0].task.metrics[primary]
        margin = float(spec.margin or 0)
        values, others = (np.stack([result.items[primary] for result in side]) for side in sides)  # [seeds, items]
        paired = float((others - values).mean(1).std(ddof=1))
        spread = float(values.mean(1).std(ddof=1))
        told = f"deviation of seeds {spread:.4g}, of pairs {paired:.4g}"
        print(f"{cells[0].name}: mean {values.mean():.4g}, margin {margin:g}; {told}")
        rng = np.random.default_rng(0)
        for pairing in ("same seeds", "other seeds"):
            for margins in (0, 2):
                for _ in range(comparisons):
                    chosen = rng.permutation(seeds)[:10]
                    head = others[chosen[:5]] if pairing == "same seeds" else values[chosen[5:]]
                    head = worsened(head, margins * margin, spec.direction, rng)
                    by_seed = [dict(enumerate(map(float, side.mean(1)))) for side in (values[chosen[:5]], head)]
                    outcome = accuracy.judge(by_seed[0], by_seed[1], spec.direction, margin).outcome
                    rows.append({"cell": f"{task}, {method}, {pairing}", "margins": margins, "outcome": outcome})
    return rows


def trained(cell: CellSpec, folder: Path) -> CellResult:
    path = cell.folder(folder)
    if not (path / "record.json").exists() or read_record(path).status != "done":
        run_cell(cell, path)
        print(cell.name, flush=True)
    return read_result(path)


def worsened(items: NDArray[np.float64], drop: float, direction: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Right answers become wrong ones, errors grow by random amounts: a mean drop of ``drop``, another at every seed and item."""
    if direction == "up":
        return items * (rng.random(items.shape) >= drop / items.mean())
    return items + drop * rng.exponential(size=items.shape)


def accuracy_table(rows: list[dict[str, Any]]) -> None:
    print("| cell | planted drop, margins | comparisons | worse | pass | inconclusive |")
    print("|---|---|---|---|---|---|")
    for cell, margins in dict.fromkeys((row["cell"], row["margins"]) for row in rows):
        own = [row["outcome"] for row in rows if (row["cell"], row["margins"]) == (cell, margins)]
        counts = " | ".join(str(own.count(outcome)) for outcome in ("worse", "pass", "inconclusive"))
        print(f"| {cell} | {margins} | {len(own)} | {counts} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("speed", "accuracy"))
    parser.add_argument("--comparisons", type=int, default=100, help="of each case")
    parser.add_argument("--per-start", type=int, default=16, help="comparisons by the same processes")
    parser.add_argument("--seconds", type=float, default=60, help="of one comparison, at most")
    parser.add_argument("--seeds", type=int, default=16, help="trained for the accuracy part")
    parser.add_argument("--steps", type=int, default=200, help="of a training")
    parser.add_argument(
        "--out", type=Path, required=True, help="raw outcomes, or the folder of trained cells; continued"
    )
    options = parser.parse_args()
    if options.part == "accuracy":
        accuracy_table(accuracy_power(options.comparisons, options.seeds, options.steps, options.out))
    if options.part == "speed":
        speed_table(speed_power(options.comparisons, options.per_start, options.seconds, options.out))
