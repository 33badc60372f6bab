"""What the YAML files may hold: one frozen dataclass for each group, checked by ``config.py``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict

from adlbench.benchmark.api import TaskKind

_FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class MetricSpec:
    direction: Literal["up", "down"]
    unit: str = ""
    primary: bool = False
    margin: float | None = None  # what counts as worse for the regression gate, in the metric's unit
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class TaskSpec:
    name: str
    kind: TaskKind
    protocol: str
    description: str
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: dict[str, MetricSpec]
    throughput_unit: str
    aggregate: str = "mean over items"
    options: dict[str, Any] = field(default_factory=dict)  # fields of the evaluator
    references: tuple[dict[str, Any], ...] = ()
    inference_batch_sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # fidelity -> in place of its own
    __pydantic_config__ = _FORBID

    @property
    def primary(self) -> str:
        return next((name for name, metric in self.metrics.items() if metric.primary), next(iter(self.metrics)))


@dataclass(frozen=True)
class DownloadSpec:
    """A published file. ``adlbench data prepare`` fetches it where it is missing."""

    url: str
    sha256: str
    path: str  # where it goes, below the data root
    size: int = 0  # bytes; 0: not known
    unpack: str = ""  # the folder below the data root that the archive is unpacked into
    gives: str = ""  # what is there below the data root once it is unpacked
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class DatasetSpec:
    name: str
    target: str
    title: str
    description: str = ""
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    size: str = ""
    generated: bool = False
    how_to_get: str = ""
    downloads: tuple[DownloadSpec, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class PresetCondition:
    fidelity: str | None = None
    dataset: str | None = None
    task: str | None = None
    instance: str | None = None
    device: str | None = None
    __pydantic_config__ = _FORBID

    def matches(self, **axes: str) -> bool:
        wanted = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return all(axes[key] == value for key, value in wanted.items())


@dataclass(frozen=True)
class BudgetSpec:
    steps: int | None = None
    seconds: float | None = None
    samples: int | None = None
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class PresetChange:
    parameters: dict[str, Any] = field(default_factory=dict)
    budget: BudgetSpec | None = None  # replaces the whole budget
    precision: Literal["fp32", "bf16"] | None = None
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class Preset:
    when: PresetCondition
    set: PresetChange
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class MethodSpec:
    name: str
    target: str
    title: str
    paper: str = ""
    licence: str = ""
    trivial: bool = False
    card: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    precision: Literal["fp32", "bf16"] | None = None
    presets: tuple[Preset, ...] = ()
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class FidelitySpec:
    name: str
    description: str
    seeds: tuple[int, ...] = (0,)
    max_items: int | None = None  # test items scored; None means all
    timeout_seconds: float = 3600.0  # of a whole cell; it is then ended
    checkpoint_seconds: float = 60.0
    latency_repeats: int = 20
    inference_batch_sizes: tuple[int, ...] = (1, 32)
    evaluations: int = 0  # of the primary metric, at equal shares of the budget; 0 and 1: only after training
    analysis: bool = True  # embeddings, occlusion maps and the like, after the evaluation
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class SuiteEntry:
    task: str
    datasets: tuple[str, ...] | None = None  # None: those of the task
    methods: tuple[str, ...] | None = None
    instances: tuple[str, ...] | None = None
    steps: int | None = None  # for these, instead of the suite's
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class SuiteSpec:
    name: str
    description: str
    cells: tuple[SuiteEntry, ...]
    fidelity: str | None = None
    seeds: tuple[int, ...] | None = None
    steps: int | None = None  # budgets end there at the latest
    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class ExecutorSpec:
    name: str
    description: str = ""
    kind: Literal["local", "slurm", "ray"] = "local"
    slots: int | None = None  # cells at a time; None: as many as the accelerators hold, else by the number of cores
    threads: int | None = None  # of each cell; None: one on a CPU, else the cores are shared out
    gpus: float = 1.0  # accelerators of each cell, on device=cuda; 0.5 lets two cells share one
    memory_gb: float | None = None  # of each cell with all its processes; None: until the machine has none left
    max_processes: int = 256  # of each cell
    cores: int = 1  # of each cell, on a cluster
    submit: dict[str, Any] = field(
        default_factory=dict
    )  # what the cluster is to know: submitit's parameters, options of Ray's tasks
    lost_seconds: float = 120.0  # on a cluster: after this time without a sign of life a cell is submitted again
    isolation: Literal["forkserver", "spawn", "fork", "inline"] = "forkserver"
    grace_seconds: float = 5.0  # between TERM and KILL
    __pydantic_config__ = _FORBID


SPECS: Mapping[str, type] = {
    "task": TaskSpec,
    "dataset": DatasetSpec,
    "method": MethodSpec,
    "suite": SuiteSpec,
    "fidelity": FidelitySpec,
    "executor": ExecutorSpec,
}


@dataclass(frozen=True)
class Request:
    """What the command line asks for. Lists are sweeps: every combination is run where it fits."""

    suite: str | None = None
    task: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()
    instance: tuple[str, ...] = ()
    method: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()
    fidelity: str | None = None
    device: str = "auto"
    devices: int = 1  # that compute each cell together
    precision: Literal["fp32", "bf16"] | None = None
    deterministic: bool = True
    suite_seed: int = 0
    executor: str = "local"
    slots: int | None = None
    timeout: float | None = None  # seconds, in place of the fidelity's
    results_dir: str = "results"
    plugins: tuple[str, ...] = ()
    nodes: dict[str, Any] = field(default_factory=dict)  # changes of single keys: "method.parameters.lr" -> value
    __pydantic_config__ = _FORBID
