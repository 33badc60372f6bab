"""Every test runs away from the user's data, results and tracking server."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS / "datasets"))  # `formats_*`
sys.path.insert(0, str(TESTS / "benchmark"))  # the plug-in package `toybench`
sys.path.append(str(TESTS / "benchmarks"))  # `make_large_store`
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS / "benchmark"), os.environ.get("PYTHONPATH", "")]).rstrip(
    os.pathsep
)
# `fuzz_formats` by its file: with tests/ on the path, tests/datasets would pass for Hugging Face's package
_spec = importlib.util.spec_from_file_location("fuzz_formats", TESTS / "fuzz_formats.py")
assert _spec is not None
assert _spec.loader is not None
sys.modules["fuzz_formats"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["fuzz_formats"])
os.environ.pop("MLFLOW_TRACKING_URI", None)
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
