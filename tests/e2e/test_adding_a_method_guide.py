"""The guide's example works as it stands in docs/adding-a-method.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adlbench.benchmark.acceptance import accept
from adlbench.benchmark.config import Catalog, build_method

GUIDE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The first Python and the first YAML block of the guide, as a package outside this one."""
    folder = tmp_path / "guidebench"
    (folder / "configs" / "method").mkdir(parents=True)
    (folder / "deep_sets.py").write_text(blocks("python")[0], encoding="utf-8")
    target = "adlbench.methods.classification.deep_sets"
    yaml = blocks("yaml")[0]
    assert target in yaml
    (folder / "configs" / "method" / "deep_sets.yaml").write_text(
        yaml.replace(target, "guidebench.deep_sets"), encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "guidebench"


def test_the_example_keeps_the_contract(package: str) -> None:
    checks = accept("deep_sets", dataset="furniture", task="classification", plugins=(package,))
    assert [check for check in checks if not check.passed] == []


def test_the_yaml_sets_every_preset(package: str) -> None:
    spec = Catalog(plugins=(package,)).spec("method", "deep_sets")
    assert {preset.when.fidelity for preset in spec.presets} == {"smoke", "demo", "full"}
    assert build_method(spec, spec.parameters).serves


def test_the_files_that_the_guide_names_are_there() -> None:
    root = GUIDE.parents[1]
    named = set(re.findall(r"`((?:benchmark|methods|configs)/[\w/]+\.(?:py|yaml))`", GUIDE.read_text(encoding="utf-8")))
    assert "benchmark/api.py" in named
    assert [name for name in named if "deep_sets" not in name and not (root / name).is_file()] == []
