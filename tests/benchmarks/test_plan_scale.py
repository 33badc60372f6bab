"""A plan of a hundred thousand cells: made, filtered, resumed and summarised in ten seconds and a gigabyte each.

`ADLBENCH_CELLS=100000 python -m pytest -m slow -s tests/benchmarks/test_plan_scale.py`; seconds are of this process's
CPU, which holds on a machine that is busy with other things.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adlbench.benchmark.config import Catalog
from adlbench.benchmark.plan import CellSpec, Plan, plan
from adlbench.benchmark.records import Index, Record
from adlbench.benchmark.runner import Selection, select
from adlbench.benchmark.schedule import History, estimated, fit
from adlbench.benchmark.specs import Request

CELLS = int(os.environ.get("ADLBENCH_CELLS", "100000"))
METHODS = ("linear", "toy_majority")


def _timed(what: str, function: Callable[[], object], limit: float) -> object:
    begin = time.process_time()
    result = function()
    seconds = time.process_time() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{what:<44} {seconds:6.2f} s CPU, {memory:5.0f} MB peak of the process", end="")
    assert seconds <= limit * max(1.0, CELLS / 100_000), what
    assert memory <= 1024
    return result


def _record(results: Path, cell: CellSpec, template: str) -> None:
    """What a finished cell leaves, as far as a scan looks at it; the same text but for the names."""
    folder = cell.folder(results)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(template.replace("CELL_KEY", cell.key).replace("CELL_NAME", cell.name))


@pytest.mark.slow
def test_plan_and_scan_of_a_large_matrix(tmp_path: Path) -> None:
    seeds = tuple(range(CELLS // len(METHODS)))
    request = Request(task=("toy",), method=METHODS, seed=seeds, fidelity="smoke", device="cpu", plugins=("toybench",))
    catalog = Catalog(plugins=("toybench",))
    made = _timed("plan", lambda: plan(request, catalog), 10)
    assert isinstance(made, Plan)
    assert len(made.cells) == CELLS
    _timed("keys", lambda: [cell.key for cell in made.cells], 10)
    _timed("resume scan of an empty folder", lambda: select(made, tmp_path), 10)
    chosen = _timed("filter by name", lambda: select(made, tmp_path, only=["*/seed7"]), 10)
    assert isinstance(chosen, Selection)
    assert len(chosen.run) == len(METHODS)

    values = dict.fromkeys(("task", "kind", "protocol", "dataset", "instance", "method", "fidelity"), "")
    record = Record("CELL_KEY", "CELL_NAME", "done", **values, seed=0, started="2026-01-01T00:00:00.000+00:00")
    record.wall_seconds = 3.0
    record.notes = {"what a record of a real cell says besides": "x" * 6500}  # such records hold about 8 KB
    template = json.dumps(vars(record))
    for cell in made.cells:
        _record(tmp_path, cell, template)

    def first_scan() -> Index:
        index = Index(tmp_path)
        index.save()
        return index

    _timed("index made from all records, once", first_scan, 10)
    index = _timed("index read", lambda: Index(tmp_path), 10)
    assert isinstance(index, Index)
    selection = _timed("resume scan, all done", lambda: select(made, tmp_path, index=index), 10)
    assert isinstance(selection, Selection)
    assert len(selection.cached) == CELLS
    history = _timed("history", lambda: History(index), 10)
    assert isinstance(history, History)
    answer = _timed("estimate", lambda: estimated(made.cells, history, 16), 10)
    assert isinstance(answer, tuple)
    assert answer[0] == pytest.approx(3.0 * CELLS / 16, rel=0.01)
    _timed("what fits into a day", lambda: fit(made.cells, history, 16, 3600.0), 10)
    print()
