"""The example of a plug-in installs as a package and takes part like what adlbench brings itself."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example, with its entry points."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


def adlbench(*arguments: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "adlbench.benchmark.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_it_is_listed(installed: Path, tmp_path: Path) -> None:
    listed = json.loads(adlbench("list", "--json", site=installed, cwd=tmp_path).stdout)
    text = json.dumps(listed)
    assert {name for name in ("linear_pixels", "linear_pixels_slow", "stripes") if f'"{name}"' in text} == {
        "linear_pixels", "linear_pixels_slow", "stripes",
    }  # fmt: skip


def test_it_runs_beside_the_methods_that_are_here(installed: Path, tmp_path: Path) -> None:
    done = adlbench(
        *("run", "task=classification", "dataset=stripes", "method=linear_pixels,linear_pixels_slow,majority_class"),
        *("fidelity=smoke", "--json"),
        site=installed,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (board,) = json.loads(done.stdout)["boards"]
    top1 = {row["method"]: row["metrics"]["top1"]["mean"] for row in board["rows"]}
    assert top1["majority_class"] == 0.25
    assert set(top1) == {"linear_pixels", "linear_pixels_slow", "majority_class"}


def test_it_keeps_the_contract(installed: Path, tmp_path: Path) -> None:
    done = adlbench(
        *("test", "linear_pixels", "--task", "classification", "--dataset", "stripes"), site=installed, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout
    assert "FAILED" not in done.stdout


def test_the_smallest_method_is_small() -> None:
    """At most 15 lines of Python and 8 of YAML: what is neither empty nor a docstring nor a comment."""
    source = (EXAMPLE / "adlbench_example" / "linear.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    docstring = tree.body[0]
    assert docstring.end_lineno is not None
    code = [line for line in source.splitlines()[docstring.end_lineno :] if line.strip()]
    assert len(code) <= 15
    yaml = (EXAMPLE / "adlbench_example" / "configs" / "method" / "linear_pixels.yaml").read_text(encoding="utf-8")
    assert len([line for line in yaml.splitlines() if line.strip() and not line.startswith("#")]) <= 8
