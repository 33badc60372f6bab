"""Ways around the allow-list, out of the results folder, and into a process through data. None may work."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import toy

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.cell import reevaluate, run_cell, write_images
from adlbench.benchmark.cli.main import main
from adlbench.benchmark.config import Catalog, ConfigError, build_method
from adlbench.benchmark.execution.base import make_executor
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import read_arrays, read_record
from adlbench.benchmark.specs import ExecutorSpec
from adlbench.benchmark.tracking import redacted

EVIL = """\
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
from adlbench.methods.classification.cnn import CNN
class Method(CNN): pass
def run(*arguments, **names): pathlib.Path(__file__).with_name("called").touch()
"""
FRAME = "title: t\nbudget: {steps: 1}\n"
GOOD = "_target_: adlbench.methods.classification.cnn.CNN\n" + FRAME


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that leaves a trace when it is imported or called; no test may leave one."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("SECRET", "sesame")
    yield folder
    assert not (folder / "imported").exists()
    assert not (folder / "called").exists()


TARGETS = [
    "os.system",
    "evil.Method",
    "evil",
    "subprocess.Popen",
    "builtins.eval",
    "torch.load",
    "adlbench",
    "adlbench.",
    ".adlbench.methods.classification.cnn.CNN",
    "adlbench..evil.Method",
    "adlbench/../evil.Method",
    "adlbench.benchmark.config.importlib.import_module",
    "adlbench.benchmark.config.Path",
    "adlbench.benchmark.api.Method",  # the base itself
    "adlbench.benchmark.api.os.system",
    "adlbench.benchmark.cli.main.main",
    "adlbench.datasets.classification.digits.Digits",  # a class of another kind
    "adlbench.methods.classification.cnn.nn.Module",
    "adlbench.methods.classification.cnn.CNN.__init__",
    "adlbench.methods.classification.cnn.CNN.__class__",
    "adlbench.methods.classification.cnn.__builtins__",
    "evil.Method\nadlbench.x.Y",
    " evil.Method",
    "adlbench\u2024methods.classification.cnn.CNN",  # a dot that is none
    "\u0430dlbench.methods.classification.cnn.CNN",  # an a that is none
    ["evil.Method"],
    {"_target_": "evil.run"},
    7,
    True,
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_targets_that_lead_elsewhere(target: object, evil: Path, tmp_path: Path) -> None:
    path = tmp_path / "configs/method/bad.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"_target_: {json.dumps(target)}\n{FRAME}")
    with pytest.raises(ConfigError):
        Catalog(folders=[tmp_path / "configs"]).spec("method", "bad")


FILES = {
    "a python tag": GOOD + 'card: !!python/object/apply:evil.run ["x"]\n',
    "a python name": GOOD + "card: !!python/name:evil.run\n",
    "a nested target": GOOD + "parameters: {widths: {_target_: evil.run}}\n",
    "a target in a preset": GOOD + "presets: [{when: {}, set: {parameters: {_target_: evil.run}}}]\n",
    "the key behind the target": GOOD + "target: evil.Method\n",
    "a target twice": GOOD + "_target_: evil.Method\n",
    "a merge key": "base: &base {_target_: evil.Method}\n" + FRAME + "<<: *base\n",
    "a default outside": "defaults: [../../elsewhere/cnn, _self_]\n" + GOOD,
    "an absolute default": "defaults: [/method/cnn, _self_]\n" + GOOD,
    "a default of another group": "defaults: [{/dataset: digits}, _self_]\n" + GOOD,
    "a launcher": "defaults: [{override hydra/launcher: evil}, _self_]\n" + GOOD,
    "a search path": "hydra: {searchpath: ['file:///']}\n" + GOOD,
    "a callback": "hydra: {callbacks: {x: {_target_: evil.run}}}\n" + GOOD,
    "an environment variable": GOOD + "card: ${oc.env:SECRET}\n",
    "a resolver made of parts": GOOD.replace("title: t", "title: oc") + "card: '${${.title}.env:SECRET}'\n",
    "a decoder": GOOD + "card: \"${oc.decode:'1'}\"\n",
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_say_more_than_data(case: str, evil: Path, tmp_path: Path) -> None:
    path = tmp_path / "configs/method/bad.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FILES[case])
    with pytest.raises(ConfigError) as caught:
        Catalog(folders=[tmp_path / "configs"]).spec("method", "bad")
    assert "sesame" not in str(caught.value)


COMMANDS = [
    ["method._target_=evil.Method"],
    ["method.target=evil.Method"],
    ["++method._target_=evil.Method"],
    ["method.parameters._target_=evil.run"],
    ["method.parameters={_target_: evil.run}"],
    ["method.parameters.widths=${oc.env:SECRET}"],
    ["method=../../elsewhere/evil"],
    ["method=/etc/passwd"],
    ["dataset=../method/cnn"],
    ["fidelity=../fidelity/smoke"],
    ["executor=evil"],
    ["executor._target_=evil.run"],
    ["plugins=os"],
    ["plugins=../elsewhere"],
    ["plugins=os.path"],
    ["hydra.searchpath=[file:///]"],
    ["--config-dir=/"],
    ["hydra/launcher=evil"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_that_lead_elsewhere(arguments: list[str], evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["task=classification", "method=cnn", "dataset=digits", "fidelity=smoke", "device=cpu"]
    keys = {argument.partition("=")[0] for argument in arguments}
    command = ["plan", *(entry for entry in base if entry.partition("=")[0] not in keys), *arguments, "--json"]
    if arguments == ["plugins=os"]:  # a package may be named by the person who types; it names no method
        assert main(command) == 0
        return
    try:
        code = main(command)
    except SystemExit as error:  # argparse
        code = int(error.code or 0)
    assert code == 2
    assert "sesame" not in capsys.readouterr().err


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch called",)


def test_a_checkpoint_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cell = toy()
    folder = cell.folder(tmp_path)
    run_cell(cell, folder)
    for poison in (pickle.dumps(_Payload(), protocol=2), None):
        if poison is None:
            torch.save({"method": _Payload()}, folder / "checkpoint.pt")
        else:
            (folder / "checkpoint.pt").write_bytes(poison)
        with pytest.raises(AdlbenchError, match="cannot be read"):
            reevaluate(folder)
        assert run_cell(cell, folder).num_resumes == 0  # it starts anew instead
    np.savez(folder / "items.npz", top1=np.array([_Payload()], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        read_arrays(folder / "items.npz")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("target", ["evil.Method", "os.system", "adlbench.benchmark.api.Method"])
def test_a_cell_from_a_folder_is_trusted_no_more_than_a_file(target: str, evil: Path, tmp_path: Path) -> None:
    folder = toy().folder(tmp_path)
    run_cell(toy(), folder)
    cell = json.loads((folder / "cell.json").read_text())
    cell["method"]["target"] = target
    (folder / "cell.json").write_text(json.dumps(cell))
    with pytest.raises(ConfigError, match="allowed packages"):
        reevaluate(folder)
    spec = CellSpec.from_json((folder / "cell.json").read_text())
    with pytest.raises(ConfigError, match="allowed packages"):
        build_method(spec.method, spec.parameters)


@pytest.mark.parametrize(
    "instance", ["../../../../x", "/etc/x", "a/b", "..", ".", "", "a\0b", "x" * 400, "~/x", "a\nb"]
)
def test_cells_stay_in_the_results_folder(instance: str, tmp_path: Path) -> None:
    cell = replace(toy(), instance=instance)
    runs = (tmp_path / "runs").resolve()
    folder = cell.folder(tmp_path)
    assert folder.resolve().is_relative_to(runs)
    assert len(folder.relative_to(tmp_path / "runs").parts) == 5
    folder.mkdir(parents=True)


def test_a_link_out_of_the_results_folder_is_not_followed(tmp_path: Path) -> None:
    cell, outside = toy(), tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / "results/runs/toy"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    reasons: list[str] = []

    def on_event(event: Any) -> None:
        if event.record is not None:
            reasons.append(f"{event.record.status}: {event.record.reason}")

    make_executor(ExecutorSpec("local"), 1).run([cell], tmp_path / "results", on_event)
    assert len(reasons) == 1
    assert reasons[0].startswith("failed: could not be started")
    assert "leads out of" in reasons[0]
    assert list(outside.iterdir()) == []


def test_pictures_stay_in_the_cells_folder(tmp_path: Path) -> None:
    names = ["../../up", "/etc/passwd", "a/b", "..", "\0"]
    write_images(tmp_path / "images", {name: np.zeros((2, 2, 3), np.uint8) for name in names})
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert {path.parent for path in written} == {tmp_path / "images"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:sesame@host:5000/x", "http://user:***@host:5000/x"),
        ("postgresql+psycopg://user:sesame@127.0.0.1/db refused", "postgresql+psycopg://user:***@127.0.0.1/db refused"),
        ("no secret: here", "no secret: here"),
        ("token was open-sesame-2", "token was ***"),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "open-sesame-2")
    assert redacted(text) == shown


def test_cells_do_not_see_the_writers_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "sesame")
    cell = toy(misbehave="prints its environment")
    make_executor(ExecutorSpec("local", isolation="spawn"), 1).run([cell], tmp_path, lambda event: None)
    assert read_record(cell.folder(tmp_path)).status == "done"
    log = (cell.folder(tmp_path) / "log.txt").read_text()
    assert "PATH=" in log
    assert "sesame" not in log
