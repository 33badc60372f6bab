"""Commits as folders to run from: work trees, and an environment of their own where their dependencies differ."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.regression.session import Tree


def git(root: Path, *arguments: str) -> str:
    """Standard output, stripped. Raises AdlbenchError with git's last line."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise AdlbenchError("git is not installed; comparing commits needs it") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no message"]
        raise AdlbenchError(f"git {' '.join(arguments[:2])}: {lines[-1]}") from None
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel"))
    except AdlbenchError as error:
        raise AdlbenchError(f"{folder}: not inside a git checkout, and commits are compared ({error})") from None


def resolve(root: Path, ref: str) -> str:
    """The commit's full hash. Raises AdlbenchError for a name that is none."""
    if ref.startswith("-"):
        raise AdlbenchError(f"{ref!r}: not a commit, branch or tag")
    try:
        return git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    except AdlbenchError:
        raise AdlbenchError(
            f"{ref!r}: git knows no such commit here; in a shallow clone fetch it first (git fetch --unshallow)"
        ) from None


def dirty_files(root: Path) -> list[str]:
    """Tracked files that differ from HEAD."""
    return git(root, "diff", "--name-only", "HEAD").splitlines()


def require_clean(root: Path, why: str) -> None:
    files = dirty_files(root)
    if files:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        raise AdlbenchError(f"uncommitted changes ({files[0]}{more}): {why}; commit or stash them")


def changed_files(root: Path, first: str, second: str, paths: Sequence[str]) -> list[str]:
    return git(root, "diff", "--name-only", first, second, "--", *paths).splitlines()


@contextlib.contextmanager
def checked_out(root: Path, refs: Sequence[str], folder: Path) -> Iterator[list[Tree]]:
    """A tree for each of ``refs`` below ``folder``, removed afterwards. Environments stay there for the next time."""
    commits = [resolve(root, ref) for ref in refs]
    paths = [folder / "trees" / f"{commit[:12]}-{os.getpid()}-{index}" for index, commit in enumerate(commits)]
    try:
        for commit, path in zip(commits, paths):
            git(root, "worktree", "add", "--detach", "--force", str(path.absolute()), commit)
        pythons = _interpreters(paths, refs, folder)
        yield [
            Tree(ref, commit, path.absolute(), python, _caches(path.absolute()))
            for ref, commit, path, python in zip(refs, commits, paths, pythons)
        ]
    finally:
        for path in paths:
            if path.exists():
                git(root, "worktree", "remove", "--force", str(path.absolute()))
        git(root, "worktree", "prune")


def _caches(tree: Path) -> dict[str, str]:
    """Compiled kernels are kept by name, so that two commits must not share a folder."""
    names = ("TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "PYTHONPYCACHEPREFIX")
    return {name: str(tree / ".gate-cache" / name.lower()) for name in names}


def requirements(tree: Path) -> tuple[list[str], list[str]]:
    """What the tree needs: its dependencies, and the pins in constraints.txt that concern them or what they need in turn."""
    project = tree / "pyproject.toml"
    if not project.exists():
        return [], []
    try:
        needed = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {}).get("dependencies", [])
    except tomllib.TOMLDecodeError as error:
        raise AdlbenchError(f"{tree.name}: pyproject.toml is not valid TOML ({error})") from None
    constraints = tree / "constraints.txt"
    pins = constraints.read_text(encoding="utf-8").splitlines() if constraints.exists() else []
    closure = _closure(_name(line) for line in needed)
    return sorted(needed), sorted(pin for pin in pins if pin and not pin.startswith("#") and _name(pin) in closure)


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def _closure(names: Iterator[str]) -> set[str]:
    """Names and what they need, as installed here; extras are left out."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            waiting += [_name(line) for line in importlib.metadata.requires(name) or [] if "extra ==" not in line]
    return seen


def _interpreters(trees: Sequence[Path], labels: Sequence[str], folder: Path) -> list[str]:
    """The present interpreter for all where the trees need the same; else a virtual environment for each need."""
    needs = [requirements(tree) for tree in trees]
    if all(need == needs[0] for need in needs):
        return [sys.executable] * len(trees)
    pythons = []
    for tree, label, need in zip(trees, labels, needs):
        digest = hashlib.sha256(repr((need, sys.version)).encode()).hexdigest()[:12]
        environment = folder / "environments" / digest
        if not (environment / "complete").exists():
            install(tree, environment, label)
            (environment / "complete").touch()
        pythons.append(str((environment / "bin" / "python").absolute()))
    return pythons


def install(tree: Path, environment: Path, label: str) -> None:
    """The tree's package and dependencies, by its own pins, into a new virtual environment."""
    python = str(environment / "bin" / "python")
    pins = ["-c", str(tree / "constraints.txt")] if (tree / "constraints.txt").exists() else []
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(environment)],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins, str(tree)],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.strip().splitlines() if line] or ["no message"]
            raise AdlbenchError(f"{label}: its environment does not build: {lines[-1]}")
