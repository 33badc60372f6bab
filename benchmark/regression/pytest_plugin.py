"""A pytest plug-in: hold a method to a metric in its own test-suite. Loaded through the entry point ``pytest11``.

    @pytest.mark.adlbench_gate
    def test_digits(adlbench_cell):
        assert adlbench_cell("task=classification method=mine dataset=digits").metric("top1") >= 0.97

The marker lets such tests be chosen and left out (``-m adlbench_gate``, ``-m "not adlbench_gate"``). A cell is run once in a
session, however many tests ask for it. Nothing heavy is imported before a test asks for a cell.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from adlbench.benchmark.records import Record


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "adlbench_gate: holds a method to a metric by running benchmark cells")


@dataclass(frozen=True)
class CellOutcome:
    """The finished cells of one request; they differ by seed only."""

    request: str
    records: tuple[Record, ...]

    def metric(self, name: str) -> float:
        """The metric's mean over the seeds. Raises AdlbenchError for a metric that the cell does not have."""
        from adlbench.benchmark.config import nearest
        from adlbench.benchmark.errors import AdlbenchError

        for record in self.records:
            if name not in record.metrics:
                why = record.absent.get(name)
                raise AdlbenchError(
                    f"{record.name} has no {name!r}" + (f": {why}" if why else nearest(name, record.metrics))
                )
        return sum(record.metrics[name] for record in self.records) / len(self.records)

    @property
    def throughput(self) -> float | None:
        """Samples per second of training, mean over seeds: for the log, since absolute times do not hold on shared machines."""
        known = [record.throughput for record in self.records if record.throughput is not None]
        return sum(known) / len(known) if known else None


@pytest.fixture(scope="session")
def adlbench_cell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CellOutcome]:
    """Runs the cell that the overrides mean (as on the command line) and returns its outcome; a cell that fails fails the test."""
    finished: dict[str, Any] = {}

    def outcome(request: str) -> CellOutcome:
        from adlbench.benchmark.cell import run_cell
        from adlbench.benchmark.config import Catalog, parse_request
        from adlbench.benchmark.errors import AdlbenchError
        from adlbench.benchmark.plan import plan

        parsed = parse_request(shlex.split(request))
        found = plan(parsed, Catalog(plugins=parsed.plugins))
        groups = {cell.name.rpartition("/")[0] for cell in found.cells}
        if len(groups) != 1:
            reasons = "; ".join(f"{s.dataset} with {s.method}: {s.reason}" for s in found.skipped[:3])
            said = f"{', '.join(sorted(groups))}; name one task, dataset, instance and method" if groups else reasons
            raise AdlbenchError(f"{request!r} means {len(groups)} cells: {said}")
        for cell in found.cells:
            if cell.key not in finished:
                finished[cell.key] = run_cell(cell, tmp_path_factory.mktemp("adlbench") / cell.key)
            record = finished[cell.key]
            if record.status != "done":
                pytest.fail(f"{record.name} ended {record.status}: {record.reason}", pytrace=False)
        return CellOutcome(request, tuple(finished[cell.key] for cell in found.cells))

    return outcome
