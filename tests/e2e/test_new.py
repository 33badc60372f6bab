"""`adlbench new` writes files that work as they are: every template keeps the contract, and nothing is overwritten."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from adlbench.benchmark.acceptance import accept
from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.cli.main import main
from adlbench.benchmark.config import Catalog
from adlbench.benchmark.scaffold import PRESETS, TEMPLATES, find_place, name_in_task, new_method

ROOT = Path(__file__).parents[2]
TASKS = {
    "classification_image": ("classification", "image"),
    "classification_points": ("classification", "points"),
    "segmentation_points": ("segmentation", "points"),
    "reconstruction_image": ("image_reconstruction", "image"),
    "reconstruction_field": ("field_reconstruction", "field"),
    "reconstruction_shape": ("shape_reconstruction", "shape"),
    "generation_image": ("generation", "image"),
    "novel_view_synthesis_posed_images": ("novel_view_synthesis", "posed_images"),
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As much of a checkout as `new` looks at."""
    for folder in ("configs/method", "configs/task", "configs/dataset"):
        shutil.copytree(ROOT / folder, tmp_path / "clone" / folder)
    (tmp_path / "clone" / "src" / "adlbench").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


def test_every_template_is_tried() -> None:
    assert set(TASKS) == set(PRESETS) == {path.stem for path in TEMPLATES.glob("*.py")} - {"dataset"}


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "reconstruction_shape" else ())  # a minute of meshing
        for name in sorted(TASKS)
    ],
)
def test_a_new_method_keeps_the_contract(template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, modality = TASKS[template]
    package = f"author_{template}"
    files = new_method("my_net", task, find_place(str(tmp_path / package)), modality)
    assert [path.name for path in files] == ["my_net.py", "my_net.yaml", "test_my_net.py"]
    assert "NewMethod" not in files[0].read_text()
    monkeypatch.syspath_prepend(tmp_path)
    checks = accept("my_net", task=task, plugins=(package,), dataset=_dataset(files[2]))
    assert [check for check in checks if not check.passed] == []


def _dataset(test: Path) -> str:
    """The dataset that the written test uses."""
    return test.read_text().partition("dataset='")[2].partition("'")[0]


def test_in_a_checkout_the_task_names_it_and_its_comments_stay(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (checkout / "configs/task/classification.yaml").read_text()
    assert main(["new", "method", "my_net", "--task", "classification"]) == 0
    printed = capsys.readouterr().out
    assert "methods/classification/my_net.py" in printed
    assert "adlbench test my_net" in printed
    after = (checkout / "configs/task/classification.yaml").read_text()
    assert yaml.safe_load(after)["methods"] == [*yaml.safe_load(before)["methods"], "my_net"]
    assert after.replace(", my_net", "") == before
    spec = yaml.safe_load((checkout / "configs/method/my_net.yaml").read_text())
    assert spec["_target_"] == "adlbench.methods.classification.my_net.MyNet"


def test_a_new_dataset_passes_the_test_that_comes_with_it(tmp_path: Path) -> None:
    package = tmp_path / "mydata"
    assert main(["new", "dataset", "my_images", "--task", "classification", "--into", str(package)]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_my_images.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**__import__("os").environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_a_new_task_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mytasks").mkdir()
    assert main(["new", "task", "my_task", "--like", "novel_view_synthesis", "--into", str(tmp_path / "mytasks")]) == 0
    monkeypatch.syspath_prepend(tmp_path)
    catalog = Catalog(plugins=("mytasks",))
    mine, model = catalog.spec("task", "my_task"), catalog.spec("task", "novel_view_synthesis")
    assert (mine.protocol, mine.metrics, mine.options) == (model.protocol, model.metrics, model.options)
    assert mine.references == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method", "cnn", "--task", "classification"], "there is a method 'cnn' already"),
        (["method", "My-Net", "--task", "classification"], "is no name for a method"),
        (["method", "class", "--task", "classification"], "is no name for a method"),
        (["method", "../x", "--task", "classification"], "is no name for a method"),
        (["method", "my_net", "--task", "clasification"], "did you mean 'classification'"),
        (["method", "my_net", "--task", "classification", "--modality", "sound"], "there is no template for it"),
        (["method", "my_net"], "needs --task"),
        (["task", "my_task"], "needs --like"),
        (["dataset", "my_data", "--task", "generation"], "a template for classification only"),
        (["method", "my_net", "--task", "classification", "--into", "my-package"], "is no name of a package"),
    ],
)
def test_wrong_use_is_answered(
    arguments: list[str], message: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(checkout.rglob("*"))
    assert main(["new", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(checkout.rglob("*")) == before


def test_nothing_is_overwritten(checkout: Path) -> None:
    target = checkout / "configs" / "method" / "my_net.yaml"
    target.write_text("mine")
    with pytest.raises(AdlbenchError, match="is there already"):
        new_method("my_net", "classification", find_place(None))
    assert target.read_text() == "mine"
    assert not (checkout / "methods").exists()


def test_outside_of_a_checkout_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdlbenchError, match="--into"):
        find_place(None)


def test_a_list_over_several_lines_is_extended(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("methods: [a, b,\n  c]  # kept\ndatasets: [d]\n")
    name_in_task(path, "methods", "mine")
    assert path.read_text() == "methods: [a, b,\n  c, mine]  # kept\ndatasets: [d]\n"
