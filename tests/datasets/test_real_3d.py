"""Every 3D set that lies below the data root: counts, shapes, ranges, and geometry that only the right conventions give."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from adlbench.benchmark.api import Modality, data_root
from adlbench.datasets.classification.modelnet import ModelNet
from adlbench.datasets.formats import (
    binvox,
    body_parts,
    colmap,
    llff,
    meshes,
    middlebury,
    obj,
    off,
    pcd,
    point_bin,
    s3dis,
    semantickitti,
    shapenetpart,
    transforms,
)
from adlbench.datasets.formats.camera_models import undistorted, undistortion_map
from adlbench.datasets.novel_view_synthesis.captures import focus
from adlbench.datasets.novel_view_synthesis.colmap_scenes import ColmapScenes
from adlbench.datasets.novel_view_synthesis.instant_ngp import TransformsScenes
from adlbench.datasets.novel_view_synthesis.nerf_synthetic import NerfSynthetic
from adlbench.datasets.segmentation.s3dis import S3DIS
from adlbench.datasets.segmentation.semantickitti import SemanticKITTI
from adlbench.datasets.segmentation.shapenetpart import ShapeNetPart

pytestmark = pytest.mark.needs_data


def need(name: str) -> Path:
    path = data_root() / name
    if not path.exists():
        pytest.skip(f"{name} is not below the data root")
    return path


# -------------------------------------------------------------------------------------------------------------- meshes
@pytest.mark.parametrize(
    ("name", "vertices", "faces", "closed"),
    [
        ("bunny.off", 3485, 6966, True),
        ("camelhead.off", 11381, 22704, False),
        ("cow.off", 2762, 5520, True),
        ("fandisk.off", 7229, 14454, True),
        ("spot.obj", 2930, 5856, True),
        ("dragon_vrip_res4.ply", 5205, 11102, False),
    ],
)
def test_classic_meshes_agree_with_trimesh(name: str, vertices: int, faces: int, closed: bool) -> None:
    import trimesh

    path = need("meshes") / name
    mesh = meshes.read_mesh(path)
    assert mesh.vertices.shape == (vertices, 3)
    assert mesh.faces.shape == (faces, 3)
    peer = trimesh.load(path, process=False, maintain_order=True, skip_materials=True, force="mesh")
    np.testing.assert_array_equal(np.sort(mesh.vertices[mesh.faces], 1), np.sort(peer.vertices[peer.faces], 1))
    own = trimesh.Trimesh(*mesh, process=False)
    assert own.is_watertight == closed
    if closed:
        assert own.volume > 0  # faces are counter-clockwise seen from outside


def test_polygons_of_obj_files_become_triangles() -> None:
    """Beetle, suzanne and the teapot have quadrilaterals; the area is that of trimesh's triangulation."""
    import trimesh

    for name in ("suzanne.obj", "teapot.obj", "beetle.obj"):
        path = need("meshes") / name
        mesh = obj.read_obj(path)
        peer = trimesh.load(path, process=False, skip_materials=True, force="mesh")
        assert len(mesh.faces) == len(peer.faces)
        assert trimesh.Trimesh(*mesh, process=False).area == pytest.approx(peer.area, rel=0.01)


def test_the_camel_gallops() -> None:
    """Ten frames of one animal, each simplified by itself: closed, of one size, and moving."""
    import trimesh

    frames = [off.read_off(path) for path in sorted(need("camel_gallop").glob("*.off"))]
    assert [len(frame.vertices) for frame in frames] == [4999, 5001, 5002, 5001, 5001, 5002, 5001, 5001, 5001, 5000]
    assert {len(frame.faces) for frame in frames} == {10000}
    volumes = [trimesh.Trimesh(*frame, process=False).volume for frame in frames]
    assert min(volumes) > 0.85 * max(volumes) > 0
    extents = np.array([np.ptp(frame.vertices, axis=0) for frame in frames])
    assert (np.ptp(extents, axis=0) / extents.max(0)).max() > 0.1


def test_faust_bodies_have_parts_in_the_right_places() -> None:
    folder = need("faust_parts")
    bodies = [off.read_off(folder / f"tr_reg_{number}.off") for number in ("000", "007")]
    faces = bodies[0].faces
    np.testing.assert_array_equal(faces, bodies[1].faces)

    # in correspondence: the same edges, bent and hardly stretched; not so when the vertices are numbered otherwise
    def stretch(vertices: np.ndarray) -> float:
        pair = [np.linalg.norm(v[faces[:, 0]] - v[faces[:, 1]], axis=1) for v in (bodies[0].vertices, vertices)]
        return float(np.median(np.abs(pair[1] / pair[0] - 1)))

    assert stretch(bodies[1].vertices) < 0.08
    assert stretch(np.roll(bodies[1].vertices, 1, axis=0)) > 0.16
    assert np.linalg.norm(bodies[1].vertices - bodies[0].vertices, axis=1).max() > 0.1
    parts = body_parts.read_body_parts(folder / "smpl_vert_segmentation.json")
    assert len(parts.names) == 24
    assert parts.members.shape == (6890, 24)
    assert (parts.members.sum(1) == 1).mean() > 0.9  # on a seam, two or three
    assert parts.members.sum(1).max() == 3
    assert set(np.unique(parts.labels)) == set(range(24))
    for body in bodies:
        centre = {name: body.vertices[parts.members[:, i]].mean(0) for i, name in enumerate(parts.names)}
        up = centre["head"] - centre["hips"]
        up /= np.linalg.norm(up)
        height = {name: float(place @ up) for name, place in centre.items()}
        assert (
            height["head"] > height["neck"] > height["spine"] > height["hips"] > height["leftLeg"] > height["leftFoot"]
        )


@pytest.mark.parametrize("name", ["bathtub_0001", "bathtub_0002", "bathtub_0003", "bathtub_0004"])
def test_genuine_modelnet_meshes(name: str) -> None:
    path = need("modelnet10_bathtub") / f"ModelNet10/bathtub/train/{name}.off"
    counts = path.read_text().split("\n")[1].split()
    mesh = off.read_off(path)
    assert (len(mesh.vertices), len(mesh.faces)) == (int(counts[0]), int(counts[1]))
    points, normals = meshes.sample_surface(mesh, 4000, 0, path)
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    assert (points >= low - 1e-3).all()
    assert (points <= high + 1e-3).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    tub = points[:, 2].max() - points[:, 2].min()
    assert tub < max(np.ptp(points[:, 0]), np.ptp(points[:, 1]))  # z is up: a tub is longer than high


def test_real_furniture_is_a_modelnet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need("sh3d_modelnet")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = ModelNet(folder="sh3d_modelnet", num_points=256)
    assert dataset.missing() is None
    schema = dataset.schema()
    assert len(schema.classes) == 10
    assert schema.num_train + schema.num_test == 122
    train, again = dataset.load("all", "train").all(), dataset.load("all", "train").all()
    assert train["points"].shape == (schema.num_train, 256, 3)
    np.testing.assert_allclose(np.linalg.norm(train["points"], axis=2).max(1), 1, atol=1e-5)
    assert train["label"].bincount().min() > 0
    for field, value in train.items():
        np.testing.assert_array_equal(value, again[field])
    beds = train["points"][train["label"] == schema.classes.index("bed")].numpy()
    height, plan = np.ptp(beds[..., 1], axis=1), np.ptp(beds[..., [0, 2]], axis=1).max(1)
    assert (height < plan).mean() > 0.8  # y is up: beds lie
    lamps = train["points"][train["label"] == schema.classes.index("lamp")].numpy()
    assert np.median(np.ptp(lamps[..., 1], axis=1)) > np.median(height)


# -------------------------------------------------------------------------------------------------------- point clouds
def test_voxel_chairs() -> None:
    grids = binvox.read_voxel_array(need("modelnet10_voxels") / "chair.npy.gz")
    assert grids.shape == (890, 32, 32, 32)
    filled = grids.reshape(len(grids), -1).sum(1)
    assert (filled == 0).sum() == 1
    assert 200 < np.median(filled) < 8000


def test_the_table_scene_in_pcd() -> None:
    cloud = pcd.read_pcd(need("mosd") / "learn/learn5.pcd")
    assert (cloud.width, cloud.height, len(cloud)) == (640, 480, 307200)
    assert set(cloud.fields) == {"label", "x", "y", "z", "rgba"}
    points = cloud.points
    seen = np.isfinite(points).all(axis=1)
    assert 0.5 < seen.mean() < 0.8
    assert points[seen, 2].min() > 0.4
    assert points[seen, 2].max() < 1.5  # metres in front of the sensor
    # an organised cloud is a picture: columns run with x, rows with y
    column, row = np.arange(len(cloud)) % 640, np.arange(len(cloud)) // 640
    for axis, place in ((0, column), (1, row)):
        assert np.corrcoef(points[seen, axis] / points[seen, 2], place[seen])[0, 1] > 0.999
    assert set(np.unique(cloud.fields["label"])) == {0, 1, 20, 30}
    colours = cloud.colours
    assert colours is not None
    assert colours[seen].std(axis=0).min() > 10


def test_a_genuine_semantickitti_scan() -> None:
    folder = need("semantickitti") / "dataset/sequences/08"
    scan = semantickitti.read_scan(folder / "velodyne/000000.bin", folder / "labels/000000.label")
    assert scan.points.shape == (123389, 3)
    assert (scan.remission >= 0).all()
    assert (scan.remission <= 1).all()
    assert scan.labels.min() == -1
    assert scan.labels.max() < 19
    heights = {name: scan.points[scan.labels == i, 2] for i, name in enumerate(semantickitti.CLASSES)}
    assert -2.2 < np.median(heights["road"]) < -1.4  # the sensor stands 1.73 m above the road
    assert np.median(heights["car"]) > np.median(heights["road"]) + 0.3
    assert np.median(heights["building"]) > np.median(heights["sidewalk"]) + 0.5
    angle = np.degrees(np.arcsin(scan.points[:, 2] / np.linalg.norm(scan.points, axis=1)))
    low, high = np.percentile(angle, [1, 99])
    assert -25 < low < high < 3  # the HDL-64E sees from -24.8 to 2 degrees


def test_the_label_map_is_that_of_the_authors() -> None:
    yaml = pytest.importorskip("yaml")
    content = yaml.safe_load((need("semantickitti") / "semantic-kitti.yaml").read_text())
    assert content["learning_map"] == semantickitti.LEARNING_MAP
    names = [content["labels"][content["learning_map_inv"][i]] for i in range(1, 20)]
    assert tuple(names) == semantickitti.CLASSES
    assert [f"{i:02}" for i in content["split"]["train"]] == list(semantickitti.TRAIN)
    assert [f"{i:02}" for i in content["split"]["valid"]] == list(semantickitti.VALIDATION)


def test_semantickitti_as_a_dataset() -> None:
    need("semantickitti")
    dataset = SemanticKITTI(train=("08",), num_points=4096)
    assert dataset.missing() is None
    schema = dataset.schema()
    assert (schema.num_train, schema.num_test, len(schema.parts)) == (1, 1, 19)
    item = dataset.load("all", "test").batch([0])
    assert item["points"].shape == (1, 4096, 3)
    road = item["points"][0][item["point_label"][0] == schema.parts.index("road")]
    assert -2.5 < road[:, 1].median() < -1  # y is up
    assert "00, 01" in (SemanticKITTI().missing() or "")


def test_minis_of_mmdetection3d() -> None:
    folder = need("mmdet3d_mini")
    scene = point_bin.read_points(folder / "demo_scannet/scene0000_00.bin", 6)
    assert scene.shape == (40684, 6)
    assert np.ptp(scene[:, 2]) == pytest.approx(3.0, abs=0.1)  # a room: z is up
    assert scene[:, 3:].min() >= 0
    assert scene[:, 3:].max() == 255
    for name, stem in (("scannet", "scene0000_00"), ("s3dis", "Area_1_office_2")):
        points = point_bin.read_points(folder / name / f"points/{stem}.bin", 6)
        masks = [point_bin.read_labels(folder / name / f"{kind}_mask/{stem}.bin") for kind in ("semantic", "instance")]
        assert points.shape == (100, 6)
        assert [len(mask) for mask in masks] == [100, 100]
        assert masks[0].min() >= 0
        assert masks[0].max() <= 40
    sequence = folder / "semantickitti/sequences/00"
    scan = semantickitti.read_scan(sequence / "velodyne/000000.bin", sequence / "labels/000000.label")
    assert scan.points.shape == (50, 3)


def test_shapenetpart_caps() -> None:
    need("shapenetpart")
    dataset = ShapeNetPart(folder="shapenetpart/shapenetcore_partanno_segmentation_benchmark_v0_normal")
    assert dataset.missing() is None
    schema = dataset.schema()
    assert (schema.num_train, schema.num_test, len(schema.classes), len(schema.parts)) == (11, 5, 16, 50)
    train, test = (dataset.load("all", split).all() for split in ("train", "test"))
    assert train["points"].shape == (11, 2048, 3)
    for split in (train, test):
        assert set(split["point_label"].unique().tolist()) == set(shapenetpart.parts_of("Cap"))
        assert (split["label"] == schema.classes.index("Cap")).all()
        assert 0.5 < split["points"].norm(dim=2).max() < 1.5
        assert 0.9 < split["normals"].norm(dim=2).mean() < 1.01
    # 2,048 of some 2,500 points: each is there once
    assert all(len(cloud.unique(dim=0)) == 2048 for cloud in train["points"])
    clouds = sorted(Path(data_root(), dataset.folder, "02954340").glob("*.txt"))
    assert sum(len(shapenetpart.read_part_cloud(path).points) for path in clouds[:2]) == sum(
        len(path.read_text().splitlines()) for path in clouds[:2]
    )


def test_the_park_in_the_layout_of_s3dis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = need("s3dis_format_park") / "Stanford3dDataset_v1.2_Aligned_Version"
    classes = ("tree", "ground", "clutter")
    room = s3dis.read_room(root / "Area_1/Park_1/Annotations", classes)
    assert room.points.shape == (45140, 3)
    assert room.instances.max() + 1 == len(list((root / "Area_1/Park_1/Annotations").glob("*.txt")))
    heights = [np.median(room.points[room.labels == label, 2]) for label in range(3)]
    assert heights[0] > heights[1] + 1  # trees are above the ground
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = S3DIS(
        folder="s3dis_format_park/Stanford3dDataset_v1.2_Aligned_Version",
        classes=classes,
        test=("Area_1/Park_2",),
        block=5.0,
        num_points=512,
    )
    schema = dataset.schema()
    train = dataset.load("all", "train").all()
    assert train["points"].shape == (schema.num_train, 512, 3)
    assert schema.num_train > 20
    assert schema.num_test > 20
    assert train["points"][..., [0, 2]].abs().max() <= 2.5001  # metres from the column's centre
    assert train["points"][..., 1].min() >= 0  # from the lowest point, y up
    assert 0 <= train["colours"].min() <= train["colours"].max() <= 1
    assert set(train["point_label"].unique().tolist()) <= {0, 1, 2}


# ------------------------------------------------------------------------------------------------------------- cameras
def test_colmap_points_reproject_within_a_pixel() -> None:
    model = colmap.read_reconstruction(need("colmap_bust") / "sparse/0")
    assert (len(model.images), len(model.cameras), len(model.points)) == (23, 23, 1443)
    assert [image.name for image in model.images] == sorted(image.name for image in model.images)
    errors = []
    for image in model.images:
        seen = image.points >= 0
        local = model.points[image.points[seen]] @ image.world_to_camera[:3, :3].T + image.world_to_camera[:3, 3]
        assert (local[:, 2] > 0).all()
        pixels = model.cameras[image.camera].project(local[:, :2] / local[:, 2:])
        errors.append(np.linalg.norm(pixels - image.pixels[seen], axis=1))
    every = np.concatenate(errors)
    assert len(every) == 5931
    assert every.mean() < 0.3
    assert np.percentile(every, 99) < 1
    assert max(float(np.median(part)) for part in errors) < 0.5


def test_pycolmap_reads_the_same_model() -> None:
    pycolmap = pytest.importorskip("pycolmap")
    folder = need("colmap_bust") / "sparse/0"
    model, peer = colmap.read_reconstruction(folder), pycolmap.Reconstruction(str(folder))
    by_name = {image.name: image for image in peer.images.values()}
    for image in model.images:
        other = by_name[image.name]
        pose = other.cam_from_world() if callable(other.cam_from_world) else other.cam_from_world
        np.testing.assert_allclose(image.world_to_camera[:3], pose.matrix(), atol=1e-12)
        np.testing.assert_array_equal(model.cameras[image.camera].params, peer.cameras[other.camera_id].params)
    ours = model.points[np.lexsort(model.points.T)]
    theirs = np.array([point.xyz for point in peer.points3D.values()])
    np.testing.assert_array_equal(ours, theirs[np.lexsort(theirs.T)])


def test_the_bust_as_a_dataset() -> None:
    """Points seen by a view lie where the view's cropped and downscaled picture shows them: their colours agree."""
    need("colmap_bust")
    dataset = ColmapScenes(folder="colmap_bust", downscale=2)
    schema = dataset.schema("colmap_bust")
    assert (schema.num_train, schema.num_test) == (20, 3)
    assert schema.image_size == (328, 500)
    assert schema.modality is Modality.POSED_IMAGES
    model = colmap.read_reconstruction(data_root() / "colmap_bust/sparse/0")
    test = dataset.load("colmap_bust", "test").all()
    assert test["image"].shape == (3, 328, 500, 3)
    colour_of = {point.astype(np.float32).tobytes(): colour for point, colour in zip(model.points, model.colours)}
    for index in range(3):
        points = np.unique(test["points"][index].numpy(), axis=0)
        pose, intrinsics = test["world_to_camera"][index].numpy(), test["intrinsics"][index].numpy()
        local = points @ pose[:3, :3].T + pose[:3, 3]
        assert (local[:, 2] > schema.near).mean() > 0.95
        assert (local[:, 2] < schema.far).mean() > 0.95
        pixels = local @ intrinsics.T
        column, row = (pixels[:, :2] / pixels[:, 2:]).astype(int).T
        inside = (column >= 0) & (column < 500) & (row >= 0) & (row < 328)
        assert inside.mean() > 0.98
        picture = test["image"][index].numpy().astype(float)
        truth = np.array([colour_of[point.tobytes()] for point in points]).astype(float)
        colours = [picture[row[inside], column[inside]]]
        for x, y in ((10, 0), (-10, 0), (0, 10), (0, -10)):
            colours.append(picture[(row[inside] + y).clip(0, 327), (column[inside] + x).clip(0, 499)])
        errors = [np.abs(found - truth[inside]).mean() for found in colours]
        assert errors[0] < 0.7 * min(errors[1:])  # ten pixels aside they do not agree
        assert np.corrcoef(colours[0].ravel(), truth[inside].ravel())[0, 1] > 0.85  # photographs differ in exposure


def sift(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Feature positions (column, row; pixel centres at +0.5) and descriptors."""
    from skimage.feature import SIFT

    detector = SIFT(upsampling=1)
    detector.detect_and_extract(picture.mean(axis=2) / 255)
    return detector.positions[:, ::-1] + 0.5, detector.descriptors


def epipolar_distances(views: dict, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Pixels from matched features to the epipolar lines that the known cameras give; no fitting, nothing thrown away."""
    from skimage.feature import match_descriptors

    features = {index: sift(views["image"][index].numpy()) for pair in pairs for index in pair}
    distances = []
    for first, second in pairs:
        (p1, d1), (p2, d2) = features[first], features[second]
        match = match_descriptors(d1, d2, max_ratio=0.6, cross_check=True)
        assert len(match) > 30
        relative = views["world_to_camera"][second].double().numpy() @ np.linalg.inv(
            views["world_to_camera"][first].double().numpy()
        )
        x, y, z = relative[:3, 3]
        essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ relative[:3, :3]
        k1, k2 = (np.linalg.inv(views["intrinsics"][index].double().numpy()) for index in (first, second))
        fundamental = k2.T @ essential @ k1
        a, b = (np.column_stack([p[m], np.ones(len(m))]) for p, m in ((p1, match[:, 0]), (p2, match[:, 1])))
        lines, back = a @ fundamental.T, b @ fundamental
        value = np.abs((b * lines).sum(1))
        distances.append(
            value / np.linalg.norm(lines[:, :2], axis=1) / 2 + value / np.linalg.norm(back[:, :2], axis=1) / 2
        )
    return np.concatenate(distances)


def test_the_fox_is_epipolar_once_it_is_undistorted() -> None:
    need("fox")
    dataset = TransformsScenes(folder="fox")
    schema = dataset.schema("fox")
    assert (schema.num_train, schema.num_test, schema.image_size) == (43, 7, (480, 270))
    views = dataset.load("fox", "train").all()
    distances = epipolar_distances(views, [(0, 1), (10, 11), (20, 22)])
    assert np.median(distances) < 1
    # the focal length follows the zoom of the undistortion: with that of the file, the same matches are farther off
    content = transforms.read_transforms(data_root() / "fox/transforms.json")
    assert len(content.images) == 50
    assert content.box == 4
    assert views["intrinsics"][0, 0, 0] == pytest.approx(undistorted(content.cameras[0])[0])
    assert 1.0 < views["intrinsics"][0, 0, 0] / content.cameras[0].params[0] < 1.05
    place = undistortion_map(content.cameras[0], undistorted(content.cameras[0]))
    assert place.min() >= 0.5  # every pixel comes from inside the photograph
    assert (place.reshape(-1, 2).max(0) <= [269.5, 479.5]).all()
    center, distance = focus(content.world_to_camera)
    assert np.linalg.norm(center) < 1  # they look at the origin
    assert distance.min() > 1


def test_the_temple_cameras_agree() -> None:
    """The known bounding box is in every picture, the temple fills it, and matched features are epipolar."""
    import torch
    from PIL import Image

    folder = need("templeSparseRing")
    views = middlebury.read_par(folder / "templeSR_par.txt")
    assert len(views.images) == 16
    low, high = np.array([-0.073568, 0.021728, -0.012445]), np.array([0.028855, 0.181892, 0.062736])
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    pictures = []
    for path, intrinsics, pose in zip(views.images, views.intrinsics, views.world_to_camera):
        picture = np.asarray(Image.open(path).convert("RGB"))
        pictures.append(picture)
        local = corners @ pose[:3, :3].T + pose[:3, 3]
        assert (local[:, 2] > 0.3).all()
        pixels = local @ intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        left, top = pixels.min(0)
        right, bottom = pixels.max(0)
        row, column = np.nonzero(picture.mean(2) > 60)  # the plaster is bright, the background black
        inside = (column > left - 3) & (column < right + 3) & (row > top - 3) & (row < bottom + 3)
        assert inside.mean() > 0.99
    data = {
        "image": torch.as_tensor(np.stack(pictures)),
        "intrinsics": torch.as_tensor(views.intrinsics),
        "world_to_camera": torch.as_tensor(views.world_to_camera),
    }
    positions = np.stack([-(pose[:3, :3].T @ pose[:3, 3]) for pose in views.world_to_camera])
    gaps = np.linalg.norm(positions[:, None] - positions, axis=2) + 9 * np.eye(16)
    first = int(gaps.min(1).argmin())
    assert np.median(epipolar_distances(data, [(first, int(gaps[first].argmin()))])) < 1


def test_the_lego_hull_reprojects() -> None:
    """A visual hull of the training silhouettes, drawn into the test views: mean intersection over union above 0.9."""
    need("nerf_synthetic/lego")
    dataset = NerfSynthetic(downscale=1)
    train, test = dataset.load("lego", "train").all(), dataset.load("lego", "test").all()
    silhouettes = train["image"].numpy().min(-1) < 250
    side = 2.6 / 64
    axis = np.linspace(-1.3 + side / 2, 1.3 - side / 2, 64)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T.astype(np.float32)
    for level in range(3):  # coarse cubes go when they are off a silhouette by more than their own size
        reach = 0 if level == 2 else int(np.ceil(side * 0.9 * 70))  # a length of 1 is about 70 pixels
        for view in range(0, 100, 5 if level < 2 else 3):
            column, row = pixels_of(grid, train, view)
            grid = grid[grown(silhouettes[view], reach)[row, column]]
        if level < 2:
            side /= 2
            grid = (grid[:, None] + corners * (side / 2)).reshape(-1, 3)
    ratios = []
    for view in range(0, len(test["image"]), 5):
        silhouette = test["image"][view].numpy().min(-1) < 250
        drawing = np.zeros_like(silhouette)
        for corner in corners * (side / 4):
            column, row = pixels_of(grid + corner, test, view)
            drawing[row, column] = True
        ratios.append((drawing & silhouette).sum() / (drawing | silhouette).sum())
    assert np.mean(ratios) > 0.9


def grown(mask: np.ndarray, reach: int) -> np.ndarray:
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, 2 * reach + 1) if reach else mask


def pixels_of(points: np.ndarray, views: dict, view: int) -> tuple[np.ndarray, np.ndarray]:
    pose, intrinsics = views["world_to_camera"][view].numpy(), views["intrinsics"][view].numpy()
    pixels = (points @ pose[:3, :3].T + pose[:3, 3]) @ intrinsics.T
    column, row = (pixels[:, :2] / pixels[:, 2:]).astype(int).T
    height, width = views["image"].shape[1:3]
    return column.clip(0, width - 1), row.clip(0, height - 1)


def test_the_garden_lies_in_front_of_its_cameras() -> None:
    content = np.load(need("gsplat_garden") / "test_garden.npz", allow_pickle=False)
    points, colours, poses, intrinsics = (content[name] for name in ("means3d", "colors", "viewmats", "Ks"))
    height, width = int(content["height"]), int(content["width"])
    assert points.shape == (138766, 3)
    assert colours.dtype == np.uint8
    for pose, matrix in zip(poses, intrinsics):
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-4)
        local = points @ pose[:3, :3].T + pose[:3, 3]
        ahead = local[:, 2] > 0.01
        pixels = local[ahead] @ matrix.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        inside = ((pixels >= 0) & (pixels < [width, height])).all(1)
        assert inside.sum() > 0.3 * len(points)  # world to camera in OpenCV axes, as here


def test_poses_of_llff_written_from_real_cameras(tmp_path: Path) -> None:
    """No LLFF scene is here: the fox's cameras, written in LLFF's axes as its own scripts do, come back."""
    content = transforms.read_transforms(need("fox") / "transforms.json")
    rows = np.zeros((len(content.images), 17))
    camera = content.cameras[0]
    for row, pose in zip(rows, content.world_to_camera):
        inverse = np.linalg.inv(pose)  # camera to world: right, down, forward
        right, down, ahead, place = inverse[:3, 0], inverse[:3, 1], inverse[:3, 2], inverse[:3, 3]
        row[:15] = np.column_stack(
            [down, right, -ahead, place, [camera.height, camera.width, camera.params[0]]]
        ).ravel()
        row[15:] = [0.5, 20]
    np.save(tmp_path / "poses_bounds.npy", rows)
    back = llff.read_poses_bounds(tmp_path / "poses_bounds.npy")
    np.testing.assert_allclose(back.world_to_camera, content.world_to_camera, atol=1e-9)
    assert (back.height, back.width) == (480, 270)


def test_the_index_of_frames_is_by_name() -> None:
    path = need("fox") / "transforms.json"
    listed = [frame["file_path"] for frame in json.loads(path.read_text())["frames"]]
    names = [image.name for image in transforms.read_transforms(path).images]
    assert names == sorted(Path(name).name for name in listed)
    assert all(first < second for first, second in pairwise(names))
