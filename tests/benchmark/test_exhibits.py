"""Exhibits: written, read again, turned into what the page shows; analysis after an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_world import exhibits

from adlbench.benchmark.exhibits import read_exhibits, read_index, write_exhibits
from adlbench.benchmark.leaderboard.report.assets import Assets, sheet
from adlbench.benchmark.leaderboard.report.exhibits import CONVERTERS, shown_exhibits, simplified
from adlbench.benchmark.tasks.base import Exhibit


def test_exhibits_come_back_as_they_were(tmp_path: Path) -> None:
    made = exhibits(np.random.default_rng(0))
    write_exhibits(tmp_path, made)
    back = {title: (kind, arrays) for title, kind, _, arrays in read_exhibits(tmp_path)}
    assert back.keys() == made.keys()
    for title, exhibit in made.items():
        assert back[title][0] == exhibit.kind
        for name, array in exhibit.arrays.items():
            np.testing.assert_array_equal(back[title][1][name], array)
    assert all(path.parent == tmp_path / "exhibits" for path in tmp_path.rglob("*.npz"))
    write_exhibits(tmp_path, {"views": Exhibit("views", {"truth": np.zeros(1)})})
    assert len(read_index(tmp_path)) == len(made)


def test_a_file_elsewhere_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "cell"
    folder.mkdir()
    write_exhibits(folder, {"a": Exhibit("confusion", {"counts": np.eye(2)}, {"labels": ["x", "y"]})})
    np.savez(tmp_path / "secret.npz", counts=np.eye(2))
    index = read_index(folder)
    index[0]["file"] = "../../secret.npz"
    (folder / "exhibits" / "index.json").write_text(json.dumps(index))
    assert list(read_exhibits(folder)) == []


def test_every_kind_is_shown_and_damaged_ones_are_left_out(tmp_path: Path) -> None:
    made = exhibits(np.random.default_rng(0))
    write_exhibits(tmp_path, made)
    write_exhibits(tmp_path, {"damaged": Exhibit("views", {"prediction": np.zeros((1, 2, 2, 3), np.uint8)})})
    shown = shown_exhibits(tmp_path, Assets(tmp_path / "out", embed=False))
    assert {exhibit["kind"] for exhibit in shown} == set(CONVERTERS)
    assert "damaged" not in {exhibit["title"] for exhibit in shown}
    views = next(exhibit for exhibit in shown if exhibit["kind"] == "views")
    pixels = np.asarray(Image.open(tmp_path / "out" / views["items"][1]["truth"]))
    np.testing.assert_array_equal(pixels, made["views"].arrays["truth"][1])


def test_sheet_can_be_cut_again() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (5, 4, 6, 3), dtype=np.uint8)
    whole = sheet(pictures, 3)
    assert whole.shape == (8, 18, 3)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, 3)
        np.testing.assert_array_equal(whole[4 * row : 4 * row + 4, 6 * column : 6 * column + 6], picture)


def test_simplified_meshes_keep_their_shape() -> None:
    trimesh = pytest.importorskip("trimesh")
    sphere = trimesh.creation.icosphere(subdivisions=5)
    vertices, faces = simplified(sphere.vertices, sphere.faces, limit=3000)
    assert 500 < len(vertices) <= 3000
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1, atol=0.02)
    assert trimesh.Trimesh(vertices, faces).volume == pytest.approx(4.18879, rel=0.02)
    same, _ = simplified(sphere.vertices, sphere.faces, limit=20000)
    assert len(same) == len(sphere.vertices)
