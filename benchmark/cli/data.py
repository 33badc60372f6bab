"""List, prepare and verify datasets.

adlbench data list
adlbench data prepare NAME...     download or generate, note the sha256 of the files; says what to put where when it cannot
adlbench data verify NAME...      compare the files with the notes, load both splits, print the fingerprint
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from adlbench.benchmark.cli.common import print_json

if TYPE_CHECKING:  # the help text does not wait for torch
    from adlbench.benchmark.specs import DatasetSpec


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "prepare", "verify"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets; default: all of them")
    parser.add_argument(
        "--renew", action="store_true", help="prepare: the files were changed on purpose, note them anew"
    )


def run(args: argparse.Namespace) -> int:
    from adlbench.benchmark.config import Catalog, build_dataset
    from adlbench.benchmark.errors import AdlbenchError, DataError
    from adlbench.benchmark.prepare.prepare import prepare, verify

    catalog = Catalog()
    specs = [catalog.spec("dataset", name) for name in args.names or catalog.names("dataset")]
    errors = _generate([spec for spec in specs if spec.generated]) if args.action == "prepare" else {}
    rows, failed = [], False
    for spec in specs:
        name, dataset = spec.name, build_dataset(spec)
        row: dict[str, object] = {
            "name": name,
            "title": spec.title,
            "generated": spec.generated,
            "licence": spec.licence,
        }
        try:
            if name in errors:
                raise DataError(errors[name])
            row["missing"] = dataset.missing()
            if args.action == "prepare" and (args.names or row["missing"] is None):
                row["notes"] = prepare(spec, dataset, _Bar(), args.renew)
                row["missing"] = None
            if row["missing"] is None and args.action == "verify":
                verified = verify(spec, dataset)
                row["instances"], row["notes"] = verified.instances, verified.notes
        except AdlbenchError as error:
            row["error"] = str(error)
        failed |= "error" in row or (bool(row.get("missing")) and bool(args.names))
        rows.append(row)
        if not args.json:
            _print(name, spec.title, row)
    if args.json:
        print_json(rows)
    return 1 if failed else 0


def _print(name: str, title: str, row: dict) -> None:  # type: ignore[type-arg]
    state = row.get("error") or (f"missing: {row['missing']}" if row["missing"] else "ready")
    print(f"{name:<20} {title}\n{'':<20} {state}")
    for instance, found in (row.get("instances") or {}).items():
        print(f"{'':<20} {instance}: {found['train']} train, {found['test']} test, sha256 {found['fingerprint'][:16]}")
    for note in row.get("notes") or ():
        print(f"{'':<20} note: {note}")


def _generate(specs: list[DatasetSpec]) -> dict[str, str]:
    """Make what is generated, several at once, with a line for each; what went wrong by dataset."""
    from adlbench.benchmark.prepare.generate import generate

    errors: dict[str, str] = {}
    for made in generate(specs):
        if sys.stderr.isatty():
            end = "\n" if made.done == made.total else ""
            line = f"{made.done}/{made.total} made, last {made.dataset} {made.instance}"
            print(f"\r\033[K{line}", end=end, file=sys.stderr, flush=True)
        if made.error:
            errors[made.dataset] = f"{made.instance}: {made.error}"
    return errors


class _Bar:
    """One line on the terminal, rewritten at each percent."""

    def __init__(self) -> None:
        self._shown = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        share = f"{100 * done // total} %" if total else f"{done >> 20} MiB"
        line = f"{what}: {share} of {total >> 20} MiB" if total else f"{what}: {share}"
        if line != self._shown and sys.stderr.isatty():
            print(f"\r{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        self._shown = line
