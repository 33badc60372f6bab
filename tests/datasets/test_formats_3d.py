"""The 3D readers against closed forms and other people's readers: what is written comes back, in the right frame."""

from __future__ import annotations

import json
from pathlib import Path

import formats_3d as make
import numpy as np
import pytest

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats import (
    binvox,
    camera_models,
    colmap,
    glb,
    llff,
    meshes,
    middlebury,
    modelnet,
    obj,
    off,
    pcd,
    ply,
    s3dis,
    scannet,
    shapenet,
    shapenetpart,
    srn,
    threed_front,
    transforms,
)
from adlbench.datasets.formats.ava256 import read_calibration, read_frames

PINHOLE = np.array([35.0, 36.0, 20.0, 15.0])


# -------------------------------------------------------------------------------------------------------------- meshes
@pytest.mark.parametrize(
    "header", ["OFF\n4 4 6\n", "OFF4 4 6\n", "OFF 4 4 6\n", "OFF\n# made by hand\n4 4 6 # counts\n", "OFF\n4 4\n"]
)
def test_every_header_of_off_is_read(header: str, tmp_path: Path) -> None:
    (tmp_path / "a.off").write_text(make.off_bytes(header))
    mesh = off.read_off(tmp_path / "a.off")
    np.testing.assert_array_equal(mesh.vertices, make.VERTICES)
    np.testing.assert_array_equal(mesh.faces, make.FACES)


def test_polygons_become_fans_and_colours_are_passed_over(tmp_path: Path) -> None:
    rows = ["0 0 0 255 0 0 255", "1 0 0 255 0 0 255", "1 1 0 255 0 0 255", "0 1 0 255 0 0 255"]
    (tmp_path / "a.off").write_text("COFF\n4 2 0\n" + "\n".join(rows) + "\n4 0 1 2 3 0.5 0.5 0.5\n2 0 1\n")
    mesh = off.read_off(tmp_path / "a.off")
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 2, 3]])


def test_obj_reads_every_form_of_a_face_and_no_material(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(make.obj_bytes())  # names ../../secret.mtl
    mesh = obj.read_obj(tmp_path / "a.obj")
    np.testing.assert_array_equal(mesh.vertices, make.VERTICES)
    np.testing.assert_array_equal(mesh.faces, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("mixed", [False, True])
def test_ply_in_every_form(form: str, mixed: bool, tmp_path: Path) -> None:
    faces = [[0, 2, 1], [0, 1, 3, 2]] if mixed else make.FACES
    path = tmp_path / "a.ply"
    path.write_bytes(make.ply_bytes(form, faces=faces, label=np.array([0, 1, 40, 65535], "<u2")))
    mesh = ply.read_mesh(path)
    np.testing.assert_array_equal(mesh.vertices, make.VERTICES)
    np.testing.assert_array_equal(mesh.faces, [[0, 2, 1], [0, 1, 3], [0, 3, 2]] if mixed else make.FACES)
    (label,) = ply.columns(ply.read_ply(path), "vertex", ("label",), path)
    np.testing.assert_array_equal(label, [0, 1, 40, 65535])
    assert label.dtype == np.uint16


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_ply_of_trimesh(encoding: str, tmp_path: Path) -> None:
    import trimesh

    ball = trimesh.creation.icosphere(2)
    ball.export(tmp_path / "a.ply", encoding=encoding)
    mesh = meshes.read_mesh(tmp_path / "a.ply")
    np.testing.assert_allclose(mesh.vertices, ball.vertices, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, ball.faces)


def test_glb_places_every_mesh_of_the_scene(tmp_path: Path) -> None:
    import trimesh

    scene = trimesh.Scene()
    move = trimesh.transformations.translation_matrix([0, 5, 0])
    scene.add_geometry(trimesh.creation.box((1, 2, 3)))
    scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=move)
    scene.export(tmp_path / "a.glb")
    mesh = glb.read_glb(tmp_path / "a.glb")
    assert mesh.faces.shape == (24, 3)
    np.testing.assert_allclose(mesh.vertices.min(0), [-0.5, -1, -1.5])
    np.testing.assert_allclose(mesh.vertices.max(0), [0.5, 5.5, 1.5])


def test_points_are_uniform_over_the_surface() -> None:
    """A box with faces of areas 1, 2 and 2 of each kind: chi-square of the counts, and every point on its face."""
    import trimesh

    box = trimesh.creation.box((1, 1, 2))
    mesh = meshes.Mesh(np.asarray(box.vertices), np.asarray(box.faces))
    points, normals = meshes.sample_surface(mesh, 20_000, 3, Path("box"))
    again, _ = meshes.sample_surface(mesh, 20_000, 3, Path("box"))
    np.testing.assert_array_equal(points, again)
    counts = np.array([((normals @ axis) > 0.99).sum() for axis in (*np.eye(3), *-np.eye(3))])
    expected = np.array([0.2, 0.2, 0.1, 0.2, 0.2, 0.1]) * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # the 99.9 percentile at 5 degrees of freedom
    side = np.abs(points * normals).sum(1)
    np.testing.assert_allclose(side, np.where(np.abs(normals[:, 2]) > 0.5, 1.0, 0.5), atol=1e-6)
    with pytest.raises(DataError, match="has no area"):
        meshes.sample_surface(meshes.Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), 5, 0, Path("flat"))


# -------------------------------------------------------------------------------------------------------- point clouds
@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_pcd_in_every_form(form: str, tmp_path: Path) -> None:
    (tmp_path / "a.pcd").write_bytes(make.pcd_bytes(form, height=2))
    cloud = pcd.read_pcd(tmp_path / "a.pcd")
    assert (cloud.width, cloud.height) == (2, 2)
    for name, values in make.CLOUD.items():
        np.testing.assert_array_equal(cloud.fields[name], values)
        assert cloud.fields[name].dtype == values.dtype
    np.testing.assert_array_equal(cloud.colours, [[0x11, 0x22, 0x33], [255, 0, 0], [0, 0, 0], [0, 0, 255]])


def test_lzf_copies_overlap() -> None:
    # two literals, then a copy of seven bytes from two back: ab ababab a
    packed = bytes([1]) + b"ab" + bytes([5 << 5, 1])
    assert pcd.decompress_lzf(packed, 9, Path("x")) == b"ababababa"
    far = bytes(range(256)) * 20
    assert pcd.decompress_lzf(make.lzf(far + bytes(5000)), len(far) + 5000, Path("x")) == far + bytes(5000)


def test_binvox_is_that_of_trimesh(tmp_path: Path) -> None:
    import trimesh

    (tmp_path / "a.binvox").write_bytes(make.binvox_bytes())
    grid = binvox.read_binvox(tmp_path / "a.binvox")
    np.testing.assert_array_equal(grid.occupied, make.GRID)
    assert (grid.translate, grid.scale) == ((-0.5, 0.25, 1.0), 2.5)
    cube = np.random.default_rng(0).random((5, 5, 5)) < 0.4
    (tmp_path / "b.binvox").write_bytes(make.binvox_bytes(cube))
    peer = trimesh.load(tmp_path / "b.binvox")
    np.testing.assert_array_equal(binvox.read_binvox(tmp_path / "b.binvox").occupied, peer.matrix)


def test_modelnet_in_hdf5(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    points = np.random.default_rng(0).normal(size=(3, 8, 3)).astype("f4")
    normals = np.ones((3, 8, 3), "f4")
    (tmp_path / "a.h5").write_bytes(make.h5_bytes(points, np.array([[0], [39], [7]], "u1"), normal=normals))
    shapes = modelnet.read_h5(tmp_path / "a.h5", 40)
    np.testing.assert_array_equal(shapes.points, points)
    np.testing.assert_array_equal(shapes.labels, [0, 39, 7])
    assert shapes.normals is not None
    with pytest.raises(DataError, match="label of shape 1"):
        modelnet.read_h5(tmp_path / "a.h5", 39)


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        (np.full((2, 4, 3), np.nan, "f4"), None, "shape 0 is NaN"),
        (np.zeros((2, 4, 2), "f4"), None, "are not"),
        (np.zeros((3, 4, 3), "f4"), None, "are not"),
        (np.zeros((2, 4, 3), "i4"), None, "are not"),
        (None, np.array([[0], [40]]), "label of shape 1"),
        (None, np.array([[0], [-1]]), "label of shape 1"),
        (None, np.array([[0.0], [1.0]]), "not whole numbers"),
    ],
)
def test_wrong_hdf5_is_explained(
    points: np.ndarray | None, labels: np.ndarray | None, message: str, tmp_path: Path
) -> None:
    pytest.importorskip("h5py")
    (tmp_path / "a.h5").write_bytes(make.h5_bytes(points, labels))
    with pytest.raises(DataError, match=message):
        modelnet.read_h5(tmp_path / "a.h5", 40)


@pytest.mark.parametrize("keep", [0, 7, 100, 800, 1500, -1])
def test_truncated_hdf5_is_explained(keep: int, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    content = make.h5_bytes()
    (tmp_path / "a.h5").write_bytes(content[:keep])
    with pytest.raises(DataError, match=r"a\.h5 is a damaged HDF5 file"):
        modelnet.read_h5(tmp_path / "a.h5", 40)


def test_an_array_larger_than_its_file_is_not_allocated(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", shape=(10**9, 2048, 3), dtype="f4", chunks=(1, 2048, 3), compression="gzip")
        file.create_dataset("label", data=np.zeros((1, 1), "u1"))
    with pytest.raises(DataError, match="more than its file can hold"):
        modelnet.read_h5(tmp_path / "a.h5", 40)


def test_the_parts_of_shapenet() -> None:
    """As in PointNet++'s seg_classes: the official numbers of a few categories."""
    assert len(shapenetpart.PARTS) == 50
    numbers = {
        "Airplane": (0, 4),
        "Bag": (4, 6),
        "Cap": (6, 8),
        "Chair": (12, 16),
        "Motorbike": (30, 36),
        "Table": (47, 50),
    }
    for category, (first, end) in numbers.items():
        assert shapenetpart.parts_of(category) == range(first, end)


def test_s3dis_counts_what_is_no_class_as_clutter(tmp_path: Path) -> None:
    for name, row in (("chair_1", "1 2 3 4 5 6"), ("stairs_1", "7 8 9 1 2\x103"), ("floor_2", "0 0 0 0 0 0")):
        (tmp_path / f"{name}.txt").write_text(f"{row}\n")
    room = s3dis.read_room(tmp_path)
    assert [s3dis.CLASSES[label] for label in room.labels] == ["chair", "floor", "clutter"]
    np.testing.assert_array_equal(room.colours[2], [1, 2, 3])  # a stray control character stands for the blank
    with pytest.raises(DataError, match=r"stairs_1\.txt is not named"):
        s3dis.read_room(tmp_path, ("chair", "floor"))


def test_scannet_maps_nyu40_to_twenty_classes(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(make.scannet_mesh())
    (tmp_path / "b.ply").write_bytes(make.scannet_bytes())
    scene = scannet.read_scene(tmp_path / "a.ply", tmp_path / "b.ply")
    assert scene.labels is not None
    assert scene.labels.tolist() == [0, 19, -1, -1]  # wall, other furniture, ceiling-like 40, unlabelled 0
    assert scene.colours.tolist()[3] == [250, 250, 250]
    assert len(scannet.CLASSES) == 20


# ------------------------------------------------------------------------------------------------------------- cameras
def random_camera(name: str, scale: float = 1.0) -> camera_models.Camera:
    rng = np.random.default_rng(0)
    model = camera_models.MODELS[name]
    pinhole = np.array([500.0, 320.0, 240.0] if model.single_focal else [500.0, 520.0, 320.0, 240.0]) * scale
    params = np.concatenate([pinhole, rng.uniform(-0.05, 0.05, model.num_params - len(pinhole))])
    if name == "FOV":
        params[-1] = 0.9
    if name == "EUCM":
        params[-2:] = [0.55, 1.2]
    return camera_models.Camera(name, round(640 * scale), round(480 * scale), params)


@pytest.mark.parametrize("name", camera_models.MODELS)
def test_every_camera_model_is_colmaps(name: str) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    camera = random_camera(name)
    peer = pycolmap.Camera(model=name, width=640, height=480, params=camera.params)
    xy = np.random.default_rng(1).uniform(-0.8, 0.8, (500, 2))
    pixels = np.array(peer.img_from_cam(np.column_stack([xy, np.ones(len(xy))])), dtype=float)
    np.testing.assert_allclose(camera.project(xy), pixels, atol=1e-8)
    assert camera.project(np.zeros((1, 2)))[0] == pytest.approx([320, 240])
    assert camera.distorted == (name not in {"SIMPLE_PINHOLE", "PINHOLE"})
    numbers = {model.number: key for key, model in camera_models.MODELS.items()}
    assert int(getattr(pycolmap.CameraModelId, name)) in numbers


def test_brown_distortion_by_hand() -> None:
    """r2 = 0.05: radial 1 + 0.1 r2 - 0.2 r2^2 = 1.0045; tangential 2 p1 x y + p2 (r2 + 2 x^2)."""
    camera = camera_models.Camera("OPENCV", 100, 100, np.array([10, 20, 50, 40, 0.1, -0.2, 0.01, 0.02]))
    x, y = 0.2, 0.1
    u = x * 1.0045 + 2 * 0.01 * x * y + 0.02 * (0.05 + 2 * x * x)
    v = y * 1.0045 + 2 * 0.02 * x * y + 0.01 * (0.05 + 2 * y * y)
    np.testing.assert_allclose(camera.project(np.array([[x, y]])), [[10 * u + 50, 20 * v + 40]])


@pytest.mark.parametrize(
    "name", ["SIMPLE_RADIAL", "OPENCV", "OPENCV_FISHEYE", "FOV", "FULL_OPENCV", "THIN_PRISM_FISHEYE", "DIVISION"]
)
def test_undistorted_pictures_show_straight_lines(name: str) -> None:
    """A picture of a pattern in the plane z = 1, taken through the lens, becomes the pinhole's picture of the pattern."""
    camera = random_camera(name, 0.25)

    def pattern(xy: np.ndarray) -> np.ndarray:
        value = 127.5 + 60 * np.sin(9 * xy[..., 0] + 4 * xy[..., 1]) + 60 * np.cos(7 * xy[..., 1])
        return np.repeat(value[..., None], 3, axis=-1)

    # invert the lens by iteration, to draw the distorted picture
    row, column = np.mgrid[:120, :160] + 0.5
    target = np.stack([column, row], -1)
    fx, fy, cx, cy = camera.pinhole
    xy = (target - [cx, cy]) / [fx, fy]
    for _ in range(60):
        xy = xy - (camera.project(xy) - target) / [fx, fy]
    valid = np.abs(camera.project(xy) - target).max(-1) < 1e-3
    assert valid.mean() > 0.999
    photograph = np.round(pattern(xy)).astype(np.uint8)
    pinhole = camera_models.undistorted(camera)
    place = camera_models.undistortion_map(camera, pinhole)
    assert place.min() >= 0.5  # filled to the border
    straight = camera_models.resample(photograph, place)
    plane = (target - pinhole[2:]) / pinhole[:2]
    assert np.abs(straight.astype(float) - pattern(plane)).max() < 2


def test_no_distortion_is_no_change() -> None:
    camera = camera_models.make_camera("PINHOLE", 40, 30, PINHOLE, "x")
    np.testing.assert_array_equal(camera_models.undistorted(camera), PINHOLE)
    zero = camera_models.make_camera("OPENCV", 40, 30, np.append(PINHOLE, np.zeros(4)), "x")
    assert not zero.distorted
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        camera_models.resample(picture, camera_models.undistortion_map(camera, PINHOLE)), picture
    )


def test_colmap_text_and_binary_say_the_same(tmp_path: Path) -> None:
    models = []
    for files in (make.colmap_binary(), make.colmap_text()):
        folder = tmp_path / next(iter(files)).replace(".", "_")
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        models.append(colmap.read_reconstruction(folder))
    for model in models:
        assert [image.name for image in model.images] == ["b.jpg", "sub/a.jpg"]
        np.testing.assert_allclose(model.points, [[1.1, 1, 2], [0.5, 1, 2], [90, 1, 2]])
        assert model.images[0].points.tolist() == [0, -1]
        assert model.images[1].camera == 7
        np.testing.assert_allclose(model.images[0].world_to_camera[:3, 3], [0.5, 0, 4])
        assert model.cameras[7].model == "SIMPLE_RADIAL"


def test_a_quaternion_turns_as_colmaps() -> None:
    from scipy.spatial.transform import Rotation

    quaternion = np.array([0.3, -0.5, 0.7, 0.4])  # w first; not normalised
    pose = colmap._pose(quaternion, np.zeros(3), "x")
    np.testing.assert_allclose(pose[:3, :3], Rotation.from_quat(quaternion[[1, 2, 3, 0]]).as_matrix(), atol=1e-12)


def test_transforms_become_opencv_cameras(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_bytes(make.transforms_bytes())
    content = transforms.read_transforms(tmp_path / "transforms.json")
    assert [image.name for image in content.images] == ["a.jpg", "b.jpg"]
    assert content.cameras[0].model == "FULL_OPENCV"
    np.testing.assert_allclose(content.cameras[0].params[:8], [35, 36, 20, 15, 0.05, -0.01, 0.001, 0])
    # at (0.5, 0, 4), looking along -z with y up: the origin is 4 ahead and half to the left
    local = content.world_to_camera[0] @ [0, 0, 0, 1]
    np.testing.assert_allclose(local[:3], [-0.5, 0, 4], atol=1e-12)
    np.testing.assert_allclose((content.world_to_camera[0] @ [0.5, 1, 0, 1])[:3], [0, -1, 4], atol=1e-12)  # up is -y
    assert content.box == 4
    np.testing.assert_array_equal(content.times, [0.5, 0.5])


def test_llff_axes(tmp_path: Path) -> None:
    np.save(tmp_path / "poses_bounds.npy", make.llff_rows())
    poses = llff.read_poses_bounds(tmp_path / "poses_bounds.npy")
    assert (poses.height, poses.width, poses.focal.tolist()) == (30, 40, [35, 35, 35])
    # at (0, 0.2, 0.3), looking along -z with y up
    np.testing.assert_allclose((poses.world_to_camera[0] @ [0, 0.2, -1.7, 1])[:3], [0, 0, 2], atol=1e-12)
    np.testing.assert_allclose((poses.world_to_camera[0] @ [1, 1.2, -1.7, 1])[:3], [1, -1, 2], atol=1e-12)


def test_middlebury_projects_with_k_r_t(tmp_path: Path) -> None:
    (tmp_path / "a_par.txt").write_text(make.par_text())
    views = middlebury.read_par(tmp_path / "a_par.txt")
    pixel = views.intrinsics[0] @ (views.world_to_camera[0] @ [0, 0, 0, 1])[:3]
    np.testing.assert_allclose(pixel[:2] / pixel[2], [1520.4 / 6 + 302.32, 1525.9 / 3 + 246.87])


def test_srn_poses_are_in_opencv_axes(tmp_path: Path) -> None:
    for name, content in make.SRN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    views = srn.read_views(tmp_path)
    assert views.size == (128, 128)
    np.testing.assert_allclose((views.world_to_camera[0] @ [0.5, 0, 0, 1])[:3], [0, 0, 1.3])


def test_ava_calibration_is_transposed_and_in_millimetres(tmp_path: Path) -> None:
    (tmp_path / "camera_calibration.json").write_bytes(make.calibration_bytes())
    calibration = read_calibration(tmp_path / "camera_calibration.json")
    assert calibration.names == ("400944", "400945")
    np.testing.assert_allclose(calibration.intrinsics[0], [[7000, 0, 1300.5], [0, 7001, 2000.5], [0, 0, 1]])
    np.testing.assert_allclose(calibration.world_to_camera[0][:3, 3], [0.0005, 0, 0.004])
    (tmp_path / "frame_list.csv").write_text("seg_id,frame_id\nEXP_a,000012\n")
    assert read_frames(tmp_path / "frame_list.csv") == [("EXP_a", 12)]


# --------------------------------------------------------------------------------------------------- rooms, collections
def test_pieces_of_a_room_are_placed(tmp_path: Path) -> None:
    (tmp_path / "house.json").write_text(json.dumps(make.house()))
    (room,) = threed_front.read_house(tmp_path / "house.json")
    assert (room.name, room.kind, len(room.pieces)) == ("MasterBedroom-1", "MasterBedroom", 2)
    bed = room.pieces[0]
    assert bed.angle == pytest.approx(np.pi / 2)
    np.testing.assert_allclose(bed.rotation @ [0, 0, 1], [1, 0, 0], atol=1e-12)  # a quarter turn about y: z goes to x
    assert room.floor is not None
    assert room.floor.faces.shape == (2, 3)


def test_shapenet_paths_and_splits(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text(make._csv())
    splits = shapenet.read_split_csv(tmp_path / "all.csv")
    assert splits == {"train": [("03001627", "aa")], "val": [], "test": [("02691156", "bb")]}
    assert shapenet.model_path(tmp_path, ("03001627", "aa"), tmp_path) == tmp_path / "03001627/aa/model.obj"
    second = tmp_path / "03001627/aa/models/model_normalized.obj"
    second.parent.mkdir(parents=True)
    second.write_text(make.obj_bytes())
    assert shapenet.model_path(tmp_path, ("03001627", "aa"), tmp_path) == second
    (tmp_path / "03001627" / "train.lst").write_text("aa\ncc\n")
    (tmp_path / "03001627" / "test.lst").write_text("dd\n")
    assert shapenet.read_split_lists(tmp_path)["train"] == [("03001627", "aa"), ("03001627", "cc")]
    (tmp_path / "03001627" / "test.lst").write_text("aa\n")
    with pytest.raises(DataError, match="each must be in one split"):
        shapenet.read_split_lists(tmp_path)
