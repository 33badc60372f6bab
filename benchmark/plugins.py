"""Packages outside of this one that bring methods and datasets: where their YAML files are. Imports none of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path

ENTRY_POINTS = ("adlbench.methods", "adlbench.datasets")


def installed_packages() -> tuple[str, ...]:
    """Top-level packages that installed distributions name in adlbench's entry points."""
    points = [point for group in ENTRY_POINTS for point in importlib.metadata.entry_points(group=group)]
    return tuple(sorted({point.value.partition(":")[0].partition(".")[0] for point in points}))


def config_folders(package: str) -> list[Path] | None:
    """The folders ``configs`` of a package, of which a namespace package may have several; None when it is not there."""
    found = importlib.util.find_spec(package)
    if found is None:
        return None
    roots = [Path(root) for root in found.submodule_search_locations or ()]
    return [root / "configs" for root in roots if (root / "configs").is_dir()]


def installed_config_folders(packages: Sequence[str] | None = None) -> list[Path]:
    """Of all installed plug-ins that can be found."""
    names = installed_packages() if packages is None else packages
    return [folder for name in names for folder in config_folders(name) or ()]
