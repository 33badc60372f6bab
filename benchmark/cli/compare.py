"""Compare methods by their records, or two commits in one job.

    adlbench compare my_net cnn vit --pictures out      methods: shared seeds, wins by item, the items that differ most
    adlbench compare main HEAD --suite gate             commits: is the second slower, heavier or less accurate?
    adlbench compare main HEAD --suite gate --paths methods/classification
    adlbench compare v1.0 HEAD task=classification method=cnn dataset=digits

Names of methods are taken as such; --suite says that commits are meant.

Both commits are checked out beside each other and run interleaved, round by round, on one core; an A/A control in the same
job says what this machine can tell. Exit code 0: no regression; 1: slower, heavier or less accurate; 2: could not run;
3: inconclusive. Writes gate.md, gate.json, junit.xml, gate.html and gate.svg.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adlbench.benchmark.cli import compare_methods
from adlbench.benchmark.cli.common import print_json
from adlbench.benchmark.plugins import installed_config_folders


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="MINE|REF_A", help="a method; or the commit, branch or tag to compare with")
    parser.add_argument("head", metavar="OTHER|REF_B", help="a method; or the commit, branch or tag that is judged")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="OTHERS|OVERRIDES",
        help="more methods; or what narrows the suite, e.g. method=cnn device=cuda",
    )
    compare_methods.add_options(parser)
    add_gate_options(parser)
    parser.add_argument(
        "--out", metavar="DIR", default="results/gate", help="folder of the summaries (default: %(default)s)"
    )


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", help="what is run, e.g. gate; without it name a task")
    parser.add_argument(
        "--paths", nargs="+", metavar="PATH", help="only cells that files changed below these can affect"
    )
    parser.add_argument("--only", choices=("speed", "accuracy"), help="leave the other one out")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="for all timed rounds together (default: %(default)s)"
    )
    parser.add_argument(
        "--minimum-effect",
        type=float,
        default=3.0,
        metavar="PERCENT",
        help="slow-down that counts (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="of a worker (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    import sys

    names = [args.base, args.head, *args.overrides]
    if args.suite is None and method_names().issuperset(names[:2]):
        return compare_methods.run(args.base, names[1:], args)

    from adlbench.benchmark.regression.summary import markdown, to_dict, write_all

    result = compare_refs(args, (args.base, args.head))
    paths = write_all(result, Path(args.out))
    if args.json:
        print_json(to_dict(result))
    else:
        print(markdown(result))
        print(f"written: {', '.join(map(str, paths))}", file=sys.stderr)
    return result.exit_code


def method_names() -> set[str]:
    folders = [Path(__file__).resolve().parents[2] / "configs", *installed_config_folders()]
    return {path.stem for folder in folders for path in (folder / "method").glob("*.yaml")}


def compare_refs(args: argparse.Namespace, refs: tuple[str, str]):  # type: ignore[no-untyped-def]
    """A Comparison of two commits of the repository that we stand in, as the options ask for it."""
    import sys

    from adlbench.benchmark.config import Catalog, parse_request
    from adlbench.benchmark.errors import AdlbenchError
    from adlbench.benchmark.regression import comparison, worktrees
    from adlbench.benchmark.regression.speed import SpeedRule

    if not 0 < args.minimum_effect < 100 or args.minutes <= 0 or args.threads < 1:
        raise AdlbenchError("--minimum-effect is a percentage in (0, 100), --minutes and --threads are positive")
    root = worktrees.repository(Path.cwd())
    commits = [worktrees.resolve(root, ref) for ref in refs]
    if worktrees.resolve(root, "HEAD") in commits:
        worktrees.require_clean(root, "HEAD does not hold them, so they would not be compared")
    request = parse_request(args.overrides)
    catalog = Catalog(plugins=request.plugins)
    suite_name = args.suite or request.suite
    plan = comparison.plan_requests(request, catalog.spec("suite", suite_name) if suite_name else None)
    changed = worktrees.changed_files(root, commits[0], commits[1], args.paths) if args.paths else None
    options = [*args.overrides, *(["--suite", args.suite] if args.suite else [])]  # argparse takes overrides first
    options += ["--only", args.only] if args.only else []
    options += ["--paths", *args.paths] if args.paths else []
    work = root / "build" / "gate"
    with worktrees.checked_out(root, refs, work) as trees:
        return comparison.compare(
            trees,
            plan,
            work / "cells",
            changed=changed,
            rule=SpeedRule(minimum_effect=args.minimum_effect / 100),
            seconds=60 * args.minutes,
            threads=args.threads,
            speed_too=args.only != "accuracy",
            accuracy_too=args.only != "speed",
            options=options,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
