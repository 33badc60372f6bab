"""List suites, tasks, datasets and methods.

adlbench list                    everything, a line each
adlbench list method             one group
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from adlbench.benchmark.plugins import installed_config_folders

GROUPS = ("suite", "task", "dataset", "method", "fidelity", "executor")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("group", nargs="?", choices=GROUPS, help="only this group")


def run(args: argparse.Namespace) -> int:
    groups = [args.group] if args.group else list(GROUPS)
    listing = {group: _nodes(group) for group in groups}
    if args.json:
        print(json.dumps(listing, indent=1))
        return 0
    for group, nodes in listing.items():
        print(f"{group}s:" if group != "fidelity" else "fidelities:")
        width = max((len(name) for name in nodes), default=0)
        for name, text in nodes.items():
            print(f"  {name:<{width}}  {text}")
    return 0


def _nodes(group: str) -> dict[str, str]:
    """Name -> one line, read straight from the YAML files: nothing is composed or imported here."""
    folders = [Path(__file__).resolve().parents[2] / "configs", *installed_config_folders()]
    paths = {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}
    return {name: _line(paths[name]) for name in sorted(paths)}


def _line(path: Path) -> str:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        node: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except yaml.YAMLError:
        return "(not valid YAML; `adlbench plan` says where)"
    if not isinstance(node, dict):
        return "(empty)"
    title, description = str(node.get("title", "")), str(node.get("description", ""))
    trivial = " (trivial)" if node.get("trivial") else ""
    return (title or description) + trivial
