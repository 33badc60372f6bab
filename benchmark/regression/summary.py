"""A comparison or a check as Markdown for a pull request, JSON for machines, JUnit for CI, and a page with the chart."""

from __future__ import annotations

import html
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from adlbench.benchmark.records import write_atomic, write_json
from adlbench.benchmark.regression.baseline import Baseline
from adlbench.benchmark.regression.chart import chart
from adlbench.benchmark.regression.comparison import Comparison, SpeedFinding
from adlbench.benchmark.regression.results import AccuracyFinding

JSON_SCHEMA_VERSION = 1
TITLES = {0: "pass", 1: "slower or less accurate", 2: "could not run", 3: "inconclusive"}
MARKS = {
    "pass": "✓",
    "worse": "✗ worse",
    "slower": "✗ slower",
    "heavier": "✗ heavier",
    "inconclusive": "?",
    "could not run": "!",
}


def repeat_command(result: Comparison, group: str | None = None) -> str:
    """What to type to measure again; for one cell, where ``group`` names it."""
    options = list(result.options)
    if group is not None:
        task, dataset, method, fidelity = group.split("/")
        dataset, _, instance = dataset.partition(".")
        axes = {"task": task, "dataset": dataset, "instance": instance, "method": method, "fidelity": fidelity}
        kept = [option for option in options if "=" in option and option.partition("=")[0] not in axes]
        suite = options[options.index("--suite") :][:2] if "--suite" in options else []
        options = [*(f"{key}={value}" for key, value in axes.items() if value), *kept, *suite]
    return shlex.join(["adlbench", "compare", result.base_commit[:12], result.head_commit[:12], *options])


def percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.1f} %"


def _interval(low: float, high: float) -> str:
    return f"{percent(low)} … {percent(high)}"


def _accuracy_rows(findings: Sequence[AccuracyFinding]) -> list[list[str]]:
    rows = []
    for finding in findings:
        verdict = finding.verdict
        if verdict is None:
            rows.append(
                [MARKS[finding.outcome], finding.group, finding.metric or "all", "", "", "", "", finding.reason]
            )
            continue
        items = "" if verdict.items_better is None else f"{verdict.items_better} better, {verdict.items_worse} worse"
        change = f"{verdict.change:+.4g} ({verdict.low:+.4g} … {verdict.high:+.4g})"
        rows.append(
            [
                MARKS[finding.outcome],
                finding.group,
                finding.metric,
                f"{verdict.base:.4g} → {verdict.head:.4g}",
                change,
                f"{verdict.margin:g}",
                items,
                finding.reason,
            ]
        )
    return rows


def _speed_rows(findings: Sequence[SpeedFinding]) -> list[list[str]]:
    rows = []
    for finding in findings:
        if finding.memory_mb is not None:
            base, control, head = finding.memory_mb
            change = percent(head / max(base, control) - 1)
            rows.append([MARKS[finding.outcome], finding.group, "memory", change, "", "", "", finding.reason])
        elif finding.verdict is None:
            rows.append([MARKS[finding.outcome], finding.group, finding.what, "", "", "", "", finding.reason])
        else:
            verdict, wall = finding.verdict, finding.wall
            rows.append(
                [
                    MARKS[finding.outcome],
                    finding.group,
                    f"{finding.what}, {finding.clock} time",
                    percent(verdict.change.estimate),
                    _interval(verdict.change.low, verdict.change.high),
                    percent(verdict.control.estimate),
                    "" if wall is None else _interval(wall.change.low, wall.change.high),
                    f"{finding.reason} ({verdict.rounds} rounds, {verdict.starts} starts)",
                ]
            )
    return rows


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for cell in cells) + " |"
        )

    return [line(header), "|" + "---|" * len(header), *(line(row) for row in rows)]


ACCURACY_HEADER = (
    "",
    "cell",
    "metric",
    "base → head",
    "change (one-sided 95 % ends), positive is better",
    "margin",
    "items",
    "",
)
SPEED_HEADER = ("", "cell", "what", "change", "99 % interval", "A against A", "wall time, 99 %", "")


def markdown(result: Comparison) -> str:
    lines = [
        f"## Regression gate: {TITLES[result.exit_code]}",
        "",
        f"`{result.base}` ({result.base_commit[:12]}) against `{result.head}` ({result.head_commit[:12]}) on "
        f"{result.hardware or 'no cell'}, {result.seconds / 60:.0f} min.",
        "",
    ]
    findings: list[AccuracyFinding | SpeedFinding] = [*result.accuracy, *result.speed]
    bad = [finding for finding in findings if finding.outcome != "pass"]
    for finding in sorted(bad, key=lambda f: f.outcome not in ("worse", "slower", "heavier")):
        what = finding.metric if isinstance(finding, AccuracyFinding) else finding.what
        lines.append(f"- **{finding.outcome}** {finding.group} {what}: {finding.reason}")
        lines.append(f"  Again: `{repeat_command(result, finding.group)}`")
    if not bad:
        lines.append("Nothing got slower, heavier or less accurate.")
    lines.append("")
    if result.speed:
        lines += ["### Speed", "", *markdown_table(SPEED_HEADER, _speed_rows(result.speed)), ""]
    if result.accuracy:
        lines += ["### Accuracy", "", *markdown_table(ACCURACY_HEADER, _accuracy_rows(result.accuracy)), ""]
    lines += [f"- {note}" for note in result.notes]
    lines += ["", f"Everything again: `{repeat_command(result)}`", ""]
    return "\n".join(lines)


def to_dict(result: Comparison) -> dict[str, Any]:
    speed = []
    for finding in result.speed:
        entry = asdict(finding)
        rounds = finding.rounds
        entry["rounds"] = rounds and {"cpu": rounds.cpu, "wall": rounds.wall, "starts": rounds.starts}
        speed.append(entry)
    return {
        "schema_version": JSON_SCHEMA_VERSION,
        "exit_code": result.exit_code,
        "verdict": TITLES[result.exit_code],
        "base": {"name": result.base, "commit": result.base_commit},
        "head": {"name": result.head, "commit": result.head_commit},
        "hardware": result.hardware,
        "started": result.started,
        "seconds": result.seconds,
        "command": repeat_command(result),
        "accuracy": [finding.to_dict() for finding in result.accuracy],
        "speed": speed,
        "notes": result.notes,
    }


def junit(name: str, findings: Sequence[AccuracyFinding | SpeedFinding]) -> bytes:
    """One test case for each verdict: a finding is a failure, what could not run an error, what is open skipped."""
    tags = {
        "worse": "failure",
        "slower": "failure",
        "heavier": "failure",
        "could not run": "error",
        "inconclusive": "skipped",
    }
    counts = {tag: sum(tags.get(f.outcome) == tag for f in findings) for tag in ("failure", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(findings)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
    )
    for finding in findings:
        what = finding.metric or "accuracy" if isinstance(finding, AccuracyFinding) else finding.what
        case = ElementTree.SubElement(suite, "testcase", classname=finding.group.replace("/", "."), name=what)
        if finding.outcome in tags:
            ElementTree.SubElement(case, tags[finding.outcome], message=finding.reason)
    return ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)


def page(result: Comparison) -> str:
    """One self-contained HTML page: the verdict, the chart, the tables. Every name is escaped."""

    def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    title = f"Regression gate: {TITLES[result.exit_code]}"
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in result.notes)
    style = (
        "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;max-width:80rem}table{border-collapse:collapse;margin:1rem 0}"
        "td,th{padding:.2rem .7rem;border-bottom:1px solid #ccc;text-align:left}code{background:#eee;padding:.1rem .3rem}"
    )
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title><style>{style}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(result.base)} ({result.base_commit[:12]}) against "
        f"{html.escape(result.head)} ({result.head_commit[:12]}) on {html.escape(result.hardware)}</p>"
        f"{chart(result)}<h2>Speed</h2>{table(SPEED_HEADER, _speed_rows(result.speed))}"
        f"<h2>Accuracy</h2>{table(ACCURACY_HEADER, _accuracy_rows(result.accuracy))}<ul>{notes}</ul>"
        f"<p>Again: <code>{html.escape(repeat_command(result))}</code></p></html>\n"
    )


def write_all(result: Comparison, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("gate.md", "gate.json", "junit.xml", "gate.html", "gate.svg")]
    write_atomic(paths[0], markdown(result).encode())
    write_json(paths[1], to_dict(result))
    write_atomic(paths[2], junit("adlbench compare", [*result.accuracy, *result.speed]))
    write_atomic(paths[3], page(result).encode())
    write_atomic(paths[4], chart(result).encode())
    return paths


# ------------------------------------------------------------------------------------------------- check with a baseline
def check_markdown(baseline: Baseline, findings: Sequence[AccuracyFinding], code: int) -> str:
    lines = [
        f"## Check against baseline {baseline.name}: {TITLES[code]}",
        "",
        f"Saved {baseline.created} at commit {str(baseline.code.get('commit'))[:12]}.",
        "",
        *markdown_table(ACCURACY_HEADER, _accuracy_rows(findings)),
        "",
        "Speed against stored times, for information (judged by `adlbench compare`):",
        "",
    ]
    rows = {}
    for finding in findings:
        before, after = finding.throughput
        if before and after:
            rows[finding.group] = [finding.group, f"{before:,.4g}", f"{after:,.4g}", percent(after / before - 1)]
    lines += markdown_table(("cell", "samples/s then", "now", "change"), list(rows.values()))
    return "\n".join([*lines, "", f"Again: `adlbench check --baseline {baseline.name}`", ""])


def check_dict(
    baseline: Baseline, findings: Sequence[AccuracyFinding], code: int, version: dict[str, Any]
) -> dict[str, Any]:
    return {
        "schema_version": JSON_SCHEMA_VERSION,
        "exit_code": code,
        "verdict": TITLES[code],
        "baseline": {"name": baseline.name, "code": baseline.code, "created": baseline.created},
        "code": version,
        "findings": [finding.to_dict() for finding in findings],
    }
