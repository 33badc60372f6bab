"""Check that a method keeps the contract.

Sets up, steps, saves, loads without data, saves again, predicts, resumes, honours budget, seed, device and precision,
leaves no hidden synchronisation, evaluates twice to the same numbers. Runs at smoke fidelity on an embedded dataset.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument("--dataset", metavar="D", help="default: the first generated or packaged dataset that fits")
    parser.add_argument("--task", metavar="T", help="default: the first task that names the method")
    parser.add_argument("--plugins", metavar="P,Q", default="", help="packages outside this one that hold the method")


def run(args: argparse.Namespace) -> int:
    from adlbench.benchmark.acceptance import accept

    plugins = tuple(filter(None, args.plugins.split(",")))
    checks = accept(args.method, args.dataset, args.task, plugins, report=None if args.json else _print)
    passed = all(check.passed for check in checks)
    if args.json:
        print_json({"method": args.method, "passed": passed, "checks": [vars(check) for check in checks]})
    else:
        print("passed" if passed else "FAILED")
    return 0 if passed else 1


def _print(check) -> None:  # type: ignore[no-untyped-def]
    print(f"{'ok    ' if check.passed else 'FAILED'} {check.name:<22} {check.detail}", flush=True)
