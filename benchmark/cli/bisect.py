"""Find the first commit that made a cell slower, heavier or less accurate, with the verdict of `adlbench compare`.

    adlbench bisect GOOD BAD task=classification method=cnn dataset=digits

Every candidate is compared with GOOD in a job of its own. Commits that do not run or stay inconclusive are stepped around.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.common import print_json
from adlbench.benchmark.cli.compare import add_gate_options


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("good", metavar="GOOD", help="commit, branch or tag without the regression")
    parser.add_argument("bad", metavar="BAD", help="a later one with it")
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDES", help="the cell, e.g. task=classification method=cnn"
    )
    add_gate_options(parser)


def run(args: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from adlbench.benchmark.cli.compare import compare_refs
    from adlbench.benchmark.errors import AdlbenchError
    from adlbench.benchmark.regression import worktrees
    from adlbench.benchmark.regression.bisection import bisect

    root = worktrees.repository(Path.cwd())
    good, bad = (worktrees.resolve(root, ref) for ref in (args.good, args.bad))
    commits = worktrees.git(root, "rev-list", "--reverse", "--ancestry-path", f"{good}..{bad}").splitlines()
    if not commits:
        raise AdlbenchError(
            f"{args.bad} does not descend from {args.good}; give an earlier good and a later bad commit"
        )

    def verdict(commit: str) -> int:
        try:
            code = int(compare_refs(args, (good, commit)).exit_code)
        except AdlbenchError as error:
            print(f"{commit[:12]}: {error}", file=sys.stderr)
            code = 2
        print(f"{commit[:12]}: {('good', 'bad', 'could not run', 'inconclusive')[code]}", file=sys.stderr, flush=True)
        return code

    result = bisect(commits, verdict)
    if result.first_bad is None:
        code = result.judged[commits[-1]] or 3  # nothing to find is no success
        raise_or_tell = (
            f"{args.bad} is not worse than {args.good}" if code == 3 else f"{args.bad} could not be compared"
        )
        if args.json:
            print_json({"first_bad": None, "candidates": [], "judged": result.judged})
        print(raise_or_tell, file=sys.stderr)
        return code
    if args.json:
        print_json({"first_bad": result.first_bad, "candidates": result.candidates, "judged": result.judged})
    else:
        for commit in result.candidates:
            print(worktrees.git(root, "log", "-1", "--format=%h %an %ad %s", "--date=short", commit))
        if len(result.candidates) > 1:
            print(f"the first bad commit is one of these {len(result.candidates)}; those between could not be judged")
    return 0 if len(result.candidates) == 1 else 3
