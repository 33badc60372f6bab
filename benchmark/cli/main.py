"""The command line: one module a verb. Verbs import what is heavy when they run, so that --help and list answer at once."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence

from adlbench import __version__
from adlbench.benchmark.cli import (
    baseline,
    bisect,
    check,
    compare,
    data,
    doctor,
    evaluate,
    export_records,
    history,
    import_,
    leaderboard,
    list_,
    merge,
    new,
    plan,
    report,
    run,
    show,
    status,
    sync,
    test,
)

VERBS = {
    "list": list_,
    "plan": plan,
    "run": run,
    "status": status,
    "show": show,
    "evaluate": evaluate,
    "leaderboard": leaderboard,
    "report": report,
    "new": new,
    "compare": compare,
    "baseline": baseline,
    "check": check,
    "history": history,
    "bisect": bisect,
    "test": test,
    "data": data,
    "doctor": doctor,
    "sync": sync,
    "merge": merge,
    "export-records": export_records,
    "import": import_,
}
EPILOG = """\
Verbs that take OVERRIDES read them as Hydra does: task=classification method=vit,cnn dataset=digits seed=0,1,2
fidelity=smoke device=cuda results_dir=PATH method.parameters.dim=64 budget.steps=100. Quote seed='range(0,5)'.

Exit codes: 0 done; 1 the answer is no (a cell failed, numbers differ); 2 wrong use or could not run; 3 inconclusive.

Start with: adlbench run suite=demo
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adlbench",
        description="A declarative benchmark suite for deep learning in computer vision and 3D.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"adlbench {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, module in VERBS.items():
        summary, _, rest = (module.__doc__ or "").strip().partition("\n")
        sub = verbs.add_parser(
            name,
            help=summary.rstrip("."),
            description=f"{summary}\n{rest}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--json", action="store_true", help="print JSON to standard output, and nothing else")
        module.configure(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in VERBS:
        close = difflib.get_close_matches(arguments[0], VERBS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"verbs: {', '.join(VERBS)}"
        print(f"error: there is no verb {arguments[0]!r}; {hint}", file=sys.stderr)
        return 2
    parsed = build_parser().parse_args(arguments)
    try:
        return int(VERBS[parsed.verb].run(parsed))
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        problems = _mendable(error)
        if problems is None:
            raise
        if parsed.json:
            print(json.dumps({"errors": problems}))
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2


def _mendable(error: Exception) -> list[str] | None:
    """The lines to print for an error that the user can mend; None for a bug, which deserves its traceback."""
    from adlbench.benchmark.errors import AdlbenchError

    if isinstance(error, AdlbenchError):
        return [line for line in str(error).splitlines() if line]
    return None


if __name__ == "__main__":
    sys.exit(main())
