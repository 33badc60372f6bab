"""Files to start from: a method that works and learns, its YAML and its test; a dataset; a task.

The templates in ``templates/`` are ordinary modules that the tests run. Writing one for an author means to replace its
names; what is left for the author is marked in capitals.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adlbench.benchmark.api import AdlbenchError, Modality, TaskKind
from adlbench.benchmark.config import Catalog, build_dataset
from adlbench.benchmark.specs import TaskSpec
from adlbench.benchmark.tasks.protocols import evaluator_class

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"[a-z][a-z0-9_]*")
# What is small in `smoke`, and how long `short` takes, by template.
PRESETS: Mapping[str, tuple[str, str]] = {
    "classification_image": ("{batch_size: 16, width: 4}", "{steps: 1500}"),
    "classification_points": ("{batch_size: 8, width: 8}", "{steps: 1500}"),
    "segmentation_points": ("{batch_size: 4, width: 8}", "{steps: 1000}"),
    "reconstruction_image": ("{batch_size: 16, width: 32}", "{steps: 3000}"),
    "reconstruction_field": ("{batch_size: 256, width: 16, num_features: 16}", "{steps: 2000}"),
    "reconstruction_shape": ("{width: 32, samples: 64, fit_steps: 2}", "{steps: 500}"),
    "generation_image": ("{batch_size: 16, width: 16, latent: 4}", "{steps: 4000}"),
    "novel_view_synthesis_posed_images": ("{resolution: 16, samples: 8, batch_rays: 64}", "{steps: 1500}"),
}


@dataclass(frozen=True)
class Place:
    """Where the files of an author go: into a checkout of adlbench, or into a package of the author's own."""

    root: Path
    package: str  # what `_target_` starts with
    outside: bool

    def module(self, family: str, name: str) -> tuple[Path, str]:
        """The file of a module, and its import path."""
        if self.outside:
            return self.root / f"{name}.py", f"{self.package}.{name}"
        return self.root / family / f"{name}.py", f"{self.package}.{family.replace('/', '.')}.{name}"

    def config(self, group: str, name: str) -> Path:
        return self.root / "configs" / group / f"{name}.yaml"

    def test(self, group: str, name: str) -> Path:
        folder = self.root.parent / "tests" if self.outside else self.root / "tests" / group
        return folder / f"test_{name}.py"


def find_place(into: str | None) -> Place:
    """``into`` is the folder of a package; without it, the checkout of adlbench around the present folder."""
    if into is not None:
        root = Path(into).resolve()
        if not NAME.fullmatch(root.name):
            raise AdlbenchError(
                f"--into {into}: {root.name!r} is no name of a package; use small letters, digits and _"
            )
        return Place(root, root.name, outside=True)
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "src" / "adlbench").is_dir() and (folder / "configs" / "method").is_dir():
            return Place(folder, "adlbench", outside=False)
    raise AdlbenchError("this is no checkout of adlbench; stand in one, or give the folder of your package with --into")


def new_method(
    name: str, task: str, place: Place, modality: str | None = None, catalog: Catalog | None = None
) -> list[Path]:
    """Write a method, its YAML and its test, and name it in the task. Returns the files, the changed one last.

    Raises AdlbenchError for a name that is taken or no identifier, and for a file that is there already.
    """
    catalog = catalog or Catalog()
    check_name(name, "method", catalog)
    spec: TaskSpec = catalog.spec("task", task)
    template = choose_template(spec, modality)
    consumed = template.removeprefix(f"{spec.kind.value}_")
    module, target = place.module(f"methods/{spec.kind.value}", name)
    class_name = camel(name)
    small, budget = PRESETS[template]
    source = (TEMPLATES / f"{template}.py").read_text(encoding="utf-8").replace("NewMethod", class_name)
    yaml = METHOD_YAML.format(target=f"{target}.{class_name}", title=class_name, small=small, budget=budget)
    plugins = f", plugins=({place.package!r},)" if place.outside else ""
    test = METHOD_TEST.format(
        name=name, task=task, dataset=first_dataset(spec, consumed, catalog), plugins=plugins, title=class_name
    )
    written = write({module: source, place.config("method", name): yaml, place.test("methods", name): test})
    if not place.outside:
        written.append(name_in_task(place.root / "configs" / "task" / f"{task}.yaml", "methods", name))
    return written


def new_dataset(name: str, task: str, place: Place, catalog: Catalog | None = None) -> list[Path]:
    """Write a dataset of images in folders, its YAML and its test, and name it in the task."""
    catalog = catalog or Catalog()
    check_name(name, "dataset", catalog)
    spec: TaskSpec = catalog.spec("task", task)
    if spec.kind is not TaskKind.CLASSIFICATION:
        raise AdlbenchError(
            f"--task {task}: there is a template for classification only; the datasets in datasets/{spec.kind.value}/ "
            "are the models for this task"
        )
    module, target = place.module(f"datasets/{spec.kind.value}", name)
    class_name = camel(name)
    source = (TEMPLATES / "dataset.py").read_text(encoding="utf-8").replace("NewDataset", class_name)
    source = source.replace("new_dataset", name)
    yaml = DATASET_YAML.format(target=f"{target}.{class_name}", title=class_name, name=name)
    test = DATASET_TEST.format(module=target, name=name, title=class_name)
    written = write({module: source, place.config("dataset", name): yaml, place.test("datasets", name): test})
    if not place.outside:
        written.append(name_in_task(place.root / "configs" / "task" / f"{task}.yaml", "datasets", name))
    return written


def new_task(name: str, like: str, place: Place, catalog: Catalog | None = None) -> list[Path]:
    """Write a task with the kind, the protocol and the metrics of another, for datasets and methods of its own."""
    catalog = catalog or Catalog()
    check_name(name, "task", catalog)
    path = catalog.path("task", like)
    kept = []
    skipping = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith((" ", "-")):
            skipping = line.startswith("references:")
        if skipping or line.startswith("#"):
            continue
        kept.append("description: ONE LINE THAT SAYS WHAT IS ASKED" if line.startswith("description:") else line)
    text = f"# A task of the kind and protocol of {like}; list the datasets and the methods that are to meet.\n"
    return write({place.config("task", name): text + "\n".join(kept) + "\nreferences: []\n"})


# -------------------------------------------------------------------------------------------------------------- helpers
def check_name(name: str, group: str, catalog: Catalog) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise AdlbenchError(f"{name!r} is no name for a {group}; use small letters, digits and _, a letter first")
    if name in catalog.names(group):
        raise AdlbenchError(
            f"there is a {group} {name!r} already ({catalog.path(group, name).name}); take another name"
        )


def choose_template(spec: TaskSpec, modality: str | None) -> str:
    allowed = evaluator_class(spec.protocol).modalities
    fitting = [f"{spec.kind.value}_{m.value}" for m in Modality if m in allowed]
    fitting = [template for template in fitting if template in PRESETS]
    if modality is not None:
        fitting = [template for template in fitting if template == f"{spec.kind.value}_{modality}"]
    if not fitting:
        known = ", ".join(sorted(PRESETS))
        what = f"--modality {modality}" if modality else f"--task {spec.name}"
        raise AdlbenchError(f"{what}: there is no template for it; there are: {known}")
    return fitting[0]


def first_dataset(spec: TaskSpec, modality: str, catalog: Catalog) -> str:
    """A dataset that is always here, for the test."""
    for name in spec.datasets:
        dataset = build_dataset(catalog.spec("dataset", name))
        if dataset.missing() is None and dataset.schema(dataset.instances()[0]).modality == modality:
            return name
    raise AdlbenchError(f"task {spec.name}: none of its datasets with {modality} is here; prepare one first")


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def write(files: Mapping[Path, str]) -> list[Path]:
    """All or none. Raises AdlbenchError when a file is there already."""
    for path in files:
        if path.exists():
            raise AdlbenchError(f"{path} is there already; delete it first, or take another name")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def name_in_task(path: Path, key: str, name: str) -> Path:
    """Append ``name`` to the list ``key: [...]`` of a task's YAML, whose comments stay."""
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(rf"(?ms)^({key}:\s*\[)([^\]]*?)(\s*\])", rf"\g<1>\g<2>, {name}\g<3>", text, count=1)
    if count != 1:
        raise AdlbenchError(f"{path}: no list of the form `{key}: [a, b]`; add {name} to its {key} by hand")
    path.write_text(changed, encoding="utf-8")
    return path


METHOD_YAML = """\
# WHAT IT IS, AND WHEN TO USE IT, in a line.
_target_: {target}
title: {title}
paper: "AUTHORS YEAR, TITLE"
licence: Apache-2.0              # of this implementation
trivial: false                   # true for a baseline that every real method must beat
card: "WHAT DIFFERS FROM THE PAPER"
parameters: {{}}                   # the fields of the class, where the default is not right
budget: {budget}             # at fidelity short: CPU minutes
presets:                         # in order, where all of `when` matches; recorded with the result
  - when: {{fidelity: smoke}}      # seconds: proves that it runs
    set: {{parameters: {small}, budget: {{steps: 3}}}}
  - when: {{fidelity: demo}}       # twelve seconds of one core: learns visibly
    set: {{budget: {{seconds: 12}}}}
"""
METHOD_TEST = '''\
"""{title} keeps the contract. Add what its users rely on: a closed form, a peer with the same weights, the paper's numbers."""

from __future__ import annotations

from adlbench.benchmark.acceptance import accept


def test_keeps_the_contract() -> None:
    checks = accept({name!r}, dataset={dataset!r}, task={task!r}{plugins})
    assert [check for check in checks if not check.passed] == []
'''
DATASET_YAML = """\
# WHAT IT HOLDS, in a line.
_target_: {target}
title: {title}
description: "WHAT AN ITEM IS; whose split it is"
licence: "LICENCE OF THE DATA"
citation: "AUTHORS YEAR, TITLE"
homepage: ""
size: "NUMBER OF TRAINING AND TEST ITEMS, MEGABYTES"
generated: false
how_to_get: "put train/<class>/*.png and test/<class>/*.png into <data root>/{name}"
parameters:
  folder: {name}
"""
DATASET_TEST = '''\
"""{title} loads what lies in its folder, and names what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adlbench.benchmark.api import DataError
from {module} import {title}


def write_images(root: Path) -> None:
    for split in ("train", "test"):
        for index, name in enumerate(("cat", "dog")):
            folder = root / {name!r} / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(np.full((6, 8, 3), 100 * index + number, np.uint8)).save(folder / f"{{number}}.png")


def test_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    assert {title}().missing() is not None
    write_images(tmp_path)
    dataset = {title}()
    assert dataset.missing() is None
    schema = dataset.schema()
    assert (schema.classes, schema.image_size, schema.num_train, schema.num_test) == (("cat", "dog"), (6, 8), 4, 4)
    items = dataset.load("all", "train").all()
    assert items["image"].shape == (4, 3, 6, 8)
    assert items["label"].tolist() == [0, 0, 1, 1]
    assert items["image"][3].unique().tolist() == [101]


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    write_images(tmp_path)
    (tmp_path / {name!r} / "train" / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\\.png"):
        {title}().load("all", "train")
'''
