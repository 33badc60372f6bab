"""Exports: LaTeX, JSON with its schema, intervals, the comparison with papers, summaries across tables."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from report_world import EVIL, make_world
from rich.console import Console

from adlbench.benchmark.leaderboard.board import Value, boards, full_boards
from adlbench.benchmark.leaderboard.export import json_schema, json_text, latex
from adlbench.benchmark.leaderboard.references import compare_with_references, print_comparisons, verdict
from adlbench.benchmark.leaderboard.summary import seconds_to_target, summaries, target_quality
from adlbench.benchmark.leaderboard.tables import with_interval


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return make_world(tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize(
    ("mean", "interval", "text"),
    [
        (0.98611, 0.00691, "0.9861 ± 0.0069"),
        (0.0016, 0.000041, "0.001600 ± 0.000041"),
        (1016.2, 170.4, "1,016 ± 170"),
        (0.2793, 0.24, "0.28 ± 0.24"),
        (0.1, 4e-17, "0.1000 ± 0"),
        (2.3e-5, 1.1e-6, "2.30e-05 ± 1.1e-06"),
        (31.0149, None, "31.01"),
        (3.0e7, 1.2e6, "3.00e+07 ± 1.2e+06"),
    ],
)
def test_intervals_keep_two_digits(mean: float, interval: float | None, text: str) -> None:
    assert with_interval(Value(mean, interval, 3)) == text


def test_latex_marks_the_best_and_escapes(frame: pd.DataFrame) -> None:
    text = latex(boards(frame))
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(boards(frame))
    scene = next(part for part in text.split(r"\begin{table}") if "nvs on scene, short" in part and "blurred" in part)
    lines = {line.split(" & ")[1].split(" $")[0]: line for line in scene.splitlines() if " & " in line}
    assert r"\textbf{" in lines[r"also\_sharp"] + lines["sharp"]
    assert r"\underline{" in lines[r"also\_sharp"] + lines["sharp"]
    assert r"\textbf" not in lines["blurred"].split(" & ")[2]
    assert r"$\pm$" in lines["blurred"]
    assert r"\textless{}script\textgreater{}" in text
    assert EVIL not in text
    body = re.sub(r"\\.|\$[^$]*\$", "", text)
    assert not re.search(r"[_#^~]", body)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(frame: pd.DataFrame, tmp_path: Path) -> None:
    document = r"\documentclass{article}\usepackage{booktabs}\usepackage[T1]{fontenc}\begin{document}" + latex(
        boards(frame)
    )
    (tmp_path / "a.tex").write_text(document + r"\end{document}", encoding="utf-8")
    subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_json_follows_its_schema(frame: pd.DataFrame) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema, value = json_schema(), json.loads(json_text(boards(frame)))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema)
    value["boards"][0]["rows"][0]["rank"] = "first"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema)


@pytest.mark.parametrize(
    ("gap", "status"),
    [(0.5, "reproduces"), (-0.1, "reproduces"), (-0.11, "close"), (-0.3, "close"), (-0.31, "differs")],
)
def test_verdicts(gap: float, status: str) -> None:
    assert verdict(gap, 0.1) == status


def test_comparison_with_papers(frame: pd.DataFrame) -> None:
    references = [
        {"method": "sharp", "dataset": "scene", "psnr": 33.0, "lpips": 0.2, "source": EVIL, "note": "larger"},
        {"method": "blurred", "dataset": "scene", "psnr": 40.0, "source": "table 2"},
        {"method": "sharp", "dataset": "attic", "psnr": 30.0, "source": "table 3"},
        {"method": "sharp", "dataset": "scene", "instance": "lego", "psnr": 30.0, "source": "table 4"},
    ]
    found = compare_with_references([("nvs", SimpleNamespace(references=references))], frame)
    statuses = [(line.method, line.dataset, line.metric, line.fidelity, line.status) for line in found]
    assert ("sharp", "scene", "psnr", "full", "reproduces") in statuses  # 35 is better than 33
    assert ("blurred", "scene", "psnr", "short", "differs") in statuses
    assert ("sharp", "attic", "psnr", "", "not run") in statuses
    assert ("sharp", "scene/lego", "psnr", "", "not run") in statuses
    short = next(
        line for line in found if line.method == "sharp" and line.fidelity == "short" and line.metric == "psnr"
    )
    assert short.reproduced is not None
    assert short.gap == pytest.approx(short.reproduced.mean - 33.0)
    assert short.tolerance == pytest.approx(max(0.02 * 33, short.reproduced.interval or 0))
    console = Console(file=io.StringIO(), width=200)
    print_comparisons(found, console)
    assert EVIL in console.file.getvalue()  # type: ignore[attr-defined]


def test_summary_across_tables(frame: pd.DataFrame) -> None:
    found = full_boards(frame)
    (summary,) = summaries([(each.board, each.values) for each in found], replicates=200)
    assert sorted(summary.datasets) == ["hall", "scene"]
    assert set(summary.methods) >= {"sharp", "blurred", "nearest", "also_sharp"}
    place = {method: index for index, method in enumerate(summary.methods)}
    assert summary.mean_rank[place["nearest"]].value == 4.0
    assert summary.mean_rank[place["blurred"]].value == 3.0
    assert summary.iqm[place["nearest"]].value == pytest.approx(0, abs=0.05)  # the trivial method is 0
    assert summary.iqm[place["sharp"]].value == pytest.approx(1, abs=0.1)
    assert all(e.low <= e.value <= e.high for e in summary.mean_rank + summary.iqm)
    assert summary.profile[place["nearest"]][0] == 0.0  # eleven dB are more than a factor of ten
    scene = next(
        each
        for each in found
        if each.board.dataset == "scene" and each.board.fidelity == "short" and len(each.values) > 2
    )
    target = target_quality(scene.board)
    assert target == pytest.approx(20 + 0.9 * 11, abs=0.5)
    seconds = seconds_to_target([(scene.board, scene.values)], ["sharp", "blurred"])
    assert np.isfinite(seconds[0, 0])
    assert np.isnan(seconds[1, 0])


def test_pareto_fronts_of_a_board(frame: pd.DataFrame) -> None:
    board = next(b for b in boards(frame) if b.dataset == "hall" and len(b.rows) > 3)
    by_name = {row.method: row for row in board.rows}
    for cost, front in board.pareto.items():
        assert board.rows[0].method in front or cost != "train_seconds"
    best = max((r for r in by_name.values() if "psnr" in r.metrics), key=lambda r: r.metrics["psnr"].mean)
    assert all(best.method in front for front in board.pareto.values())
