"""The plug-in in a pytest session of its own, as a method's author would use it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

PASSING = """
import pytest

@pytest.mark.adlbench_gate
def test_metric(adlbench_cell):
    assert adlbench_cell("task=coins method=worker plugins=gateworld fidelity=short device=cpu").metric("top1") >= 0.8

@pytest.mark.adlbench_gate
def test_mean_over_seeds(adlbench_cell):
    both = adlbench_cell("task=coins method=worker plugins=gateworld fidelity=short device=cpu seed=0,1")
    values = [record.metrics["top1"] for record in both.records]
    assert len(values) == 2
    assert both.metric("top1") == sum(values) / 2
    assert both.throughput > 0

def test_other():
    pass
"""
FAILING = """
CELL = "task=coins method=worker plugins=gateworld fidelity=short device=cpu"

def test_below(adlbench_cell):
    assert adlbench_cell(CELL).metric("top1") >= 0.99

def test_unknown_metric(adlbench_cell):
    adlbench_cell(CELL).metric("top")

def test_failed_cell(adlbench_cell):
    adlbench_cell(CELL + " method.parameters.fails=true").metric("top1")

def test_several_cells(adlbench_cell):
    adlbench_cell("task=image_reconstruction dataset=digits fidelity=smoke device=cpu")

def test_no_cell(adlbench_cell):
    adlbench_cell(CELL + " dataset=digits")
"""
LOADED = ("-p", "adlbench.benchmark.regression.pytest_plugin", "-p", "no:cacheprovider", "--strict-markers")


def test_gates_hold_and_can_be_chosen(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PASSING)
    pytester.runpytest_subprocess(*LOADED).assert_outcomes(passed=3)
    pytester.runpytest_inprocess(*LOADED, "-m", "not adlbench_gate").assert_outcomes(passed=1, deselected=2)


def test_what_does_not_hold_says_why(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    result = pytester.runpytest_subprocess(*LOADED)  # in this process torch would be loaded twice
    result.assert_outcomes(failed=5)
    result.stdout.fnmatch_lines(
        [
            "*has no 'top'; did you mean 'top1'?*",
            "*ended failed: RuntimeError: no luck today*",
            "*means 2 cells: *autoencoder*, *pca*; name one task*",
            "*means 0 cells: digits with worker: *",
        ]
    )
