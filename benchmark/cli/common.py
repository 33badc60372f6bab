"""What several verbs share."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


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


def duration(seconds: float | None) -> str:
    """``3:05``, ``1:02:03``, or a dash for what is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
