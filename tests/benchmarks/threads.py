"""What a second thread is worth to a cell on a CPU: the CPU seconds of the same steps with one thread and with two.

`python tests/benchmarks/threads.py [seconds]`. A step that costs the CPU time R times as much with two threads cannot be more
than 2 / R times as fast on two cores, while two cells of one thread each get twice as much done. Wall times would say it
directly, on a machine that does nothing else; CPU times hold on any. Rounds of one and two threads alternate.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from adlbench.benchmark.api import TrainingData
from adlbench.benchmark.cell import load_data, make_context
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.config import build_method
from adlbench.benchmark.plan import plan
from adlbench.benchmark.specs import Request

PAIRS = (
    ("classification", "digits", "cnn"),
    ("classification", "digits", "vit"),
    ("field_reconstruction", "photographs_fit", "siren"),
    ("image_reconstruction", "digits", "autoencoder"),
    ("generation", "digits", "dcgan"),
)
ROUNDS = 5


def main(seconds: float = 1.0) -> None:
    for task, dataset, name in PAIRS:
        request = Request(task=(task,), dataset=(dataset,), method=(name,), fidelity="demo", device="cpu")
        cell = plan(request).cells[0]
        data = load_data(cell)
        method = build_method(cell.method, cell.parameters)
        with tempfile.TemporaryDirectory() as folder:
            method.setup(TrainingData(data.schema, data.train), make_context(cell, Path(folder), Clock()))
            _timed(method, 1, 1)
            steps = max(2, round(seconds / _timed(method, 2, 1) * 2))
            ratios = [_timed(method, steps, 2) / _timed(method, steps, 1) for _ in range(ROUNDS)]
        ratio = statistics.median(ratios)
        print(
            f"{task}/{dataset}/{name}: {ratio:.2f} times the CPU time, so at most {2 / ratio:.2f} times as fast",
            flush=True,
        )


def _timed(method, steps: int, threads: int) -> float:  # type: ignore[no-untyped-def]
    torch.set_num_threads(threads)
    with threadpool_limits(threads, user_api="blas"):
        begin = time.process_time()
        for _ in range(steps):
            method.step()
        return time.process_time() - begin


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
