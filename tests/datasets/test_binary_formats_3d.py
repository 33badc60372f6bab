"""Properties of the binary 3D formats: whatever is written comes back, and whatever is damaged is refused or read, in bounds."""

from __future__ import annotations

import contextlib
import random
import tempfile
from pathlib import Path

import formats_3d as make
import numpy as np
import pytest
from formats_3d import Sample, samples
from test_damage_3d import corrupt

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra.numpy import arrays  # noqa: E402

from adlbench.benchmark.api import DataError  # noqa: E402
from adlbench.datasets.formats import binvox, colmap, llff, modelnet, pcd, ply, point_bin, semantickitti  # noqa: E402

BINARY = [sample for sample in samples() if sample.binary]
QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FLOATS = st.floats(-1e5, 1e5, width=32).map(lambda x: x if x == 0 or abs(x) > 1e-20 else 0.0)


@contextlib.contextmanager
def written(content: bytes, name: str):  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


@QUICK
@given(st.integers(1, 20).flatmap(lambda n: st.tuples(
    arrays("f4", (n, 3), elements=FLOATS), st.lists(st.lists(st.integers(0, n - 1), min_size=3, max_size=6), max_size=8))),
    st.sampled_from(["ascii", "binary_little_endian", "binary_big_endian"]))  # fmt: skip
def test_ply_comes_back(mesh: tuple[np.ndarray, list[list[int]]], form: str) -> None:
    vertices, faces = mesh
    with written(make.ply_bytes(form, vertices, faces), "a.ply") as path:
        back = ply.read_mesh(path)
    np.testing.assert_array_equal(back.vertices, vertices.astype(np.float64))
    assert len(back.faces) == sum(len(face) - 2 for face in faces)


@QUICK
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.fixed_dictionaries(
            {
                "x": arrays("<f4", n, elements=st.floats(width=32)),
                "d": arrays("<f8", n),
                "label": arrays("<u2", n),
                "far": arrays("<i4", n),
                "flag": arrays("u1", n, elements=st.sampled_from([0, 0, 0, 7])),
            }
        )
    ),
    st.sampled_from(["binary", "binary_compressed"]),
)
def test_pcd_comes_back(cloud: dict[str, np.ndarray], form: str) -> None:
    with written(make.pcd_bytes(form, cloud), "a.pcd") as path:
        back = pcd.read_pcd(path)
    for name, values in cloud.items():
        assert back.fields[name].tobytes() == values.tobytes()  # NaN included, bit by bit


@QUICK
@given(st.binary(max_size=2000), st.integers(1, 50))
def test_lzf_comes_back(content: bytes, times: int) -> None:
    content *= times
    assert pcd.decompress_lzf(make.lzf(content), len(content), Path("x")) == content


@QUICK
@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))))
def test_binvox_comes_back(grid: np.ndarray) -> None:
    with written(make.binvox_bytes(grid), "a.binvox") as path:
        np.testing.assert_array_equal(binvox.read_binvox(path).occupied, grid)


@QUICK
@given(arrays("<f4", st.tuples(st.integers(1, 30), st.just(4)), elements=FLOATS), st.data())
def test_a_scan_comes_back(points: np.ndarray, data: st.DataObject) -> None:
    raw = data.draw(arrays("<u4", len(points), elements=st.sampled_from(sorted(semantickitti.LEARNING_MAP))))
    numbers = np.where(raw > 1, data.draw(arrays("<u4", len(points), elements=st.integers(0, 0xFFFF))), 0)
    with (
        written(points.tobytes(), "a.bin") as path,
        written((raw | numbers << 16).astype("<u4").tobytes(), "a.label") as labels,
    ):
        np.testing.assert_array_equal(point_bin.read_points(path, 4), points)
        scan = semantickitti.read_scan(path, labels)
    np.testing.assert_array_equal(scan.instances, numbers)
    np.testing.assert_array_equal(scan.labels, [semantickitti.LEARNING_MAP[value] - 1 for value in raw.tolist()])


@QUICK
@given(st.integers(1, 5), st.integers(1, 9000), st.floats(1, 1e4), st.floats(0.1, 1), st.integers(0, 2**32 - 1))
def test_poses_bounds_come_back(count: int, width: int, focal: float, near: float, seed: int) -> None:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    turn = Rotation.random(count, random_state=seed).as_matrix()
    place = rng.normal(size=(count, 3, 1))
    size = np.broadcast_to([[[3.0], [width], [focal]]], (count, 3, 1))
    rows = np.concatenate([turn, place, size], axis=2).reshape(count, 15)
    rows = np.concatenate([rows, np.full((count, 1), near), np.full((count, 1), near + 1)], axis=1)
    with written(make.npy_bytes(rows), "poses_bounds.npy") as path:
        poses = llff.read_poses_bounds(path)
    inverse = np.linalg.inv(poses.world_to_camera)
    np.testing.assert_allclose(inverse[:, :3, 3], place[..., 0], atol=1e-9)
    np.testing.assert_allclose(np.stack([inverse[:, :3, 1], inverse[:, :3, 0], -inverse[:, :3, 2]], 2), turn, atol=1e-9)


@QUICK
@given(arrays("f4", st.tuples(st.integers(1, 4), st.just(5), st.just(3)), elements=FLOATS), st.data())
def test_hdf5_comes_back(points: np.ndarray, data: st.DataObject) -> None:
    pytest.importorskip("h5py")
    labels = data.draw(arrays("u1", (len(points), 1), elements=st.integers(0, 39)))
    with written(make.h5_bytes(points, labels), "a.h5") as path:
        shapes = modelnet.read_h5(path, 40)
    np.testing.assert_array_equal(shapes.points, points)
    np.testing.assert_array_equal(shapes.labels, labels[:, 0])


@QUICK
@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_colmap_comes_back(num_images: int, num_points: int, seed: int) -> None:
    """Written by pycolmap where it is, as both binary and text."""
    pycolmap = pytest.importorskip("pycolmap")
    rng = np.random.default_rng(seed)
    model = pycolmap.Reconstruction()
    params = [500.0, 510, 320, 240, *rng.uniform(-0.1, 0.1, 4)]
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(model="OPENCV", width=640, height=480, params=params, camera_id=3)
    )
    poses = {}
    for index in range(num_images):
        quaternion = rng.normal(size=4)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(quaternion / np.linalg.norm(quaternion)), rng.normal(size=3))
        image = pycolmap.Image(name=f"{index}.jpg", camera_id=3, image_id=index + 1)
        image.points2D = [pycolmap.Point2D(xy) for xy in rng.uniform(0, 400, (num_points, 2))]
        model.add_image_with_trivial_frame(image, pose)
        poses[image.name] = pose.matrix()
    for number in range(num_points):
        track = pycolmap.Track()
        track.add_element(1, number)
        model.add_point3D(rng.normal(size=3), track, rng.integers(0, 256, 3, dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        for write in (model.write_text, model.write_binary):
            write(folder)
            back = colmap.read_reconstruction(Path(folder))
            assert len(back.points) == num_points
            np.testing.assert_allclose(back.cameras[3].params, params)
            for image in back.images:
                np.testing.assert_allclose(image.world_to_camera[:3], poses[image.name], atol=1e-12)
                assert (image.points >= 0).sum() == (num_points if image.name == "0.jpg" else 0)


@settings(QUICK, max_examples=300)
@given(st.sampled_from(BINARY), st.integers(0, 2**32 - 1))
def test_any_damage_is_refused_or_read(sample: Sample, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        path = sample.place(Path(folder), corrupt(sample.content, random.Random(seed)))
        assert sample.read(path) is not None
