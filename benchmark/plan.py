"""From a request to cells: a pure enumeration, with the reason for every pair that does not fit. A plan is data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from adlbench.benchmark.api import AdlbenchError, Budget, DataSchema, Dataset
from adlbench.benchmark.config import (
    BrokenTarget,
    Catalog,
    ConfigError,
    build_dataset,
    build_evaluator,
    build_method,
    nearest,
    resolve_method,
)
from adlbench.benchmark.sources import digest, sources
from adlbench.benchmark.specs import (
    DatasetSpec,
    ExecutorSpec,
    FidelitySpec,
    MethodSpec,
    Request,
    SuiteEntry,
    SuiteSpec,
    TaskSpec,
)


@dataclass(frozen=True)
class CellSpec:
    """One (task, dataset, instance, method, seed, fidelity) with everything resolved. JSON in and out."""

    task: TaskSpec
    dataset: DatasetSpec
    instance: str
    method: MethodSpec
    seed: int
    fidelity: FidelitySpec
    parameters: dict[str, Any]  # of the method, after presets and overrides
    budget: Budget
    applied_presets: tuple[str, ...]
    precision: str
    device: str
    deterministic: bool
    suite_seed: int
    # Not part of the identity, but a record counts only while they are the same (sources.py):
    code: Mapping[str, str] = field(default_factory=dict)  # module -> hash, of the method
    data_code: str = ""  # digest of the dataset's
    devices: int = 1  # that compute the cell together

    @cached_property
    def key(self) -> str:
        """Identity of the cell: a hash over all that can change its numbers, and over nothing else."""
        identity = {
            "task": [self.task.name, self.task.protocol, self.task.options],
            "dataset": [self.dataset.name, self.dataset.target, self.dataset.parameters, self.instance],
            "method": [self.method.name, self.method.target, self.parameters, asdict(self.budget)],
            "run": [self.seed, self.suite_seed, self.fidelity.name, self.fidelity.max_items],
            "device": [self.device.partition(":")[0], self.precision, self.deterministic],
        }
        if self.devices > 1:
            identity["devices"] = [self.devices]
        text = json.dumps(identity, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def name(self) -> str:
        dataset = self.dataset.name if self.instance == "all" else f"{self.dataset.name}.{self.instance}"
        parts = (self.task.name, dataset, self.method.name, self.fidelity.name, f"seed{self.seed}")
        return "/".join(_plain(part) for part in parts)

    def folder(self, results_dir: Path) -> Path:
        return results_dir / "runs" / f"{self.name}-{self.key}"

    def to_json(self) -> str:
        return _adapter().dump_json(self, indent=1).decode()

    @staticmethod
    def from_json(text: str) -> CellSpec:
        return _adapter().validate_json(text)


@cache
def _adapter() -> TypeAdapter[CellSpec]:
    return TypeAdapter(CellSpec)


def _plain(name: str) -> str:
    """``name`` as one part of a path that leads nowhere else; names come from files and from datasets' instances."""
    return re.sub(r"[^\w.\-+ ]", "_", name).strip(". ")[:100] or "_"


@dataclass(frozen=True)
class Skip:
    """A pair that does not run, and why."""

    task: str
    dataset: str
    instance: str
    method: str
    reason: str
    broken: bool = False  # not a pair that does not fit, but code that cannot be imported: a failure


@dataclass(frozen=True)
class Broken:
    """A method or dataset whose module raises when it is imported. It takes no other cell with it."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    cells: tuple[CellSpec, ...]
    skipped: tuple[Skip, ...]
    title: str
    executor: ExecutorSpec = field(default_factory=lambda: ExecutorSpec("local"))


def resolve_device(device: str, count: int = 1) -> str:
    """``auto`` is the accelerator where there is one. Raises ConfigError for devices that are not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ConfigError([f"device={device}: not a device{nearest(kind, ('cpu', 'cuda', 'auto'))}"])
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError([f"device={device}: torch sees no CUDA device here; use device=cpu or see `adlbench doctor`"])
    if count < 1 or (kind == "cuda" and count > torch.cuda.device_count()):
        there = f"; torch sees {torch.cuda.device_count()} here" if kind == "cuda" else ""
        raise ConfigError([f"devices={count}: a cell needs at least one device, and no more than there are{there}"])
    return device


def plan(request: Request, catalog: Catalog | None = None) -> Plan:
    """Every cell that the request means, in the order of its lists. All configuration errors are raised together."""
    catalog = catalog or Catalog(plugins=request.plugins)
    loader = _Loader(catalog, request)
    suite = _suite(request, loader)
    fidelity = loader.get("fidelity", request.fidelity or (suite.fidelity if suite else None) or "short")
    executor = loader.get("executor", request.executor)
    entries = [(entry, loader.get("task", entry.task)) for entry in _entries(request, suite, loader)]
    nodes = []
    for entry, task in entries:
        if task is None:
            continue
        datasets = [loader.get("dataset", name) for name in request.dataset or entry.datasets or task.datasets]
        methods = [loader.get("method", name) for name in request.method or entry.methods or task.methods]
        nodes.append((entry, task, datasets, methods))
    device = resolve_device(request.device, request.devices)
    if loader.problems or fidelity is None:
        raise ConfigError(list(dict.fromkeys(loader.problems)))
    if request.timeout is not None:
        fidelity = replace(fidelity, timeout_seconds=request.timeout)

    cells: list[CellSpec] = []
    skipped: list[Skip] = []
    seeds = request.seed or (suite.seeds if suite else None) or fidelity.seeds
    data = _DataCache()
    for entry, task, datasets, methods in nodes:
        for dataset, method in product(datasets, methods):
            broken = next((spec for spec in (dataset, method) if isinstance(spec, Broken)), None)
            if broken is not None:
                skipped.append(Skip(task.name, dataset.name, "all", method.name, broken.reason, broken=True))
        for dataset in (dataset for dataset in datasets if not isinstance(dataset, Broken)):
            for instance, schema in data.instances(dataset, request.instance or entry.instances):
                for method in (method for method in methods if not isinstance(method, Broken)):
                    axes = {"task": task.name, "dataset": dataset.name, "instance": instance}
                    reason = schema if isinstance(schema, str) else None
                    changes = loader.method_changes
                    resolved = resolve_method(method, changes, fidelity=fidelity.name, device=device, **axes)
                    budget = cut(resolved.budget, entry.steps or (suite.steps if suite else None))
                    if isinstance(schema, DataSchema):
                        reason = _misfit(task, schema, method, resolved.parameters, request.devices)
                    if reason is not None:
                        skipped.append(Skip(task.name, dataset.name, instance, method.name, reason))
                        continue
                    code, data_code = sources(method.target), digest(sources(dataset.target))
                    for seed in seeds:
                        cells.append(
                            CellSpec(
                                task=task,
                                dataset=dataset,
                                instance=instance,
                                method=method,
                                seed=seed,
                                fidelity=fidelity,
                                parameters=resolved.parameters,
                                budget=budget,
                                applied_presets=resolved.applied_presets,
                                precision=request.precision or resolved.precision or "fp32",
                                device=device,
                                deterministic=request.deterministic,
                                suite_seed=request.suite_seed,
                                code=code,
                                data_code=data_code,
                                devices=request.devices,
                            )
                        )
    for cell in cells:
        if cell.budget == Budget():
            raise ConfigError(
                [f"configs/method/{cell.method.name}.yaml: budget is empty; set steps, seconds or samples"]
            )
    return Plan(tuple(cells), tuple(skipped), _title(request), executor)


def cut(budget: Budget, steps: int | None) -> Budget:
    """The budget, ended at ``steps`` at the latest; a method that fits in fewer keeps its own."""
    return budget if steps is None else replace(budget, steps=min(steps, budget.steps or steps))


class _Loader:
    """Specs by group and name, with the request's changes; collects problems instead of stopping at the first."""

    def __init__(self, catalog: Catalog, request: Request):
        self.catalog, self.request, self.problems = catalog, request, list[str]()
        self.method_changes = {
            key.partition(".")[2]: value
            for key, value in request.nodes.items()
            if key.startswith(("method.parameters.", "method.budget."))
        }

    def get(self, group: str, name: str) -> Any:
        prefix = f"{group}."
        changes = {
            key.removeprefix(prefix): value for key, value in self.request.nodes.items() if key.startswith(prefix)
        }
        try:
            return self.catalog.spec(group, name, changes)
        except BrokenTarget as error:
            return Broken(name, str(error))
        except ConfigError as error:
            self.problems += error.problems
            return None


def _suite(request: Request, loader: _Loader) -> SuiteSpec | None:
    return loader.get("suite", request.suite) if request.suite is not None else None


def _entries(request: Request, suite: SuiteSpec | None, loader: _Loader) -> Iterator[SuiteEntry]:
    if suite is not None:
        yield from (entry for entry in suite.cells if not request.task or entry.task in request.task)
    elif request.suite is None:
        if not request.task:
            loader.problems.append(
                f"command line: name a suite or a task, e.g. suite=demo{nearest('', loader.catalog.names('task'))}"
            )
        yield from (SuiteEntry(task=name) for name in request.task)


def _title(request: Request) -> str:
    axes = {"suite": request.suite, "task": request.task, "dataset": request.dataset, "method": request.method}
    return " ".join(
        f"{key}={value if isinstance(value, str) else ','.join(value)}" for key, value in axes.items() if value
    )


class _DataCache:
    """Schemas, once for each dataset instance; a string in place of a schema says why there is none."""

    def __init__(self) -> None:
        self._datasets: dict[tuple[str, str], Dataset] = {}
        self._schemas: dict[tuple[str, str, str], DataSchema | str] = {}

    def instances(self, spec: DatasetSpec, wanted: tuple[str, ...] | None) -> Iterator[tuple[str, DataSchema | str]]:
        identity = (spec.name, json.dumps(spec.parameters, sort_keys=True, default=str))
        dataset = self._datasets.setdefault(identity, build_dataset(spec))
        missing = dataset.missing()
        if missing is not None:
            yield "all", f"missing data: {missing}"
            return
        names = dataset.instances()
        for name in wanted or names:
            if name not in names:
                yield name, f"dataset {spec.name} has no instance {name!r}{nearest(name, names)}"
                continue
            key = (*identity, name)
            if key not in self._schemas:
                try:
                    self._schemas[key] = dataset.schema(name)
                except AdlbenchError as error:
                    self._schemas[key] = str(error)
                except Exception as error:  # a bug in a dataset takes no other cell with it
                    self._schemas[key] = f"its schema raises {type(error).__name__}: {error}"
            yield name, self._schemas[key]


def _misfit(
    task: TaskSpec, schema: DataSchema, method: MethodSpec, parameters: Mapping[str, Any], devices: int
) -> str | None:
    evaluator, instance = build_evaluator(task), build_method(method, parameters)
    absent = evaluator.requires - set(schema.fields)
    if task.kind not in instance.serves:
        return f"{method.name} does not serve {task.kind.value}"
    if schema.modality not in evaluator.modalities:
        return f"protocol {task.protocol} is not for {schema.modality.value}"
    if schema.modality not in instance.consumes:
        return f"{method.name} does not take {schema.modality.value}"
    if absent:
        return f"the data has no {', '.join(sorted(absent))}"
    if devices > 1 and not instance.shares_batches:
        return f"devices={devices}: {method.name} does not share its batches among devices (Method.shares_batches)"
    return instance.skip(schema)
