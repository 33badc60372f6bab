"""The layout that makes the import paths work in every way of installing."""

from __future__ import annotations

import os
from pathlib import Path

import adlbench

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("benchmark", "methods", "datasets", "configs")


def test_four_links_point_to_the_folders() -> None:
    for name in FOLDERS:
        link = ROOT / "src" / "adlbench" / name
        assert link.is_symlink()
        assert os.readlink(link) == f"../../{name}"


def test_no_package_file_would_shadow_another_library() -> None:
    for name in FOLDERS:
        assert list((ROOT / name).glob("**/__init__.py")) == []


def test_arrows_point_one_way() -> None:
    """Methods and datasets know the contract, shared layers and readers, and nothing else of the engine."""
    allowed = ("adlbench.benchmark.api", "adlbench.methods", "adlbench.datasets")
    for folder in ("methods", "datasets"):
        for path in (ROOT / folder).glob("**/*.py"):
            for line in path.read_text().splitlines():
                if line.strip().startswith(("from adlbench.", "import adlbench.")):
                    assert line.split()[1].startswith(allowed), f"{path}: {line}"
    for path in (ROOT / "benchmark").glob("**/*.py"):
        if path.name.startswith("make_") or path.parent.name == "templates":  # scripts, and what authors start from
            continue
        text = path.read_text()
        assert "import adlbench.methods" not in text, path
        assert "from adlbench.methods" not in text, path
        assert "from adlbench.datasets" not in text, path


def test_only_one_module_imports_each_heavy_neighbour() -> None:
    importers: dict[str, set[str]] = {"mlflow": set(), "hydra": set(), "omegaconf": set()}
    for path in (ROOT / "benchmark").glob("**/*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in ("import", "from"):
                top = words[1].partition(".")[0]
                if top in importers:
                    importers[top].add(path.relative_to(ROOT).as_posix())
    assert importers["hydra"] == importers["omegaconf"] == {"benchmark/config.py"}
    assert importers["mlflow"] == {"benchmark/tracking.py"}


def test_contract_is_exported() -> None:
    assert adlbench.Method.__module__ == "adlbench.benchmark.api"
    for name in adlbench.__all__:
        assert getattr(adlbench, name) is not None
