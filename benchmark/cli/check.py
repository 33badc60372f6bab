"""Run a baseline's cells again and say whether any became less accurate.

    adlbench check --baseline NAME

Speed against a stored baseline is shown, and is no verdict unless --speed asks for one: on a shared machine such a rule raises
false alarms four times in ten. `adlbench compare` judges speed. Exit codes: 0 pass, 1 worse, 2 could not run, 3 inconclusive.
"""

from __future__ import annotations

import argparse

from adlbench.benchmark.cli.baseline import FOLDER
from adlbench.benchmark.cli.common import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--baseline", required=True, metavar="NAME")
    parser.add_argument(
        "--records", metavar="DIR", help="judge the records below this results folder instead of running"
    )
    parser.add_argument("--folder", metavar="DIR", default=FOLDER, help="of the baselines (default: %(default)s)")
    parser.add_argument("--speed", action="store_true", help="make a verdict of the stored speed too")
    parser.add_argument("--allow-dirty", action="store_true", help="judge a tree with uncommitted changes")
    parser.add_argument(
        "--out", metavar="DIR", default="results/gate", help="folder of the summaries (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from adlbench.benchmark.cli.baseline import plan_cells, run_cells
    from adlbench.benchmark.environment import code_version
    from adlbench.benchmark.errors import AdlbenchError
    from adlbench.benchmark.records import write_atomic, write_json
    from adlbench.benchmark.regression import baseline as baselines
    from adlbench.benchmark.regression.results import exit_code, read_result
    from adlbench.benchmark.regression.summary import check_dict, check_markdown, junit

    saved = baselines.load(args.baseline, Path(args.folder))
    code = code_version()
    if code["dirty"] and not args.allow_dirty:
        raise AdlbenchError(
            "uncommitted changes: the verdict would belong to no commit; commit them, or add --allow-dirty"
        )
    cells = plan_cells(saved.suite, saved.overrides)
    records = Path(args.records) if args.records else run_cells(saved.suite, saved.overrides, cells)
    folders = [cell.folder(records) for cell in cells]
    head = [read_result(folder) for folder in folders if (folder / "record.json").exists()]
    findings = baselines.check(saved, head, speed=args.speed)
    code_now = exit_code(finding.outcome for finding in findings)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    text, node = check_markdown(saved, findings, code_now), check_dict(saved, findings, code_now, code)
    write_atomic(out / "check.md", text.encode())
    write_json(out / "check.json", node)
    write_atomic(out / "check-junit.xml", junit("adlbench check", findings))
    print_json(node) if args.json else print(text)
    return code_now
