"""The acceptance test passes a method that keeps the contract, and names what a broken one does wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from tests_support import toy
from toybench.world import Linear

from adlbench.benchmark import acceptance
from adlbench.benchmark.acceptance import accept, hidden_by_fields
from adlbench.benchmark.cli.main import main


@pytest.mark.parametrize("method", ["linear", "toy_majority"])
def test_a_good_method_passes(method: str) -> None:
    failed = [check for check in accept(method, plugins=("toybench",)) if not check.passed]
    assert failed == []


@pytest.mark.parametrize(
    ("misbehaviour", "check", "message"),
    [
        ("synchronises", "no hidden sync", "_local_scalar_dense"),
        ("forgets its optimizer", "resumes", "differs in"),
        ("reads data in setup", "saves and loads", "restored without data"),
        ("raises", "sets up and steps", "no luck today"),
        ("diverges", "sets up and steps", "loss = nan"),
    ],
)
def test_a_broken_method_is_caught(
    misbehaviour: str, check: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = toy(misbehave=misbehaviour, at_step=1)
    cell = replace(cell, budget=replace(cell.budget, steps=4))
    monkeypatch.setattr(acceptance, "choose_cell", lambda *arguments: cell)
    failed = {found.name: found.detail for found in accept("linear") if not found.passed}
    assert check in failed
    assert message in failed[check]


def test_a_parameter_must_not_hide_a_method_of_the_contract() -> None:
    @dataclass(eq=False)
    class Hides(Linear):
        skip: int = 4  # type: ignore[assignment]

    assert hidden_by_fields(Hides) == ["skip"]
    assert hidden_by_fields(Linear) == []


def test_the_verb_answers_no(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "linear", "--plugins", "toybench"]) == 0
    assert "passed" in capsys.readouterr().out
    assert main(["test", "nothing_of_the_kind"]) == 2
