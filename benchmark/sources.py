"""Which code a cell's numbers come from: the sources of its method and dataset, and of what those import.

A record remembers a hash for each of these files. When one changes, the record no longer speaks for the code that is
there, and the cell is run again. What is left out, and how it is versioned instead:

- comments, docstrings and layout: the syntax tree is hashed;
- the engine: ``ENGINE`` below, raised by hand when a change of the engine changes a cell's numbers;
- evaluators and metrics: the protocol's version (``top1@1``), which is part of the cell's identity;
- other packages (torch, numpy): they are in the record, and a new version does not make every result wrong.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ENGINE = "1"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
OUTSIDE = ("adlbench", "adlbench.benchmark")  # the contract and the engine: see ENGINE


@cache
def sources(target: str) -> Mapping[str, str]:
    """Module -> hash, for the module of the class ``target`` and for everything of its package that it reaches."""
    package = target.partition(".")[0]
    found: dict[str, str] = {}
    queue = [target.rpartition(".")[0]]
    while queue:
        module = queue.pop()
        if module not in found and (path := _source(module)) is not None:
            found[module], imports = _read(path, module, package)
            queue.extend(imports)
    return dict(sorted(found.items()))


def digest(files: Mapping[str, str]) -> str:
    """One hash for all of them and the engine's version; empty where the sources are not known."""
    text = "\n".join(f"{name} {value}" for name, value in sorted(files.items()))
    return hashlib.sha256(f"{ENGINE}\n{text}".encode()).hexdigest()[:12] if files else ""


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """``methods.nn.rays changed, methods.nn.old gone``, for people."""
    changes = [
        f"{name.removeprefix('adlbench.')} {'new' if name not in before else 'gone' if name not in now else 'changed'}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    return ", ".join(changes) or "the engine's version"


def _source(module: str) -> Path | None:
    if module in OUTSIDE or module.startswith("adlbench.benchmark."):
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


@cache
def _read(path: Path, module: str, package: str) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(path.read_bytes())
    imports = tuple(name for name in _imports(tree, module) if name.partition(".")[0] == package)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12], imports


def _imports(tree: ast.AST, module: str) -> Iterator[str]:
    """The modules that may be meant; a name that is a class there finds no source and drops out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
