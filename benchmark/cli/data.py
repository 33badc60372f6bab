"""List, prepare and verify datasets.

adlbench data list
adlbench data prepare NAME...     download or generate; says what to put where when it cannot
adlbench data verify NAME...      load both splits, check them against the schema, print the fingerprint
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "prepare", "verify"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets; default: all of them")


def run(args: argparse.Namespace) -> int:
    from adlbench.benchmark.api import AdlbenchError
    from adlbench.benchmark.config import Catalog, build_dataset

    catalog = Catalog()
    rows, failed = [], False
    for name in args.names or catalog.names("dataset"):
        spec = catalog.spec("dataset", name)
        dataset = build_dataset(spec)
        row: dict[str, object] = {
            "name": name,
            "title": spec.title,
            "generated": spec.generated,
            "licence": spec.licence,
        }
        try:
            if args.action == "prepare":
                dataset.prepare()
            row["missing"] = dataset.missing()
            if row["missing"] is None and args.action == "verify":
                row["instances"] = {instance: _verify(dataset, instance) for instance in dataset.instances()}
        except AdlbenchError as error:
            row["error"] = str(error)
        failed |= "error" in row or (bool(row.get("missing")) and bool(args.names))
        rows.append(row)
        if not args.json:
            state = row.get("error") or (f"missing: {row['missing']}" if row["missing"] else "ready")
            print(f"{name:<20} {spec.title}\n{'':<20} {state}")
            for instance, found in (row.get("instances") or {}).items():  # type: ignore[attr-defined]
                print(
                    f"{'':<20} {instance}: {found['train']} train, {found['test']} test, sha256 {found['fingerprint'][:16]}"
                )
    if args.json:
        print_json(rows)
    return 1 if failed else 0


def _verify(dataset, instance: str) -> dict[str, object]:  # type: ignore[no-untyped-def]
    from adlbench.benchmark.api import DataError
    from adlbench.benchmark.cell import check_split

    schema = dataset.schema(instance)
    splits = {split: dataset.load(instance, split) for split in ("train", "test")}
    for name, items in splits.items():
        check_split(items, f"{instance}, {name} split")
        promised = schema.num_train if name == "train" else schema.num_test
        if len(items) != promised:
            raise DataError(f"{instance}: the {name} split has {len(items)} items and its schema says {promised}")
        absent = set(schema.fields) - set(items.batch([0]))
        if absent:
            raise DataError(f"{instance}: the {name} split lacks {', '.join(sorted(absent))}, which its schema names")
    return {"train": len(splits["train"]), "test": len(splits["test"]), "fingerprint": dataset.fingerprint(instance)}
