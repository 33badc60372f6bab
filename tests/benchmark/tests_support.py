"""A cell of the toy world, with any of its parts changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adlbench.benchmark.config import Catalog
from adlbench.benchmark.plan import CellSpec, plan
from adlbench.benchmark.specs import Request

CATALOG = Catalog(plugins=("toybench",))


def toy(method: str = "linear", dataset: dict[str, Any] | None = None, **changes: Any) -> CellSpec:
    """``budget`` and ``seed`` replace the cell's; everything else is a parameter of the method."""
    request = Request(task=("toy",), method=(method,), fidelity="smoke", device="cpu", plugins=("toybench",))
    cell = plan(request, CATALOG).cells[0]
    axes = {key: changes.pop(key) for key in ("budget", "seed") if key in changes}
    cell = replace(cell, parameters={**cell.parameters, **changes}, **axes)
    return replace(cell, dataset=replace(cell.dataset, parameters=dataset)) if dataset else cell
