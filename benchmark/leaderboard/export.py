"""Boards as files: CSV, Markdown, LaTeX, and JSON with its schema."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from adlbench.benchmark.leaderboard.board import Board, Row, Value
from adlbench.benchmark.leaderboard.tables import (
    caption_of,
    markdown,
    mean_and_interval,
    title_of,
)
from adlbench.benchmark.records import write_atomic

JSON_SCHEMA_VERSION = 2
COSTS = ("throughput", "latency_ms", "train_seconds", "memory_mb")


def csv_text(found: Sequence[Board]) -> str:
    """Long form: one line for each board, method and quantity."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    axes = ["task", "dataset", "protocol", "fidelity", "hardware", "fingerprint"]
    writer.writerow([*axes, "method", "trivial", "rank", "quantity", "mean", "interval95", "n"])
    for board in found:
        for row in board.rows:
            quantities: dict[str, Value | None] = dict(row.metrics)
            quantities |= {name: getattr(row, name) for name in COSTS}
            for name, value in quantities.items():
                if value is not None:
                    head = [plain_cell(getattr(board, axis)) for axis in axes]
                    writer.writerow(
                        [
                            *head,
                            plain_cell(row.method),
                            row.trivial,
                            row.rank,
                            name,
                            value.mean,
                            value.interval,
                            value.n,
                        ]
                    )
    return buffer.getvalue()


def plain_cell(text: str) -> str:
    """A leading =, +, - or @ would be a formula to a spreadsheet."""
    return f"'{text}" if text[:1] in "=+-@" else text


def latex(found: Sequence[Board]) -> str:
    """A table for each board, for the package booktabs: best value of a column bold, second best underlined; intervals as
    \\pm. Ties share the mark."""
    lines = ["% needs \\usepackage{booktabs}"]
    for board in found:
        arrows = {"up": r"$\uparrow$", "down": r"$\downarrow$"}
        columns = [(name, spec["unit"], spec["direction"]) for name, spec in board.metrics.items()]
        columns += [(f"{board.throughput_unit}/s", "", "up"), ("latency", "ms", "down"), ("training", "s", "down")]
        columns += [("memory", "MB", "down")]
        values = [_quantities(board, row) for row in board.rows]
        marks = [_marks([row[i] for row in values], column[2]) for i, column in enumerate(columns)]
        title = f"{title_of(board)}. {caption_of(board)}. Mean and half-width of the 95\u2009% interval over seeds."
        heads = [f"{_tex(name)}{f' ({_tex(unit)})' if unit else ''} {arrows[way]}" for name, unit, way in columns]
        lines += ["", r"\begin{table}", r"\centering", rf"\caption{{{_tex(title)}}}"]
        lines += [rf"\begin{{tabular}}{{rl{'r' * len(columns)}r}}", r"\toprule"]
        lines += [" & ".join(["", "method", *heads, "$n$"]) + r" \\", r"\midrule"]
        for row, cells, place in zip(board.rows, values, range(len(values))):
            shown = [_tex_value(value, marks[i][place]) for i, value in enumerate(cells)]
            name = _tex(row.method) + (r" $^{\dagger}$" if row.trivial else "")
            lines.append(" & ".join(["--" if row.rank is None else str(row.rank), name, *shown, str(row.n)]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        if any(row.trivial for row in board.rows):
            lines.append(r"% $\dagger$ a trivial method")
    return "\n".join(lines) + "\n"


def _quantities(board: Board, row: Row) -> list[Value | None]:
    return [*(row.metrics.get(name) for name in board.metrics), *(getattr(row, name) for name in COSTS)]


def _marks(values: Sequence[Value | None], direction: str) -> list[str]:
    """ "best", "second" or "" for each; by what is printed, so that equal numbers are marked alike."""
    sign = -1.0 if direction == "up" else 1.0
    keys = [None if value is None else sign * float(f"{value.mean:.4g}") for value in values]
    order = sorted({key for key in keys if key is not None})
    places = dict(zip(order[:2], ("best", "second")))
    return ["" if key is None or len(order) == 1 else places.get(key, "") for key in keys]


def _tex_value(value: Value | None, mark: str) -> str:
    if value is None:
        return "--"
    mean, interval = mean_and_interval(value)
    mean = _tex_number(mean)
    mean = {"best": rf"\textbf{{{mean}}}", "second": rf"\underline{{{mean}}}"}.get(mark, mean)
    return mean + (rf" $\pm$ {_tex_number(interval)}" if interval else "")


def _tex_number(text: str) -> str:
    found = re.fullmatch(r"(.*)e([+-]\d+)", text)
    text = rf"${found[1]} \cdot 10^{{{int(found[2])}}}$" if found else text
    return text.replace("-", "$-$", 1) if text.startswith("-") else text


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "\u2009": r"\,", "\n": " ", "\r": " ", "`": r"\textasciigrave{}",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of what ``json_text`` writes."""
    boards = TypeAdapter(list[Board]).json_schema(ref_template="#/$defs/{model}")
    definitions = boards.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "adlbench leaderboards",
        "type": "object",
        "properties": {"schema_version": {"const": JSON_SCHEMA_VERSION}, "boards": boards},
        "required": ["schema_version", "boards"],
        "$defs": definitions,
    }


def json_text(found: Sequence[Board]) -> str:
    return json.dumps({"schema_version": JSON_SCHEMA_VERSION, "boards": [b.to_dict() for b in found]}, indent=1) + "\n"


def write_boards(found: Sequence[Board], folder: Path) -> list[Path]:
    """leaderboard.csv, .md, .tex, .json and its schema; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"csv": csv_text(found), "md": markdown(found), "tex": latex(found), "json": json_text(found)}
    texts["schema.json"] = json.dumps(json_schema(), indent=1) + "\n"
    for suffix, text in texts.items():
        write_atomic(folder / f"leaderboard.{suffix}", text.encode())
    return [folder / f"leaderboard.{suffix}" for suffix in texts]
