"""Leaderboards: statistics against scipy, ranks, groups that never mix, formats that escape what they print."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from adlbench.benchmark.leaderboard.board import boards
from adlbench.benchmark.leaderboard.export import csv_text, json_text, write_boards
from adlbench.benchmark.leaderboard.statistics import differs, shared_ranks, t_interval
from adlbench.benchmark.leaderboard.tables import markdown, number, print_boards

METRICS = {
    "psnr": {"direction": "up", "unit": "dB", "primary": True, "margin": None},
    "lpips": {"direction": "down", "unit": "", "primary": False, "margin": None},
}


def frame(*cells: dict[str, Any]) -> pd.DataFrame:
    base = {
        "task": "nvs",
        "protocol": "p@1",
        "dataset": "scene",
        "instance": "all",
        "fidelity": "short",
        "seed": 0,
        "hardware": "cpu",
        "precision": "fp32",
        "fingerprint": "aa",
        "status": "done",
        "trivial": False,
        "throughput_unit": "rays",
        "metric_specs": json.dumps(METRICS),
        "references": "[]",
        "absent": "{}",
    }
    return pd.DataFrame([{**base, "cell_key": str(index), **cell} for index, cell in enumerate(cells)])


def test_t_interval_equals_scipy() -> None:
    values = [30.1, 30.7, 29.8]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx((high - low) / 2)
    assert math.isnan(t_interval([1.0]))


def test_ranks_are_shared_where_the_difference_is_not_significant() -> None:
    values = {
        "best": {0: 30.0, 1: 31.0, 2: 30.5},
        "as_good": {0: 30.2, 1: 30.7, 2: 30.4},
        "worse": {0: 20.0, 1: 21.1, 2: 20.4},
    }
    assert shared_ranks(values, "up") == {"best": 1, "as_good": 1, "worse": 3}
    assert shared_ranks(values, "down") == {"worse": 1, "as_good": 2, "best": 2}
    assert shared_ranks({"a": {0: 1.0}, "b": {0: 2.0}}, "up") == {"b": 1, "a": 2}


def test_pairing_by_seed_finds_what_the_spread_hides() -> None:
    a, b = {0: 10.0, 1: 20.0, 2: 30.0}, {0: 10.5, 1: 20.52, 2: 30.49}
    assert stats.ttest_ind(list(a.values()), list(b.values())).pvalue > 0.9
    assert differs(a, b)
    assert not differs(a, dict(a))


@pytest.mark.parametrize(
    ("axis", "value"),
    [("fidelity", "smoke"), ("hardware", "gpu"), ("protocol", "p@2"), ("fingerprint", "bb")],
)
def test_what_is_not_comparable_never_shares_a_table(axis: str, value: str) -> None:
    found = boards(frame({"method": "a", "metric.psnr": 30.0}, {"method": "b", "metric.psnr": 31.0, axis: value}))
    assert len(found) == 2
    assert all(len(board.rows) == 1 and axis in board.split_because for board in found)


def test_another_precision_is_another_row() -> None:
    found = boards(
        frame({"method": "a", "metric.psnr": 30.0}, {"method": "a", "metric.psnr": 31.0, "precision": "bf16"})
    )
    assert [row.method for row in found[0].rows] == ["a bf16", "a"]


def test_mean_over_instances_then_interval_over_seeds() -> None:
    cells = [
        {"method": "a", "instance": i, "seed": s, "metric.psnr": v, "fingerprint": i}
        for i, s, v in [("x", 0, 20.0), ("y", 0, 30.0), ("x", 1, 22.0), ("y", 1, 32.0), ("x", 2, 90.0)]
    ]
    row = boards(frame(*cells))[0].rows[0]
    assert row.metrics["psnr"].mean == pytest.approx(26.0)  # seed 2 lacks an instance: it is left out
    assert row.metrics["psnr"].n == 2
    assert row.metrics["psnr"].interval == pytest.approx(t_interval([25.0, 27.0]))


def test_gaps_are_positive_when_better_in_either_direction() -> None:
    specs = json.dumps({"lpips": {"direction": "down", "unit": "", "primary": True, "margin": None}})
    references = json.dumps([{"method": "a", "dataset": "scene", "lpips": 0.3, "source": "table 1"}])
    found = boards(
        frame(
            {"method": "a", "metric.lpips": 0.2, "metric_specs": specs, "references": references},
            {"method": "t", "metric.lpips": 0.5, "trivial": True, "metric_specs": specs, "references": references},
        )
    )
    row = found[0].rows[0]
    assert (row.gap_to_trivial, row.gap_to_reference) == (pytest.approx(0.3), pytest.approx(0.1))


def test_failed_cells_are_shown_and_not_averaged() -> None:
    found = boards(
        frame({"method": "a", "status": "failed", "fingerprint": ""}, {"method": "a", "seed": 1, "metric.psnr": 30.0})
    )
    assert len(found) == 1
    assert found[0].rows[0].failures == {"failed": 1}
    assert found[0].rows[0].n == 1


EVIL = '<script>alert(1)</script>|[red]=HYPERLINK("x")'


def test_every_format_escapes_names(tmp_path: Path) -> None:
    found = boards(frame({"method": EVIL, "metric.psnr": 30.0, "dataset": "=1+1"}))
    text = markdown(found)
    assert "<script>" not in text
    assert "\\|" in text
    console = Console(file=io.StringIO(), width=250)
    print_boards(found, console)
    assert "[red]" in console.file.getvalue()  # type: ignore[attr-defined]
    rows = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert rows[0]["dataset"] == "'=1+1"
    assert rows[0]["method"] == EVIL
    assert json.loads(json_text(found))["boards"][0]["rows"][0]["method"] == EVIL
    assert {path.suffix for path in write_boards(found, tmp_path)} == {".csv", ".md", ".tex", ".json"}


def test_absent_metric_says_why() -> None:
    found = boards(frame({"method": "a", "metric.psnr": 30.0, "absent": json.dumps({"lpips": "no weights"})}))
    assert "lpips: n/a for a: no weights" in markdown(found)


def test_numbers_keep_four_digits() -> None:
    cases = [
        (0.98612, "0.9861"),
        (31.0149, "31.01"),
        (12345.6, "12,346"),
        (1e-5, "1.00e-05"),
        (0.0, "0"),
        (None, "-"),
    ]
    assert [number(value) for value, _ in cases] == [text for _, text in cases]
