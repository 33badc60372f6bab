"""Every test runs away from the user's data, results and tracking server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "datasets")]  # `fuzz_formats`, `formats_*`
sys.path.insert(0, str(TESTS / "benchmark"))  # the plug-in package `toybench`
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS / "benchmark"), os.environ.get("PYTHONPATH", "")]).rstrip(
    os.pathsep
)
os.environ.pop("MLFLOW_TRACKING_URI", None)
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
