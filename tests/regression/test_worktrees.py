"""Commits as folders: what is checked out, what is refused, and when a side gets an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.cli.main import main
from adlbench.benchmark.regression import worktrees
from adlbench.benchmark.regression.session import Tree, Worker, WorkerError


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two commits, tagged one and two; the second needs another version of something."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    for tag, version in (("one", "1"), ("two", "2")):
        (root / "pyproject.toml").write_text(
            f'[project]\nname = "x"\nversion = "0"\ndependencies = ["numpy>={version}"]\n'
        )
        (root / "module.py").write_text(f"VERSION = {version}\n")
        git(root, "add", ".")
        git(root, "commit", "-qm", tag)
        git(root, "tag", tag)
    return root


def test_unknown_commits_and_folders_are_named(root: Path, tmp_path: Path) -> None:
    assert worktrees.resolve(root, "one") == git(root, "rev-parse", "one")
    for name in ("three", "--all", "one:module.py"):
        with pytest.raises(AdlbenchError, match=name.split(":")[0]):
            worktrees.resolve(root, name)
    with pytest.raises(AdlbenchError, match="not inside a git checkout"):
        worktrees.repository(tmp_path)


def test_trees_hold_their_commits_and_are_removed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setattr(
        worktrees, "install", lambda tree, environment, label: (built.append(label), environment.mkdir(parents=True))
    )
    with worktrees.checked_out(root, ["one", "two", "one"], tmp_path / "work") as trees:
        assert [(tree.path / "module.py").read_text() for tree in trees] == [
            "VERSION = 1\n",
            "VERSION = 2\n",
            "VERSION = 1\n",
        ]
        assert len({tree.environment["TORCH_EXTENSIONS_DIR"] for tree in trees}) == 3
        assert trees[0].python == trees[2].python != trees[1].python
    assert built == ["one", "two"]
    assert not any(tree.path.exists() for tree in trees)
    assert git(root, "worktree", "list").count("\n") == 0
    with worktrees.checked_out(root, ["two", "one"], tmp_path / "work"):
        assert built == ["one", "two"]  # environments stay


def test_equal_needs_share_the_present_interpreter(root: Path, tmp_path: Path) -> None:
    with worktrees.checked_out(root, ["one", "one"], tmp_path / "work") as trees:
        assert [tree.python for tree in trees] == [sys.executable] * 2


def test_trees_are_removed_after_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), worktrees.checked_out(root, ["one"], tmp_path / "work"):
        raise RuntimeError
    assert git(root, "worktree", "list").count("\n") == 0


def test_only_pins_that_concern_the_package_count(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["pandas>=2", "rich"]\n')
    (tmp_path / "constraints.txt").write_text("pandas==2.2\nnumpy==2.1\nPygments==2.19\nsphinx==8\n# a remark\n")
    needed, pins = worktrees.requirements(tmp_path)
    assert needed == ["pandas>=2", "rich"]
    assert pins == ["Pygments==2.19", "numpy==2.1", "pandas==2.2"]


def test_an_environment_that_does_not_build_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        subprocess.CompletedProcess([], 0, "", ""),
        subprocess.CompletedProcess([], 1, "", "much\nERROR: no such wheel\n"),
    ]
    monkeypatch.setattr(worktrees.subprocess, "run", lambda *a, **k: answers.pop(0))
    with pytest.raises(AdlbenchError, match="topic: its environment does not build: ERROR: no such wheel"):
        worktrees.install(tmp_path, tmp_path / "environment", "topic")


def test_a_commit_that_does_not_import_is_named_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "src/adlbench").mkdir(parents=True)
    (tmp_path / "src/adlbench/__init__.py").write_text("raise RuntimeError('half a commit')\n")
    with pytest.raises(WorkerError, match="topic: RuntimeError: half a commit"):
        Worker(Tree("topic", "", tmp_path, sys.executable))


def test_a_worker_that_dies_or_hangs_is_named(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/torch.py").write_text(
        "import os, sys\nprint('out of luck', file=sys.stderr)\nsys.stderr.flush()\nos._exit(9)\n"
    )
    with pytest.raises(WorkerError, match="topic: the process ended with exit code 9: out of luck"):
        Worker(Tree("topic", "", tmp_path, sys.executable))
    (tmp_path / "src/torch.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(WorkerError, match="no answer to 'hello' within 2 s"):
        Worker(Tree("topic", "", tmp_path, sys.executable), timeout=2)


def test_a_fork_that_dies_is_named_and_the_next_one_works(tmp_path: Path) -> None:
    """Each start of a worker is a fork, and what a fork imported the next one need not."""
    package = tmp_path / "src/adlbench/benchmark"
    package.mkdir(parents=True)
    (tmp_path / "src/torch.py").write_text("def set_num_threads(n): pass\n")
    (tmp_path / "src/adlbench/__init__.py").write_text("")
    (package / "config.py").write_text(
        "class Catalog: pass\ndef parse_request(overrides): raise ValueError(overrides)\n"
    )
    (package / "environment.py").write_text("def hardware_class(device): return ''\n")
    (package / "plan.py").write_text("import os\ndef plan(*a): pass\n")
    (package / "cell.py").write_text("import os\nos._exit(7)\n")
    with Worker(Tree("topic", "", tmp_path, sys.executable)) as worker:
        with pytest.raises(WorkerError, match=r"topic: ValueError: \['task=x'\]"), worker.forked():
            worker.ask("describe", requests=[["task=x"]], max_steps=None)
        with worker.forked():
            worker.ask("describe", requests=[], max_steps=None)
        assert "adlbench.benchmark.plan" in worker._modules
        with worker.forked():  # the process that forks has it by now
            assert worker.ask("describe", requests=[], max_steps=None) == {"cells": [], "skipped": []}
        assert worker._modules == []
        with pytest.raises(WorkerError, match="topic: the process ended with exit code 7"), worker.forked():
            worker.ask("train", name="x", folder=str(tmp_path))
        with worker.forked():
            assert worker.ask("describe", requests=[], max_steps=None) == {"cells": [], "skipped": []}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one", "three", "task=coins"], "'three': git knows no such commit here"),
        (["one", "one", "task=coins", "--minutes", "0"], "--minutes and --threads are positive"),
        (["one", "one", "--suite", "gat"], "did you mean 'gate'?"),
        (["one", "one"], "name a suite (--suite gate) or a task"),
        (["one", "one", "task=coins", "colour=red"], "unknown key 'colour'"),
    ],
)
def test_wrong_use_of_compare(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(root)
    assert main(["compare", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_dirty_tree_is_refused_where_it_would_be_overlooked(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    (root / "module.py").write_text("VERSION = 3\n")
    assert main(["compare", "one", "HEAD", "task=coins"]) == 2
    assert "uncommitted changes (module.py)" in capsys.readouterr().err
    assert main(["compare", "one", "one", "--suite", "gat"]) == 2  # HEAD is not asked for: the next mistake is told
    assert "did you mean 'gate'?" in capsys.readouterr().err
