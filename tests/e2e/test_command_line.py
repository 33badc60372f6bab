"""The command line as a user meets it: real processes, real MLflow store, real leaderboards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ARGUMENTS = ["task=toy", "plugins=toybench", "fidelity=smoke", "results_dir=out"]


def adlbench(*arguments: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "adlbench.benchmark.cli.main", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False, env=environment
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("work")
    return folder, adlbench("run", *ARGUMENTS, cwd=folder)


def test_run_prints_and_writes_the_leaderboard(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = ran
    assert done.returncode == 0, done.stderr
    assert "toy on blobs" in done.stdout
    assert "2 cells run, 0 cached, 0 not done" in done.stdout
    assert "mlflow ui --backend-store-uri sqlite:///" in done.stdout
    assert "[1/2]" in done.stdout  # one plain line a cell where there is no terminal
    for suffix in ("csv", "md", "json"):
        assert (folder / "out" / "leaderboard" / f"leaderboard.{suffix}").stat().st_size > 100
    assert done.stderr == ""


def test_second_run_is_cached(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = ran
    done = adlbench("run", *ARGUMENTS, "--json", cwd=folder)
    answer = json.loads(done.stdout)
    assert (answer["ran"], answer["cached"], answer["failed"]) == ({}, 2, [])
    assert answer["boards"][0]["rows"][0]["method"] == "linear"


def test_plan_shows_what_is_cached_and_what_does_not_fit(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = ran
    answer = json.loads(adlbench("plan", *ARGUMENTS, "method=linear,cnn", "seed=0,1", "--json", cwd=folder).stdout)
    assert [cell["cached"] for cell in answer["cells"]] == ["done", None]
    assert answer["skipped"][0]["method"] == "cnn"
    assert "points" in answer["skipped"][0]["reason"]


def test_evaluate_recomputes_the_record(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = ran
    record = next((folder / "out" / "runs").glob("toy/blobs/linear/**/record.json")).parent
    # the plug-in is importable but not registered: a folder is trusted no more than a YAML file, the command line is
    refused = adlbench("evaluate", str(record), cwd=folder)
    assert refused.returncode == 2
    assert "allowed packages" in refused.stderr
    done = adlbench("evaluate", str(record), "--plugins", "toybench", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["differing"] == {}


def test_leaderboard_filters(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = ran
    done = adlbench("leaderboard", "results_dir=out", "method=linear", "--json", cwd=folder)
    assert [row["method"] for row in json.loads(done.stdout)["boards"][0]["rows"]] == ["linear"]
    refused = adlbench("leaderboard", "results_dir=out", "metod=linear", cwd=folder)
    assert refused.returncode == 2
    assert "metod" in refused.stderr


def test_failed_cell_is_exit_code_1_and_the_rest_runs(tmp_path: Path) -> None:
    done = adlbench("run", *ARGUMENTS, "method.parameters.misbehave=raises", "method=linear", "seed=0,1", cwd=tmp_path)
    assert done.returncode == 1
    assert "no luck today" in done.stdout
    assert "2 cells run" in done.stdout


def test_a_killed_runner_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "adlbench.benchmark.cli.main",
        "run",
        *ARGUMENTS,
        "method=linear",
        "budget.seconds=100",
    ]
    runner = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    logs: list[Path] = []
    limit = time.monotonic() + 120
    while not logs and time.monotonic() < limit:
        time.sleep(0.5)
        logs = list(tmp_path.glob("out/runs/**/log.txt"))
    assert logs
    runner.kill()
    runner.wait()
    while _users_of(logs[0]) and time.monotonic() < limit:
        time.sleep(0.5)
    assert _users_of(logs[0]) == []


def _users_of(file: Path) -> list[str]:
    """Processes that have ``file`` open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        with contextlib.suppress(OSError):
            if link.readlink() == file:
                found.append(link.parts[2])
    return found


def test_wrong_verb_is_answered_with_the_nearest(tmp_path: Path) -> None:
    done = adlbench("runn", cwd=tmp_path)
    assert done.returncode == 2
    assert "'run'" in done.stderr


def test_nothing_to_run_says_why(tmp_path: Path) -> None:
    done = adlbench("run", *ARGUMENTS, "method=cnn", cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing to run" in done.stderr


@pytest.mark.parametrize("verb", ["list", "doctor"])
def test_other_verbs_speak_json(verb: str, tmp_path: Path) -> None:
    done = adlbench(verb, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    json.loads(done.stdout)
