"""What bounds a NeRF's training step on one core: its matrix products, and how near they come to what the core can do.

    python tests/benchmarks/nerf_limits.py [dataset]

For each method at fidelity ``short``, after some steps: CPU time of a step, its floating-point operations, both as a share of
what a large matrix product of the same type reaches here, and where the time goes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from occupancy_speed import plain_layers
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from adlbench.benchmark.api import Method, TrainingData
from adlbench.benchmark.cell import load_data, make_context
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.config import build_method
from adlbench.benchmark.plan import plan
from adlbench.benchmark.specs import Request

WARM_UP, STEPS = 300, 20  # the grid has emptied by then


def peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Operations a second of a large product; the best of several, since others use the machine."""
    a, b = torch.randn(2, size, size).to(dtype)
    times = []
    for _ in range(6):
        begin = time.process_time()
        a @ b
        times.append(time.process_time() - begin)
    return float(2 * size**3 / min(times))


def step(method: Method) -> float:
    begin = time.process_time()
    method.step()
    method.context.step += 1
    return time.process_time() - begin


def main(dataset: str = "tabletop") -> None:
    torch.set_num_threads(1)
    print("| method | step [ms] | GFLOP | GFLOP/s | of a large product's | time in |\n|---|--:|--:|--:|--:|---|")
    for name in ("nerf", "nerf_occupancy"):
        request = Request(
            task=("novel_view_synthesis",),
            dataset=(dataset,),
            method=(name,),
            fidelity="short",
            seed=(0,),
            device="cpu",
        )
        cell = plan(request).cells[0]
        data, method = load_data(cell), build_method(cell.method, cell.parameters)
        with tempfile.TemporaryDirectory() as folder:
            method.setup(TrainingData(data.schema, data.train), make_context(cell, Path(folder), Clock()))
            for _ in range(WARM_UP):
                step(method)
            seconds, operations = [], []
            for _ in range(STEPS):  # in turn: the number of samples changes from step to step
                seconds += [step(method) for _ in range(2)][
                    1:
                ]  # the first finds the caches as the plain layers leave them
                with plain_layers(), FlopCounterMode(display=False) as counter:  # it sees torch's products only
                    step(method)
                operations.append(counter.get_total_flops())
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                for _ in range(STEPS):
                    step(method)
        taken, done = statistics.median(seconds), statistics.median(operations)
        best = peak(torch.bfloat16 if cell.precision == "bf16" else torch.float32)
        spent: Counter[str] = Counter()
        for event in profiled.key_averages():
            spent[event.key.removeprefix("aten::")] += event.self_cpu_time_total
        total = sum(spent.values())
        where = ", ".join(f"{key} {100 * value / total:.0f} %" for key, value in spent.most_common(9))
        print(
            f"| {name} | {taken * 1e3:.1f} | {done / 1e9:.2f} | {done / taken / 1e9:.0f} "
            f"| {100 * done / taken / best:.0f} % of {best / 1e9:.0f} | {where} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
