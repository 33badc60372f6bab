"""Saved baselines through the command line: what a check answers, and what every wrong use is answered with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adlbench.benchmark.cell import run_cell
from adlbench.benchmark.cli import baseline as baseline_verb
from adlbench.benchmark.cli.main import main
from adlbench.benchmark.regression import baseline

REQUEST = ["task=coins", "plugins=gateworld", "fidelity=short", "device=cpu", "seed=range(0,5)"]


@pytest.fixture(autouse=True)
def _clean_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    version = {"version": "1", "commit": "c" * 40, "dirty": False}
    monkeypatch.setattr("adlbench.benchmark.environment.code_version", lambda: version)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    for cell in baseline_verb.plan_cells(None, REQUEST):
        run_cell(cell, cell.folder(folder))
    return folder


@pytest.fixture
def saved(tmp_path: Path, records: Path) -> Path:
    """A folder with one baseline, ``before``, and its records in ``first``."""
    shutil.copytree(records, tmp_path / "first")
    assert main(["baseline", "save", "before", *REQUEST, "--records", "first", "--folder", "baselines"]) == 0
    return tmp_path


def test_equal_records_pass_at_once_and_speed_is_information(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--baseline", "before", "--folder", "baselines", "--records", "first"]) == 0
    told = capsys.readouterr().out
    assert "equal to the bit" in told
    assert "for information" in told
    assert json.loads((saved / "results/gate/check.json").read_text())["exit_code"] == 0
    assert "<testsuite" in (saved / "results/gate/check-junit.xml").read_text()


def edit(folder: Path, **values: Any) -> None:
    """Change what every record below ``folder`` says."""
    for path in folder.glob("**/record.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edited(saved: Path, **values: Any) -> str:
    shutil.copytree(saved / "first", saved / "second")
    edit(saved / "second", **values)
    return "second"


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"protocol": "top1@2"}, 2, "protocol top1@1 against top1@2"),
        ({"data_fingerprint": "f" * 64}, 2, "other data, fingerprint"),
        ({"hardware": "Another CPU, 64 threads"}, 2, "another hardware class"),
        (
            {"status": "diverged", "reason": "loss not finite"},
            2,
            "ended diverged in the second side only: loss not finite",
        ),
        ({"metrics": {"top1": 0.5, "nll": 1.0}}, 1, "worse by"),
        ({"metrics": {"nll": 1.0}}, 2, "top1: one side gives a value and the other none"),
    ],
)
def test_what_differs_is_answered(
    saved: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], code: int, words: str
) -> None:
    second = edited(saved, **values)
    assert main(["check", "--baseline", "before", "--folder", "baselines", "--records", second]) == code
    assert words in capsys.readouterr().out


def test_missing_cells_could_not_run_and_missing_seeds_are_inconclusive(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--baseline", "before", "--folder", "baselines", "--records", "nowhere"]) == 2
    assert "the cell is gone" in capsys.readouterr().out
    second = saved / edited(saved, metrics={"top1": 0.5, "nll": 1.0})
    for path in sorted(second.glob("**/record.json"))[:2]:
        path.unlink()
    assert main(["check", "--baseline", "before", "--folder", "baselines", "--records", "second"]) == 3
    assert "3 shared seeds; 5 are needed" in capsys.readouterr().out


def test_stored_speed_is_a_verdict_only_when_asked_for(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(saved / "baselines", train_cpu_seconds=1.0)
    second = edited(saved, train_cpu_seconds=1.5)
    arguments = ["check", "--baseline", "before", "--folder", "baselines", "--records", second]
    assert main(arguments) == 0
    assert main([*arguments, "--speed"]) == 1
    assert "+50.0 % CPU time a step" in capsys.readouterr().out


def test_unknown_baseline_names_the_nearest(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--baseline", "befor", "--folder", "baselines"]) == 2
    assert "did you mean 'before'?" in capsys.readouterr().err
    assert main(["check", "--baseline", "x", "--folder", "elsewhere"]) == 2
    assert "save one with: adlbench baseline save x --suite gate" in capsys.readouterr().err
    assert main(["check", "--baseline", "../before", "--folder", "baselines"]) == 2


def test_damaged_baseline_is_named(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved / "baselines/before/baseline.json").write_text("{")
    assert main(["check", "--baseline", "before", "--folder", "baselines"]) == 2
    assert "not a baseline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["save"], "a name is missing"),
        (["save", "../x", *REQUEST, "--records", "first"], "letters, digits"),
        (["save", "x", *REQUEST[:-1], "seed=0,1", "--records", "first"], "2 seeds: a verdict on accuracy needs 5"),
        (["save", "x", *REQUEST, "--records", "nowhere"], "no record below nowhere"),
        (["save", "x", "task=coin", "plugins=gateworld"], "did you mean 'coins'?"),
        (["save", "x", "task=coins", "dataset=digits", "plugins=gateworld"], "no pair fits"),
    ],
)
def test_wrong_use_of_save(saved: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["baseline", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_dirty_trees_are_refused(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = {"version": "1", "commit": "c" * 40, "dirty": True}
    monkeypatch.setattr("adlbench.benchmark.environment.code_version", lambda: version)
    assert main(["baseline", "save", "x", *REQUEST, "--records", "first"]) == 2
    arguments = ["check", "--baseline", "before", "--folder", "baselines", "--records", "first"]
    assert main(arguments) == 2
    assert "uncommitted changes" in capsys.readouterr().err
    assert main([*arguments, "--allow-dirty"]) == 0


def test_failed_cells_make_no_baseline(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = edited(saved, status="timeout", reason="no end after 5 s")
    assert main(["baseline", "save", "x", *REQUEST, "--records", second, "--folder", "baselines"]) == 2
    assert "timeout (no end after 5 s)" in capsys.readouterr().err
    assert baseline.names(saved / "baselines") == ["before"]


@pytest.mark.slow
def test_save_and_check_run_the_cells_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "save", "before", *REQUEST]) == 0
    assert main(["check", "--baseline", "before"]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    assert main(["baseline", "list"]) == 0
    assert capsys.readouterr().out.strip() == "before"
