"""Methods are compared pair by pair: shared seeds, shared items, signs that follow the metric's direction."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from tests_support import toy

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.cli import compare_methods as verb
from adlbench.benchmark.cli.main import main
from adlbench.benchmark.leaderboard.comparison import compare_methods
from adlbench.benchmark.leaderboard.comparison_pictures import _rgb, draw_duel, write_pictures
from adlbench.benchmark.records import Record, write_arrays, write_record

RNG = np.random.default_rng(0)


def record(results: Path, method: str, seed: int, items: np.ndarray, **changes: object) -> Path:
    """A finished cell with two metrics: ``gain`` (up) is the mean of ``items``, ``loss`` (down) its negative."""
    specs = {
        "gain": {"direction": "up", "unit": "dB", "primary": True, "margin": None},
        "loss": {"direction": "down", "unit": "", "primary": False, "margin": None},
    }
    fields = {
        "cell_key": f"{method}{seed}", "name": f"toy/blobs/{method}/smoke/seed{seed}", "status": "done", "task": "toy",
        "kind": "classification", "protocol": "top1@1", "dataset": "blobs", "instance": "all", "method": method,
        "fidelity": "smoke", "seed": seed, "started": "", "primary": "gain", "data_fingerprint": "f",
        "metrics": {"gain": float(items.mean()), "loss": float(-items.mean())},
        "specification": {"task": {"metrics": specs}},
    }  # fmt: skip
    folder = results / "runs" / f"{method}-{seed}-{len(changes)}"
    write_record(folder, Record(**{**fields, **changes}))  # type: ignore[arg-type]
    write_arrays(folder / "items.npz", {"gain": items, "loss": -items})
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed in range(3):
        base = RNG.normal(size=40)
        record(tmp_path, "mine", seed, base + 1.0 + 0.1 * seed)
        record(tmp_path, "other", seed, base + RNG.normal(size=40))
    record(tmp_path, "other", 7, RNG.normal(size=40))  # a seed that mine does not have
    return tmp_path


def test_difference_and_interval_equal_scipy(results: Path) -> None:
    (duel,) = compare_methods(results, "mine", ["other"])
    values = {
        name: [
            json.loads((results / f"runs/{name}-{s}-0/record.json").read_text())["metrics"]["gain"] for s in range(3)
        ]
        for name in ("mine", "other")
    }
    test = stats.ttest_rel(values["mine"], values["other"])
    low, high = test.confidence_interval(0.95)
    assert duel.seeds == (0, 1, 2)
    assert duel.difference == pytest.approx((low + high) / 2)
    assert duel.interval == pytest.approx((high - low) / 2)
    assert (duel.verdict == "better") == (low > 0)


def test_items_are_counted_and_ordered(results: Path) -> None:
    (duel,) = compare_methods(results, "mine", ["other"])
    arrays = [
        [np.load(results / f"runs/{name}-{s}-0/items.npz")["gain"] for s in range(3)] for name in ("mine", "other")
    ]
    difference = np.concatenate(arrays[0]) - np.concatenate(arrays[1])
    assert (duel.items, duel.wins, duel.losses) == (120, (difference > 0).sum(), (difference < 0).sum())
    assert duel.win_share == pytest.approx(duel.wins / 120)
    first = np.abs(arrays[0][0] - arrays[1][0])
    assert list(duel.widest) == np.argsort(-first)[:32].tolist()


def test_a_metric_that_falls_is_turned_around(results: Path) -> None:
    gain, loss = compare_methods(results, "mine", ["other"], all_metrics=True)
    assert (gain.metric, loss.metric) == ("gain", "loss")
    assert gain.difference == pytest.approx(loss.difference)
    assert (gain.wins, gain.widest) == (loss.wins, loss.widest)
    back = compare_methods(results, "other", ["mine"])[0]
    assert back.difference == pytest.approx(-gain.difference)
    assert (back.wins, back.losses) == (gain.losses, gain.wins)


def test_one_seed_shows_no_difference_and_equal_ones_are_equal(tmp_path: Path) -> None:
    items = RNG.normal(size=10)
    for method, shift in (("mine", 0.5), ("other", 0.0), ("same", 0.5)):
        record(tmp_path, method, 0, items + shift)
    duels = {duel.other: duel for duel in compare_methods(tmp_path, "mine", ["other", "same"])}
    assert (duels["other"].interval, duels["other"].verdict) == (None, "one seed, not tested")
    assert (duels["same"].verdict, duels["same"].win_share, duels["same"].widest) == ("equal", None, ())


@pytest.mark.parametrize(
    "change", [{"data_fingerprint": "g"}, {"protocol": "top1@2"}, {"fidelity": "short"}, {"dataset": "b"}]
)
def test_what_is_not_the_same_never_meets(tmp_path: Path, change: dict[str, object]) -> None:
    record(tmp_path, "mine", 0, RNG.normal(size=4))
    record(tmp_path, "other", 0, RNG.normal(size=4), **change)
    with pytest.raises(AdlbenchError, match="share no dataset"):
        compare_methods(tmp_path, "mine", ["other"])


def test_what_is_not_there_is_named(results: Path) -> None:
    with pytest.raises(AdlbenchError, match="nobody has no finished cell"):
        compare_methods(results, "mine", ["nobody"])


def test_pictures_show_the_items_that_differ_most(results: Path, tmp_path: Path) -> None:
    cell = toy()
    labels = {"mine": np.ones(32, np.uint8), "other": np.zeros(32, np.uint8)}
    for method, label in labels.items():
        folder = results / "runs" / f"{method}-0-0"
        (folder / "cell.json").write_text(cell.to_json())
        write_arrays(folder / "predictions.npz", {"label": label})
        items = read = np.load(folder / "items.npz")["gain"][:32]
        write_arrays(folder / "items.npz", {"gain": read, "loss": -items})
    (duel,) = compare_methods(results, "mine", ["other"])
    duel = type(duel)(**{**asdict(duel), "folders": duel.folders, "widest": (3, 5)})
    picture = draw_duel(duel, 2)
    assert picture is not None
    assert picture.shape == (2 * (160 + 16 + 4), 3 * 160 + 2 * 4, 3)
    files = write_pictures([duel], tmp_path / "pictures")
    assert [path.suffix for path in files] == [".png", ".json"]
    assert Image.open(files[0]).size == (picture.shape[1], picture.shape[0])


def test_channels_first_and_last_are_told_apart() -> None:
    grey = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
    assert _rgb(grey).shape == (4, 5, 3)
    assert (_rgb(grey)[..., 1] == grey[0]).all()
    colour = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert (_rgb(colour) == colour).all()
    assert (_rgb(colour.transpose(2, 0, 1)) == colour).all()


def test_the_verb_tells_methods_from_commits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, shift in (("cnn", 1.0), ("vit", 0.0)):
        record(tmp_path, method, 0, RNG.normal(size=10) + shift)
    assert main(["compare", "cnn", "vit", "--results-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["duels"][0]["other"] == "vit"
    assert main(["compare", "cnn", "vit", "--suite", "gate"]) == 2  # commits of these names: none
    assert "duels" not in capsys.readouterr().out


def test_the_table_and_the_json(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    verb.add_options(parser)
    assert verb.run("mine", ["other"], parser.parse_args(["--results-dir", str(results)])) == 0
    printed = capsys.readouterr().out
    assert "mine against other" in printed
    assert "of 120" in printed
    assert verb.run("mine", ["other"], parser.parse_args(["--results-dir", str(results), "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["duels"][0]["seeds"] == [0, 1, 2]
