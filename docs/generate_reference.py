"""Pages that are made when the site is built: every task, dataset and method from its YAML, every verb from its --help."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

import mkdocs_gen_files
import yaml

from adlbench.benchmark.cli.main import build_parser
from adlbench.benchmark.config import Catalog

CATALOG = Catalog()


def write(name: str, lines: Iterable[str]) -> None:
    with mkdocs_gen_files.open(f"reference/{name}.md", "w") as file:
        file.write("\n".join(lines) + "\n")


def text(value: Any) -> str:
    """A value in a table: no line break and no bar may end its cell, nothing of it is markup."""
    escaped = str(value).replace("\\", "\\\\").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
    return escaped.replace("*", "\\*").replace("_", "\\_").replace("[", "\\[")


def code(value: Any) -> str:
    """The same, as code: a flow-style YAML line."""
    line = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("\n...\n").strip()
    return f"`{line}`".replace("|", "\\|")


def table(rows: Mapping[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items() if value), ""]


def comments(group: str, name: str) -> str:
    """The comment at the head of a YAML file: what it is in a line."""
    lines = CATALOG.path(group, name).read_text(encoding="utf-8").splitlines()
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    return text(" ".join(head))


def tasks() -> Iterable[str]:
    yield "# Tasks"
    for name in CATALOG.names("task"):
        spec = CATALOG.spec("task", name)
        yield from (f"\n## {name}", "", text(spec.description), "")
        yield from table(
            {
                "kind": text(spec.kind.value),
                "protocol": f"`{spec.protocol}`",
                "aggregate": text(spec.aggregate),
                "throughput in": text(spec.throughput_unit),
                "datasets": ", ".join(f"[{text(d)}](datasets.md#{d})" for d in spec.datasets),
                "methods": ", ".join(f"[{text(m)}](methods.md#{m})" for m in spec.methods),
                "options": code(dict(spec.options)) if spec.options else "",
            }
        )
        yield from ("| metric | better | unit | margin of the gate |", "|---|---|---|---|")
        for metric, entry in spec.metrics.items():
            primary = " (ranks)" if entry.primary else ""
            margin = "" if entry.margin is None else entry.margin
            yield f"| {text(metric)}{primary} | {entry.direction} | {text(entry.unit)} | {margin} |"
        if spec.references:
            yield from ("", "Published values:", "")
            for reference in spec.references:
                where = {key: value for key, value in reference.items() if key not in ("source", "note")}
                note = f" ({text(reference['note'])})" if reference.get("note") else ""
                yield f"- {code(where)}: {text(reference['source'])}{note}"


def datasets() -> Iterable[str]:
    yield "# Datasets"
    for name in CATALOG.names("dataset"):
        spec = CATALOG.spec("dataset", name)
        yield from (f"\n## {name} {{: #{name}}}", "", text(spec.description or spec.title), "")
        yield from table(
            {
                "title": text(spec.title),
                "licence": text(spec.licence),
                "citation": text(spec.citation),
                "homepage": text(spec.homepage),
                "size": text(spec.size),
                "how to get it": text(spec.how_to_get),
                "generated": "yes" if spec.generated else "",
                "parameters": code(dict(spec.parameters)) if spec.parameters else "",
                "class": f"`{spec.target}`",
            }
        )


def methods() -> Iterable[str]:
    yield "# Methods"
    for name in CATALOG.names("method"):
        spec = CATALOG.spec("method", name)
        yield from (f"\n## {name} {{: #{name}}}", "", comments("method", name) or text(spec.title), "")
        tasks_of = [task for task in CATALOG.names("task") if name in CATALOG.spec("task", task).methods]
        yield from table(
            {
                "title": text(spec.title) + (" (trivial: what real methods must beat)" if spec.trivial else ""),
                "paper": text(spec.paper),
                "licence": text(spec.licence),
                "differs from the paper": text(spec.card),
                "tasks": ", ".join(f"[{text(task)}](tasks.md#{task})" for task in tasks_of),
                "hyperparameters": code(dict(spec.parameters)) if spec.parameters else "the class's defaults",
                "class": f"`{spec.target}`",
            }
        )


def commands() -> Iterable[str]:
    parser = build_parser()
    yield from ("# Commands", "", "```", parser.format_help().strip(), "```")
    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, verb in verbs.choices.items():
        yield from (f"\n## adlbench {name}", "", "```", verb.format_help().strip(), "```")


def contract() -> Iterable[str]:
    yield from ("# The contract", "", "::: benchmark.api")


write("tasks", tasks())
write("datasets", datasets())
write("methods", methods())
write("commands", commands())
write("contract", contract())
