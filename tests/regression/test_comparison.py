"""Two sides from plan to verdict: what each kind of difference, and each wrong use, is answered with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gate_support import COINS, compared, fake_workers

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.config import Catalog, parse_request
from adlbench.benchmark.regression.comparison import _touches, plan_requests
from adlbench.benchmark.regression.summary import markdown, page, repeat_command, to_dict, write_all


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from fake_workers(monkeypatch)


def outcomes(result: object) -> dict[str, str]:
    return {f.what: f.outcome for f in result.speed} | {f.metric or "all": f.outcome for f in result.accuracy}  # type: ignore[attr-defined]


def test_the_same_code_passes_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    result = compared(tmp_path, say=said.append)
    assert result.exit_code == 0
    assert outcomes(result) == {"train": "pass", "inference": "pass", "memory": "pass", "all": "pass"}
    assert "equal to the bit" in result.accuracy[0].reason
    assert [line for line in said if line.startswith("accuracy")] == ["accuracy of coins/coins/worker/short/seed0"]
    assert result.hardware.endswith("1 thread")


@pytest.mark.parametrize(
    ("head", "code", "expected"),
    [
        ({"FACTOR": "1.06"}, 1, {"train": "slower", "inference": "slower"}),
        ({"FACTOR": "0.8"}, 0, {"train": "pass"}),
        ({"WALL": "1.5"}, 1, {"train": "slower"}),
        ({"MEMORY": "60"}, 1, {"memory": "heavier"}),
        ({"OVERRIDES": "method.parameters.accuracy=0.8"}, 1, {"top1": "worse", "train": "pass"}),
        ({"OVERRIDES": "method.parameters.accuracy=0.95"}, 0, {"top1": "pass"}),
        ({"OVERRIDES": "method.parameters.fails=true"}, 2, {"all": "could not run"}),
    ],
)
def test_what_is_different_is_found(tmp_path: Path, head: dict[str, str], code: int, expected: dict[str, str]) -> None:
    result = compared(tmp_path, head=head)
    assert result.exit_code == code
    assert outcomes(result).items() >= expected.items()


def test_a_cell_that_fails_in_the_base_only_is_no_pass(tmp_path: Path) -> None:
    result = compared(tmp_path, base={"OVERRIDES": "method.parameters.fails=true"})
    assert result.exit_code == 3
    assert "in the first side only: RuntimeError: no luck today" in result.accuracy[0].reason


def test_a_cell_that_is_gone_could_not_run_and_a_new_one_passes(tmp_path: Path) -> None:
    gone = compared(tmp_path, head={"OVERRIDES": "fidelity=smoke"}, seeds="0")
    assert gone.exit_code == 2
    reasons = {finding.group: finding.reason for finding in gone.accuracy}
    assert "the cell is gone" in reasons["coins/coins/worker/short"]
    assert "new: there is nothing" in reasons["coins/coins/worker/smoke"]


def test_too_few_seeds_are_inconclusive(tmp_path: Path) -> None:
    result = compared(tmp_path, head={"OVERRIDES": "method.parameters.accuracy=0.7"}, seeds="0,1,2", speed_too=False)
    assert result.exit_code == 3
    assert "3 shared seeds; 5 are needed" in result.accuracy[0].reason


def test_other_data_do_not_compare(tmp_path: Path) -> None:
    result = compared(tmp_path, head={"OVERRIDES": "dataset.parameters.num_test=300"}, speed_too=False)
    assert result.exit_code == 2
    assert "other data, fingerprint" in result.accuracy[0].reason


def test_a_noisy_machine_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROL", "1.1")
    result = compared(tmp_path, head={"FACTOR": "1.2"}, accuracy_too=False)
    assert result.exit_code == 3
    assert re.search(
        r"too noisy: the same code differs from itself by \+(9\.[5-9]|10\.[0-5]) %", result.speed[0].reason
    )


def test_without_time_it_is_inconclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(
        range(0, 10**6, 3)
    )  # every look at the clock is three seconds later, and thirty are given to each part
    monkeypatch.setattr("adlbench.benchmark.regression.session.time.monotonic", lambda: float(next(clock)))
    result = compared(tmp_path, accuracy_too=False)
    assert result.exit_code == 3
    assert "rounds fitted into the time budget" in result.speed[0].reason


def test_nothing_that_fits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AdlbenchError, match="no pair fits"):
        compared(
            tmp_path, requests=[["task=coins", "dataset=digits", "plugins=gateworld", "fidelity=short", "device=cpu"]]
        )


def test_changed_paths_choose_the_cells(tmp_path: Path) -> None:
    untouched = compared(tmp_path, changed=["docs/index.md", "methods/segmentation/minkunet.py"])
    assert (untouched.exit_code, untouched.accuracy, untouched.speed) == (0, [], [])
    assert "5 cells that no changed file below --paths can touch were left out" in untouched.notes
    assert compared(tmp_path, changed=["configs/method/worker.yaml"], speed_too=False).accuracy


@pytest.mark.parametrize(
    ("path", "touches"),
    [
        ("benchmark/cell.py", True),
        ("methods/nn/rays.py", True),
        ("methods/classification/cnn.py", True),
        ("methods/classification/vit.py", True),  # of the same family: cnn may import it
        ("methods/generation/vae.py", False),
        ("datasets/images/digits.py", True),
        ("datasets/scenes/tabletop.py", False),
        ("configs/method/cnn.yaml", True),
        ("configs/method/vae.yaml", False),
        ("constraints.txt", True),
        ("README.md", False),
        ("tests/test_x.py", False),
    ],
)
def test_which_files_touch_which_cells(path: str, touches: bool) -> None:
    cell = {
        "sources": ["adlbench.methods.classification.cnn.CNN", "adlbench.datasets.images.digits.Digits"],
        "axes": {"task": "classification", "dataset": "digits", "method": "cnn"},
    }
    assert _touches(path, cell) == touches


def test_the_gate_suite_becomes_requests_that_every_commit_plans_itself() -> None:
    suite = Catalog().spec("suite", "gate")
    plan = plan_requests(parse_request(["method=cnn", "task=classification", "device=cpu"]), suite)
    assert plan.max_steps == 200
    assert plan.requests[0] == [
        "task=classification", "dataset=digits", "method=cnn", "fidelity=short", "seed=0,1,2,3,4", "device=cpu",
    ]  # fmt: skip
    with pytest.raises(AdlbenchError, match="name a suite"):
        plan_requests(parse_request([]), None)


def test_summaries_tell_what_how_much_and_how_to_repeat_it(tmp_path: Path) -> None:
    result = compared(tmp_path, head={"FACTOR": "1.06", "OVERRIDES": "method.parameters.accuracy=0.8"})
    result.notes.append("<script>alert(1)</script>")
    text = markdown(result)
    assert "## Regression gate: slower or less accurate" in text
    assert re.search(r"- \*\*slower\*\* coins/coins/worker/short train: slower by [56]\.\d %", text)
    assert "- **worse** coins/coins/worker/short top1: worse by 0." in text
    command = repeat_command(result, "coins/coins/worker/short")
    assert command.startswith("adlbench compare aaaaaaaaaaaa bbbbbbbbbbbb task=coins dataset=coins method=worker")
    assert command in text
    assert repeat_command(result) == f"adlbench compare {'a' * 12} {'b' * 12} {' '.join(COINS)}"
    assert "<script>alert" not in page(result)
    paths = write_all(result, tmp_path / "out")
    assert json.loads(paths[1].read_text())["exit_code"] == to_dict(result)["exit_code"] == 1
    suite = ElementTree.parse(paths[2]).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "3", "0")
    assert {case.get("name") for case in suite if case.find("failure") is not None} == {"train", "inference", "top1"}
    drawing = ElementTree.parse(paths[4]).getroot()
    labels = [node.text or "" for node in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert sum("slower" in label for label in labels) == 2
