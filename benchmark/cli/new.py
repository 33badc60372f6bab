"""Write a method, a dataset or a task to start from, with its YAML and its test.

    adlbench new method my_net --task classification
    adlbench new method my_net --task classification --modality points
    adlbench new dataset my_images --task classification
    adlbench new task my_task --like classification
    adlbench new method my_net --task classification --into mypackage      outside of adlbench

The method works as it is written: `adlbench test my_net` passes, and it learns. Nothing that exists is overwritten.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("method", "dataset", "task"))
    parser.add_argument("name", metavar="NAME", help="small letters, digits and _")
    parser.add_argument("--task", metavar="T", help="the task that the method or dataset is for")
    parser.add_argument("--modality", metavar="M", help="image, points, ...; default: the first that the task takes")
    parser.add_argument("--like", metavar="T", help="the task whose kind, protocol and metrics a new task has")
    parser.add_argument("--into", metavar="PACKAGE", help="folder of a package of your own; default: this checkout")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.errors import AdlbenchError
    from adlbench.benchmark.scaffold import find_place, new_dataset, new_method, new_task

    place = find_place(args.into)
    wanted = "like" if args.what == "task" else "task"
    value = getattr(args, wanted)
    if not value:
        raise AdlbenchError(f"adlbench new {args.what} needs --{wanted}, e.g. --{wanted} classification")
    if args.what == "method":
        files = new_method(args.name, value, place, args.modality)
    elif args.what == "dataset":
        files = new_dataset(args.name, value, place)
    else:
        files = new_task(args.name, value, place)
    plugins = f"plugins={place.package}" if place.outside else ""
    following = {
        "method": [
            f"adlbench test {args.name}" + (f" --plugins {place.package} --task {args.task}" if plugins else ""),
            f"adlbench run task={args.task} method={args.name} fidelity=demo {plugins}".strip(),
        ],
        "dataset": [
            "adlbench data list",
            f"adlbench run task={args.task} dataset={args.name} fidelity=demo {plugins}".strip(),
        ],
        "task": [f"adlbench plan task={args.name} {plugins}".strip()],
    }[args.what]
    if args.json:
        print_json({"files": [str(path) for path in files], "next": following})
        return 0
    for path in files:
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    print("\nnext:")
    for line in following:
        print(f"  {line}")
    return 0
