"""The same seed on the same CPU gives the same record to the bit: four paradigms, in processes of their own."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import pytest

from adlbench.benchmark.config import Catalog
from adlbench.benchmark.execution.base import make_executor
from adlbench.benchmark.plan import plan
from adlbench.benchmark.records import Record, read_arrays, read_record
from adlbench.benchmark.specs import Request

CATALOG = Catalog()
TIMED = {"started", "accounts", "latency", "throughput", "environment", "code", "notes"}
TIMED |= {name for name in Record.__dataclass_fields__ if name.endswith(("_seconds", "_mb"))}
CELLS = {
    "feed-forward": ("classification", "cnn", "digits"),
    "per scene": ("novel_view_synthesis", "gaussian_splatting", "tabletop"),
    "adversarial": ("generation", "dcgan", "digits"),
    "auto-decoder": ("shape_reconstruction", "deepsdf", "furniture_shapes"),
}


@pytest.mark.parametrize("paradigm", CELLS)
def test_same_seed_same_record(paradigm: str, tmp_path: Path) -> None:
    task, method, dataset = CELLS[paradigm]
    request = Request(task=(task,), method=(method,), dataset=(dataset,), fidelity="smoke", device="cpu")
    cell = plan(request, CATALOG).cells[0]
    outcomes = []
    for name in ("first", "second"):
        results = tmp_path / name
        make_executor(CATALOG.spec("executor", "local"), 1).run([cell], results, lambda event: None)
        folder = cell.folder(results)
        record = read_record(folder)
        assert record.status == "done", record.reason
        files = {"items": read_arrays(folder / "items.npz"), "predictions": read_arrays(folder / "predictions.npz")}
        arrays = {
            f"{file}/{key}": (value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest())
            for file, found in files.items()
            for key, value in found.items()
        }
        outcomes.append(({key: value for key, value in asdict(record).items() if key not in TIMED}, arrays))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1]
