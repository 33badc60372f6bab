"""adlbench: a declarative benchmark suite for visual computing.

The contract is re-exported lazily, so that ``import adlbench`` (and the command line) does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from adlbench.benchmark.api import *  # noqa: F403

_CONTRACT = (
    "AbsentSplit",
    "Adapts",
    "AdlbenchError",
    "ArraySplit",
    "Batch",
    "Budget",
    "Cameras",
    "Context",
    "DataError",
    "DataSchema",
    "Dataset",
    "Method",
    "Modality",
    "Predictor",
    "PredictsLogits",
    "Queries",
    "Reconstructs",
    "Rendering",
    "Renders",
    "Samples",
    "ScoresLikelihood",
    "Split",
    "TaskKind",
    "TrainingData",
    "data_cache",
    "data_root",
)

__all__ = [*_CONTRACT, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _CONTRACT:
        from adlbench.benchmark import api

        return getattr(api, name)
    raise AttributeError(f"module 'adlbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
