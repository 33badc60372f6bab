"""Configuration: what is valid composes, what is not is answered in one line with its remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adlbench.benchmark.cli.main import main
from adlbench.benchmark.config import Catalog, ConfigError, parse_request, resolve_method
from adlbench.benchmark.plan import plan
from adlbench.benchmark.specs import MethodSpec

CATALOG = Catalog()
METHOD = "_target_: adlbench.methods.classification.cnn.CNN\ntitle: t\nbudget: {steps: 1}\n"
TASK = """\
kind: classification
protocol: top1@1
description: d
datasets: [digits]
methods: [cnn]
metrics: {top1: {direction: up, primary: true}}
throughput_unit: images
"""


@pytest.mark.parametrize("group", ["task", "dataset", "method", "suite", "fidelity", "executor"])
def test_every_yaml_composes(group: str) -> None:
    names = CATALOG.names(group)
    assert names
    for name in names:
        assert CATALOG.spec(group, name).name == name


# (file below configs/, its text, what the one line must name)
BAD_FILES = {
    "unknown key": ("method/bad.yaml", METHOD + "budgets: {steps: 2}\n", ["budgets", "'budget'"]),
    "unknown hyperparameter": ("method/bad.yaml", METHOD + "parameters: {widhts: [8]}\n", ["widhts", "'widths'"]),
    "wrong type": (
        "method/bad.yaml",
        METHOD + "parameters: {learning_rate: fast}\n",
        ["learning_rate", "number", "'fast'"],
    ),
    "wrong type in the frame": ("method/bad.yaml", METHOD + "trivial: perhaps\n", ["trivial", "boolean"]),
    "target outside": ("method/bad.yaml", "_target_: os.system\ntitle: t\n", ["os.system", "allowed"]),
    "target of another kind": (
        "method/bad.yaml",
        "_target_: adlbench.datasets.classification.digits.Digits\ntitle: t\n",
        ["not a Method class"],
    ),
    "target that is a function": (
        "method/bad.yaml",
        "_target_: adlbench.benchmark.config.build_method\ntitle: t\n",
        ["not a Method class"],
    ),
    "target with a typo": (
        "method/bad.yaml",
        "_target_: adlbench.methods.classification.cnn.CNM\ntitle: t\n",
        ["CNM", "'CNN'"],
    ),
    "target that does not import": (
        "method/bad.yaml",
        "_target_: adlbench.nothing.Here\ntitle: t\n",
        ["cannot be imported"],
    ),
    "no target": ("method/bad.yaml", "title: t\n", ["_target_", "missing"]),
    "empty file": ("method/bad.yaml", "", ["empty"]),
    "a list": ("method/bad.yaml", "- a\n- b\n", ["mapping"]),
    "tabs": ("method/bad.yaml", "title: t\nbudget:\n\tsteps: 1\n", ["bad.yaml:3", "tab"]),
    "unclosed bracket": ("method/bad.yaml", "title: [t\nbudget: {steps: 1}\n", ["bad.yaml", "not valid YAML"]),
    "cyclic defaults": ("method/bad.yaml", "defaults: [bad, _self_]\n" + METHOD, ["cycle", "bad -> bad"]),
    "default that is absent": ("method/bad.yaml", "defaults: [cmn, _self_]\n" + METHOD, ["cmn", "'cnn'"]),
    "preset for an absent dataset": (
        "method/bad.yaml",
        METHOD + "presets: [{when: {dataset: digit}, set: {parameters: {}}}]\n",
        ["'digit'", "'digits'"],
    ),
    "preset on an unknown axis": (
        "method/bad.yaml",
        METHOD + "presets: [{when: {datasets: digits}, set: {parameters: {}}}]\n",
        ["datasets", "'dataset'"],
    ),
    "preset with a bad hyperparameter": (
        "method/bad.yaml",
        METHOD + "presets: [{when: {dataset: digits}, set: {parameters: {widhts: [8]}}}]\n",
        ["widhts", "'widths'"],
    ),
    "metric that does not exist": ("task/bad.yaml", TASK.replace("{top1:", "{tpo1:"), ["tpo1", "'top1'"]),
    "direction": ("task/bad.yaml", TASK.replace("up", "upwards"), ["direction", "'up' or 'down'"]),
    "protocol": ("task/bad.yaml", TASK.replace("top1@1", "top1@9"), ["top1@9", "'top1@1'"]),
    "kind": (
        "task/bad.yaml",
        TASK.replace("kind: classification", "kind: clasification"),
        ["kind", "'classification'"],
    ),
    "kind against protocol": (
        "task/bad.yaml",
        TASK.replace("kind: classification", "kind: generation"),
        ["does not go with"],
    ),
    "method of a task": ("task/bad.yaml", TASK.replace("[cnn]", "[cnnn]"), ["'cnnn'", "'cnn'"]),
    "task that is missing keys": ("task/bad.yaml", "kind: classification\n", ["'protocol'", "missing"]),
    "reference without a source": (
        "task/bad.yaml",
        TASK + "references: [{method: cnn, dataset: digits, top1: 99}]\n",
        ["source"],
    ),
    "option of the protocol": ("task/bad.yaml", TASK + "options: {colour: red}\n", ["colour"]),
    "target in a task": ("task/bad.yaml", TASK + "_target_: os.system\n", ["_target_", "remove"]),
    "suite": (
        "suite/bad.yaml",
        "description: d\ncells: [{task: clasification}]\n",
        ["'clasification'", "'classification'"],
    ),
    "interpolation": ("method/bad.yaml", METHOD + "card: ${nowhere}\n", ["nowhere"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_answered_in_one_line(case: str, tmp_path: Path) -> None:
    name, text, expected = BAD_FILES[case]
    path = tmp_path / "configs" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    catalog = Catalog(folders=[tmp_path / "configs"])
    with pytest.raises(ConfigError) as caught:
        catalog.spec(path.parent.name, path.stem)
    matching = [line for line in caught.value.problems if all(word in line for word in expected)]
    assert matching, caught.value.problems
    assert all("\n" not in line and "configs/" in line for line in caught.value.problems)


BAD_COMMANDS = {
    "unknown key": (["task=classification", "metod=cnn"], ["metod", "'method'"]),
    "unknown method": (["task=classification", "method=cnnn"], ["cnnn", "'cnn'"]),
    "unknown task": (["task=clasification"], ["'classification'"]),
    "unknown suite": (["suite=demoo"], ["'demo'"]),
    "unknown fidelity": (["suite=demo", "fidelity=smoky"], ["'smoke'"]),
    "seed that is no number": (["suite=demo", "seed=one"], ["seed", "integer", "'one'"]),
    "not key=value": (["demo"], ["key=value"]),
    "two suites": (["suite=demo,short"], ["one value"]),
    "hyperparameter": (["task=classification", "method=cnn", "method.parameters.depht=3"], ["depht"]),
    "hyperparameter's type": (
        ["task=classification", "method=cnn", "method.parameters.learning_rate=abc"],
        ["learning_rate", "'abc'"],
    ),
    "key of a node": (["task=classification", "task.protokol=x"], ["protokol", "'protocol'"]),
    "device": (["suite=demo", "device=tpu"], ["tpu", "cpu"]),
    "plug-in": (["suite=demo", "plugins=nowhere_to_be_found"], ["nowhere_to_be_found"]),
    "executor": (["suite=demo", "executor=locale"], ["'local'"]),
    "nothing": ([], ["suite=demo"]),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_command_exits_with_2(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = BAD_COMMANDS[case]
    assert main(["plan", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert any(all(word in line for word in expected) for line in lines), lines
    assert all(line.startswith("error: ") for line in lines)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "configs/method/bad.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(METHOD + "colour: red\nparameters: {learning_rate: fast, depht: 3}\n")
    with pytest.raises(ConfigError) as caught:
        Catalog(folders=[tmp_path / "configs"]).spec("method", "bad")
    assert len(caught.value.problems) == 3


def test_target_outside_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "configs/method/bad.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("_target_: evil.Method\ntitle: t\n")
    with pytest.raises(ConfigError, match="allowed"):
        Catalog(folders=[tmp_path / "configs"]).spec("method", "bad")
    assert "evil" not in sys.modules


def test_defaults_make_a_variant(tmp_path: Path) -> None:
    path = tmp_path / "configs/method/variant.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("defaults: [cnn, _self_]\ntitle: A variant\n")
    variant = Catalog(folders=[tmp_path / "configs"]).spec("method", "variant")
    base = CATALOG.spec("method", "cnn")
    assert variant.title == "A variant"
    assert (variant.target, variant.parameters) == (base.target, base.parameters)


def test_requests_sweep_as_hydra_does() -> None:
    request = parse_request(
        ["task=a", "method=vit,cnn", "seed=range(0,3)", "method.parameters.lr=1e-3", "budget.steps=5"]
    )
    assert request.method == ("vit", "cnn")
    assert request.seed == (0, 1, 2)
    assert request.nodes == {"method.parameters.lr": 1e-3, "method.budget.steps": 5}


def _spec() -> MethodSpec:
    return Catalog(plugins=("toybench",)).spec("method", "linear")  # type: ignore[no-any-return]


def test_presets_apply_in_order_and_are_reported() -> None:
    resolved = resolve_method(_spec(), {}, fidelity="smoke", dataset="blobs", task="toy", instance="all", device="cpu")
    assert resolved.budget.steps == 6
    assert resolved.applied_presets == ("0: fidelity=smoke",)
    assert (
        resolve_method(_spec(), {}, fidelity="short", dataset="b", task="t", instance="all", device="cpu").budget.steps
        == 40
    )


def test_command_line_wins_over_presets() -> None:
    changed = {"budget.seconds": 2.0, "parameters.lr": 0.5}
    resolved = resolve_method(_spec(), changed, fidelity="smoke", dataset="b", task="t", instance="all", device="cpu")
    assert (resolved.budget.steps, resolved.budget.seconds, resolved.parameters["lr"]) == (None, 2.0, 0.5)


def test_help_and_list_import_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys; from adlbench.benchmark.cli.main import main\n"
        "main(['list'])\n"
        "heavy = {'torch', 'mlflow', 'hydra', 'pandas', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


def test_a_suite_cuts_budgets_and_its_entries_may_differ() -> None:
    cells = plan(parse_request(["suite=gate", "device=cpu", "seed=0"]), Catalog()).cells
    steps = {(cell.task.name, cell.method.name): cell.budget.steps for cell in cells}
    assert steps["classification", "cnn"] == 400
    assert steps["classification", "pointnet"] == 200
    assert steps["classification", "knn_pixels"] == 1  # fits in fewer, and keeps its own
