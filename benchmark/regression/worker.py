"""One side of a comparison: a process that stays, on the package and in the environment of one commit.

It is started as a script of the *present* checkout while ``adlbench`` is imported from the other commit's tree, so it touches
as little of the engine as it can: plan, cell.{load_data, make_context, configure_torch, make_evaluation_context, run_cell} and
the builders of config. Requests and answers are lines of JSON on standard input and on what was standard output; whatever
the commit prints goes to standard error.

Between ``begin`` and ``end`` a fork answers, and then is gone: how fast a process is depends by some percent on which pages
of memory it was given, so that one process is one draw. What is costly, the imports, stays. The process that forks computes
nothing itself, for threads and accelerators do not outlive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any


class Side:
    def __init__(self) -> None:
        self.cells: dict[str, Any] = {}

    def hello(self, threads: int, cores: list[int]) -> dict[str, Any]:
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        import torch

        torch.set_num_threads(threads)
        import adlbench

        return {"package": str(Path(adlbench.__file__).parent)}

    def describe(self, requests: list[list[str]], max_steps: int | None) -> dict[str, Any]:
        """Plan the requests with this commit's configuration; cells are known by their names from then on."""
        import torch

        from adlbench.benchmark.config import Catalog, parse_request
        from adlbench.benchmark.environment import hardware_class
        from adlbench.benchmark.plan import plan

        told, skipped = [], []
        for overrides in requests:
            request = parse_request(overrides)
            found = plan(request, Catalog(plugins=request.plugins))
            skipped += [vars(skip) for skip in found.skipped]
            for cell in found.cells:
                steps = min(max_steps or 10**12, cell.budget.steps or 10**12)
                budget = replace(cell.budget, steps=steps if steps < 10**12 else None)
                self.cells[cell.name] = replace(cell, budget=budget)
                told.append(
                    {
                        "name": cell.name,
                        "group": cell.name.rpartition("/")[0],
                        "seed": cell.seed,
                        "protocol": cell.task.protocol,
                        "steps": budget.steps,
                        "device": cell.device,
                        "hardware": hardware_class(torch.device(cell.device)),
                        "sources": [cell.method.target, cell.dataset.target],
                        "axes": {"task": cell.task.name, "dataset": cell.dataset.name, "method": cell.method.name},
                    }
                )
        return {"cells": told, "skipped": skipped}

    def train(self, name: str, folder: str) -> dict[str, Any]:
        """Run the whole cell to its record in ``folder``."""
        from adlbench.benchmark.cell import run_cell

        record = run_cell(self.cells[name], Path(folder))
        return {"status": record.status, "reason": record.reason}

    # ------------------------------------------------------------------------------------------------------------ speed
    def open(self, name: str, folder: str) -> dict[str, Any]:
        import torch

        from adlbench.benchmark.cell import load_data
        from adlbench.benchmark.environment import reset_peak_memory

        self.spec, self.folder = self.cells[name], Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = torch.device(self.spec.device)
        self.method: Any = None
        self.call: Any = None
        gc.collect()
        reset_peak_memory(self.device)
        self.data = load_data(self.spec)
        self._reset()
        gc.collect()
        gc.freeze()  # what lives longer than a round is not searched again in every collection
        return {"fingerprint": self.data.fingerprint}

    def _reset(self) -> None:
        from adlbench.benchmark.api import TrainingData
        from adlbench.benchmark.cell import configure_torch, make_context
        from adlbench.benchmark.clock import Clock
        from adlbench.benchmark.config import build_method

        self.context = make_context(self.spec, self.folder, Clock())
        self.method = build_method(self.spec.method, self.spec.parameters)
        configure_torch(self.spec, self.context)
        self.method.setup(TrainingData(self.data.schema, self.data.train, self.data.fingerprint), self.context)

    def steps(self, n: int, limit: int) -> dict[str, float]:
        """``n`` steps, timed. Where the budget would be passed, training starts anew first, untimed, with a step to warm up."""
        if self.context.step + n > limit:
            self._reset()
            if n < limit:
                self._step()
        return self._timed(lambda: self._steps(n))

    def _steps(self, n: int) -> None:
        for _ in range(n):
            self._step()

    def _step(self) -> None:
        self.method.step()
        self.context.step += 1
        if self.spec.budget.steps:
            self.context.progress = min(1.0, self.context.step / self.spec.budget.steps)

    def inference(self, n: int) -> dict[str, float]:
        """``n`` calls of the task's inference at the fidelity's first batch size, on the model as it is, after a step at least."""
        import torch

        if self.call is None:
            if self.context.step == 0:
                self._step()
            from adlbench.benchmark.cell import make_evaluation_context
            from adlbench.benchmark.config import build_evaluator

            batch_size = self.spec.fidelity.inference_batch_sizes[0]
            context = make_evaluation_context(self.spec, self.context, lambda event: None)
            evaluator = build_evaluator(self.spec.task)
            with torch.no_grad():
                self.call, _ = evaluator.inference(self.method.predictor(), self.data, context, batch_size)
        with torch.no_grad():
            return self._timed(lambda: [self.call() for _ in range(n)])

    def _timed(self, work: Callable[[], object]) -> dict[str, float]:
        from adlbench.benchmark.clock import synchronize

        synchronize(self.device)
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        synchronize(self.device)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def memory(self) -> dict[str, float | None]:
        """Peak since ``open``, MB: resident, and allocated on the accelerator."""
        from adlbench.benchmark.environment import peak_memory

        resident, device = peak_memory(self.device)
        return {"resident": resident, "device": device}


def main() -> None:
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    side, forked, before = Side(), False, frozenset[str]()

    def tell(answer: dict[str, Any]) -> None:
        channel.write(json.dumps(answer) + "\n")
        channel.flush()

    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        do = request.pop("do")
        if do == "begin":
            for name in request["modules"]:
                with contextlib.suppress(Exception):  # what cannot be imported alone is imported by each fork
                    importlib.import_module(name)
            gc.freeze()  # else a collection in the fork copies every page that holds an object
            child = os.fork()
            if child:
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                if status:  # in the middle of a request, which waits for its answer
                    tell({"error": f"the process ended with exit code {status}"})
                continue
            forked, before = True, frozenset(sys.modules)
            tell({})
        elif do == "end":
            tell({"modules": [name for name in sys.modules if name not in before]})
            if forked:
                break
        else:
            try:
                tell(getattr(side, do)(**request))
            except Exception as error:
                traceback.print_exc()
                tell({"error": f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]})
    if forked:
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
