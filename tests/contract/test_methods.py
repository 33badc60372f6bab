"""Every method of the suite passes the acceptance test on embedded data."""

from __future__ import annotations

import pytest

from adlbench.benchmark.acceptance import accept
from adlbench.benchmark.config import Catalog

METHODS = Catalog().names("method")


@pytest.mark.parametrize("method", METHODS)
def test_method_keeps_the_contract(method: str) -> None:
    failed = [f"{check.name}: {check.detail}" for check in accept(method) if not check.passed]
    assert failed == []


def test_every_method_is_in_a_task() -> None:
    catalog = Catalog()
    named = {method for task in catalog.names("task") for method in catalog.spec("task", task).methods}
    assert set(METHODS) == named


def test_every_task_has_a_trivial_method_that_real_ones_must_beat() -> None:
    catalog = Catalog()
    for task in catalog.names("task"):
        methods = [catalog.spec("method", name) for name in catalog.spec("task", task).methods]
        assert any(method.trivial for method in methods), task
        assert any(not method.trivial for method in methods), task


def test_every_method_names_its_source_and_has_a_budget_at_each_fidelity() -> None:
    catalog = Catalog()
    for name in METHODS:
        spec = catalog.spec("method", name)
        assert spec.licence, name
        assert spec.trivial or spec.paper, name
        smoke = [preset for preset in spec.presets if preset.when.fidelity == "smoke"]
        assert spec.trivial or smoke, f"{name} has no smoke preset"
