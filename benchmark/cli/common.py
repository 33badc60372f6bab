"""What several verbs share."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from adlbench.benchmark.durations import duration

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["add_overrides", "duration", "make_console", "print_json"]


def add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDES", help="e.g. suite=demo, or task=classification method=vit,cnn"
    )


def make_console(*, to_stderr: bool = False) -> Console:
    """A rich console that is wide enough for tables where nobody sees its width: in a pipe, a file, CI."""
    from rich.console import Console

    console = Console(stderr=to_stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 200
    return console


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))
