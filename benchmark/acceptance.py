"""The contract as an acceptance test: what ``adlbench test METHOD`` checks, on a small dataset at smoke fidelity."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adlbench.benchmark.api import AbsentSplit, AdlbenchError, Budget, Method, Predictor, TrainingData
from adlbench.benchmark.cell import (
    TrainingLog,
    configure_torch,
    evaluate,
    load_data,
    make_context,
    make_evaluation_context,
    read_checkpoint,
    restore,
    run_cell,
    write_checkpoint,
)
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.config import Catalog, build_evaluator, build_method
from adlbench.benchmark.context import CellContext
from adlbench.benchmark.plan import CellSpec, plan, resolve_device
from adlbench.benchmark.specs import Request
from adlbench.benchmark.tasks.base import Evaluation, EvaluationData

STEPS = 4
# Operations that make an accelerator wait for the host: a value is read, or a size depends on the data.
SYNCHRONISING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive")


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    detail: str = ""


class _Failed(Exception):
    pass


def accept(
    method: str,
    dataset: str | None = None,
    task: str | None = None,
    plugins: Sequence[str] = (),
    report: Callable[[Check], None] | None = None,
) -> list[Check]:
    """Run every check, even after one fails; a check that raises has failed with what it raised."""
    cell = choose_cell(method, dataset, task, plugins)
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="adlbench-test-") as folder:
        trial = _Trial(cell, Path(folder))
        for name, function in trial.checks():
            try:
                check = Check(name, True, function() or "")
            except _Failed as error:
                check = Check(name, False, str(error))
            except Exception as error:
                check = Check(name, False, f"{type(error).__name__}: {error}")
            checks.append(check)
            if report is not None:
                report(check)
    return checks


def choose_cell(
    method: str, dataset: str | None = None, task: str | None = None, plugins: Sequence[str] = ()
) -> CellSpec:
    """A smoke cell of the method: on the dataset asked for, else on the first whose data is here. Raises AdlbenchError."""
    catalog = Catalog(plugins)
    catalog.spec("method", method)
    tasks = [task] if task else [name for name in catalog.names("task") if method in catalog.spec("task", name).methods]
    reasons = []
    for name in tasks:
        request = Request(
            task=(name,),
            method=(method,),
            dataset=(dataset,) if dataset else (),
            fidelity="smoke",
            device="cpu",
            plugins=tuple(plugins),
        )
        found = plan(request, catalog)
        if found.cells:
            cell = found.cells[0]
            steps = min(cell.budget.steps or STEPS, STEPS)
            return replace(cell, budget=Budget(steps=steps))
        reasons += [f"{skip.dataset}: {skip.reason}" for skip in found.skipped]
    if not tasks:
        raise AdlbenchError(
            f"method {method}: no task names it; add it to the methods of one in configs/task/, or give --task"
        )
    raise AdlbenchError(f"method {method}: nothing to test it on ({'; '.join(reasons)}); give --dataset")


def hidden_by_fields(method: type[Method]) -> list[str]:
    """Names in the contract that a parameter of the method has taken: ``skip: int = 4`` leaves no ``skip(schema)``."""
    return [field.name for field in fields(method) if hasattr(Method, field.name)]  # type: ignore[arg-type]


class _Trial:
    def __init__(self, cell: CellSpec, folder: Path):
        self.cell, self.folder = cell, folder
        self.data: EvaluationData = load_data(cell)
        self.evaluator = build_evaluator(cell.task)
        self.steps = cell.budget.steps or 1
        self._trained: tuple[Method, CellContext, Evaluation] | None = None

    def checks(self) -> list[tuple[str, Callable[[], str | None]]]:
        return [
            ("declares", self.declares),
            ("sets up and steps", self.sets_up_and_steps),
            ("evaluates twice", self.evaluates_twice),
            ("saves and loads", self.saves_and_loads_without_data),
            ("resumes", self.resumes),
            ("seed", self.honours_the_seed),
            ("budget", self.honours_the_budget),
            ("precision", self.honours_the_precision),
            ("device", self.honours_the_device),
            ("no hidden sync", self.does_not_synchronise),
            ("runs as a cell", self.runs_as_a_cell),
        ]

    # -------------------------------------------------------------------------------------------------------- building
    def make(
        self, *, seed: int = 0, precision: str = "fp32", device: str = "cpu", present: bool = True
    ) -> tuple[Method, CellContext]:
        cell = replace(self.cell, seed=seed, precision=precision, device=device)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        context = make_context(cell, folder, Clock())
        configure_torch(cell, context)
        method = build_method(cell.method, cell.parameters)
        train = self.data.train if present else AbsentSplit(len(self.data.train))
        method.setup(TrainingData(self.data.schema, train, self.data.fingerprint), context)
        return method, context

    def run(self, method: Method, context: CellContext, steps: int) -> dict[str, float]:
        values: dict[str, Tensor] = {}
        for _ in range(steps):
            values = dict(method.step())
            context.step += 1
            context.progress = context.step / self.steps
        return {name: float(value) for name, value in values.items()}

    def score(self, method: Method, context: CellContext) -> Evaluation:
        predictor: Predictor = method.predictor()
        return evaluate(
            self.evaluator, predictor, self.data, make_evaluation_context(self.cell, context, lambda e: None), self.cell
        )

    def trained(self) -> tuple[Method, CellContext, Evaluation]:
        if self._trained is None:
            method, context = self.make()
            self.run(method, context, self.steps)
            self._trained = method, context, self.score(method, context)
        return self._trained

    # ---------------------------------------------------------------------------------------------------------- checks
    def declares(self) -> str:
        method = build_method(self.cell.method, self.cell.parameters)
        for name in ("serves", "consumes"):
            if not getattr(type(method), name, None):
                raise _Failed(f"the class attribute {name!r} is missing; a frozenset of what the method {name}")
        hiding = hidden_by_fields(type(method))
        if hiding:
            raise _Failed(f"the parameter {hiding[0]!r} hides Method.{hiding[0]}; give the parameter another name")
        if self.cell.task.kind not in method.serves:
            raise _Failed(f"does not serve {self.cell.task.kind.value}")
        return self.cell.name

    def sets_up_and_steps(self) -> str:
        method, context = self.make()
        values = {}
        for _ in range(self.steps):
            values = dict(method.step())
            context.step += 1
            for name, value in values.items():
                if not isinstance(value, Tensor) or value.ndim:
                    raise _Failed(f"step() returned {name!r} as {type(value).__name__}; 0-d tensors, please")
                if not math.isfinite(float(value)):
                    raise _Failed(f"step() returned {name} = {float(value)}")
        if context.samples == 0:
            raise _Failed("no samples were counted; draw batches from context.loader or call context.count")
        return f"{self.steps} steps, {context.samples} samples, " + ", ".join(
            f"{k} {float(v):.4g}" for k, v in values.items()
        )

    def evaluates_twice(self) -> str:
        method, context, first = self.trained()
        _same_scores(first, self.score(method, context), "a second evaluation")
        values = [f"{name} {value:.4g}" for name, value in first.values.items() if name in self.cell.task.metrics]
        if not values:
            raise _Failed(f"no metric has a value: {first.absent}")
        return ", ".join(values)

    def saves_and_loads_without_data(self) -> str:
        method, context, scores = self.trained()
        write_checkpoint(self.folder, method, context, TrainingLog(), Clock(), trained=True)
        checkpoint = read_checkpoint(self.folder)
        assert checkpoint is not None
        restored, other_context = self.make(present=False)
        restored.load_state_dict(checkpoint["method"])
        _same_state(method.state_dict(), restored.state_dict(), "the restored method's state_dict")
        _same_scores(scores, self.score(restored, other_context), "the restored method's evaluation")
        return f"{(self.folder / 'checkpoint.pt').stat().st_size / 1e6:.2f} MB"

    def resumes(self) -> str:
        if self.steps < 2:
            return "closed form: one step"
        method, context = self.make()
        self.run(method, context, self.steps // 2)
        write_checkpoint(self.folder, method, context, TrainingLog(), Clock(), trained=False)
        self.run(method, context, self.steps - self.steps // 2)
        checkpoint = read_checkpoint(self.folder)
        assert checkpoint is not None
        resumed, other_context = self.make()
        torch.manual_seed(12345)  # whatever a new process would have drawn
        restore(checkpoint, resumed, other_context, TrainingLog(), Clock())
        other_context.progress = other_context.step / self.steps
        self.run(resumed, other_context, self.steps - self.steps // 2)
        _same_state(method.state_dict(), resumed.state_dict(), "the state after a resume")
        return "bit-equal"

    def honours_the_seed(self) -> str:
        method, _, _ = self.trained()
        again, context = self.make()
        self.run(again, context, self.steps)
        _same_state(method.state_dict(), again.state_dict(), "the state of a second run with the same seed")
        if self.cell.method.trivial:
            return "same seed, same state"
        other, context = self.make(seed=1)
        self.run(other, context, self.steps)
        try:
            _same_state(method.state_dict(), other.state_dict(), "")
        except _Failed:
            return "same seed, same state; another seed, another state"
        raise _Failed("two seeds gave the same state; derive randomness from context.seed and context.generator")

    def honours_the_budget(self) -> str:
        steps = 3 if self.steps > 1 else 1
        record = run_cell(replace(self.cell, budget=Budget(steps=steps)), self.folder / "budget")
        if record.status != "done" or record.steps != steps:
            raise _Failed(f"asked for {steps} steps: {record.status}, {record.steps} steps. {record.reason}")
        if self.steps < 2:
            return "1 step"
        record = run_cell(replace(self.cell, budget=Budget(seconds=0.5)), self.folder / "seconds")
        if record.status != "done":
            raise _Failed(f"asked for 0.5 s: {record.status}. {record.reason}")
        return f"{steps} steps; 0.5 s asked, {record.accounts['train'] + record.accounts['compile'] + record.accounts['data']:.2f} s used"

    def honours_the_precision(self) -> str:
        method, context = self.make(precision="bf16")
        values = self.run(method, context, self.steps)
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise _Failed(f"bf16: {', '.join(broken)} not finite")
        self.score(method, context)
        return "fp32, bf16"

    def honours_the_device(self) -> str:
        device = resolve_device("auto")
        method, context = self.make(device=device)
        self.run(method, context, self.steps)
        strayed = [name for name, value in _tensors(method.state_dict()) if value.device.type != device and value.ndim]
        if strayed:
            raise _Failed(f"on another device than {device}: {', '.join(strayed[:5])}")
        self.score(method, context)
        return device

    def does_not_synchronise(self) -> str:
        if self.steps < 2:
            return "closed form: one step"
        method, context = self.make()
        self.run(method, context, 1)
        with _SyncCounter() as counter:
            for _ in range(self.steps - 1):
                method.step()
                context.step += 1
        if counter.found and not method.synchronises:
            names = ", ".join(f"{name} x{count}" for name, count in counter.found.items())
            raise _Failed(
                f"step() reads from the device ({names}); return tensors, or say why in the attribute `synchronises`"
            )
        return method.synchronises or "none"

    def runs_as_a_cell(self) -> str:
        record = run_cell(self.cell, self.folder / "cell")
        if record.status != "done":
            raise _Failed(f"{record.status}: {record.reason}")
        drift = abs(sum(record.accounts.values()) - record.wall_seconds) / record.wall_seconds
        if drift > 0.01:
            raise _Failed(f"the accounts miss {100 * drift:.1f} % of the wall time")
        return f"{record.wall_seconds:.1f} s, {record.num_parameters} parameters"


class _SyncCounter(TorchDispatchMode):
    """Counts operations that would make an accelerator wait. It sees them on the CPU too."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in SYNCHRONISING and not _in_optimizer():
            self.found[name] = self.found.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def _in_optimizer(depth: int = 30) -> bool:
    """Whether torch's own optimizer reads: its step counters lie on the host on every device, so that nothing waits."""
    frame = sys._getframe(2)
    for _ in range(depth):
        if "/torch/optim/" in frame.f_code.co_filename.replace("\\", "/"):
            return True
        if frame.f_back is None:
            break
        frame = frame.f_back
    return False


def _tensors(state: Any, path: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        return [(path, state)]
    if isinstance(state, dict):
        return [pair for key, value in state.items() for pair in _tensors(value, f"{path}.{key}".lstrip("."))]
    if isinstance(state, (list, tuple)):
        return [pair for key, value in enumerate(state) for pair in _tensors(value, f"{path}.{key}".lstrip("."))]
    return []


def _same_state(first: Any, second: Any, what: str) -> None:
    a, b = dict(_tensors(first)), dict(_tensors(second))
    if a.keys() != b.keys():
        raise _Failed(f"{what} has other tensors: {sorted(a.keys() ^ b.keys())[:5]}")
    for name, value in a.items():
        if value.shape != b[name].shape or not torch.equal(value, b[name]):
            raise _Failed(f"{what} differs in {name!r}")


def _same_scores(first: Evaluation, second: Evaluation, what: str) -> None:
    for name, value in first.values.items():
        other = second.values.get(name)
        if other != value and not (other is not None and math.isnan(other) and math.isnan(value)):
            raise _Failed(f"{what} gives {name} = {other!r}, not {value!r}")
    for name, array in first.predictions.items():
        if not np.array_equal(array, second.predictions[name], equal_nan=array.dtype.kind == "f"):
            raise _Failed(f"{what} gives other predictions ({name})")
