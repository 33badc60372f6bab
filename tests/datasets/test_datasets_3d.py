"""The 3D datasets on small copies of the layouts they are published in."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import formats_3d as make
import numpy as np
import pytest
from PIL import Image

from adlbench.benchmark.api import DataError, Dataset, Modality
from adlbench.benchmark.cell import check_split
from adlbench.benchmark.config import Catalog, build_dataset

YAMLS = (
    *(
        "modelnet10",
        "modelnet40",
        "mesh_folder",
        "shapenetpart",
        "s3dis",
        "scannet",
        "semantickitti",
        "shapenet",
        "objaverse_xl",
    ),
    *(
        "threed_front",
        "llff",
        "mip_nerf_360",
        "tanks_and_temples",
        "colmap",
        "instant_ngp",
        "dnerf",
        "shapenet_srn",
        "dl3dv",
        "ava256",
    ),
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def photograph(path: Path, size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def dataset(name: str, **parameters: object) -> Dataset:
    from dataclasses import replace

    spec = Catalog().spec("dataset", name)
    return build_dataset(replace(spec, parameters={**spec.parameters, **parameters}))


# ------------------------------------------------------------------------------------------------------------- layouts
def modelnet(root: Path) -> None:
    for name in ("bathtub", "toilet"):
        for split, count in (("train", 2), ("test", 1)):
            for index in range(count):
                put(root / f"ModelNet10/{name}/{split}/{name}_{index:04}.off", make.off_bytes("OFF4 4 6\n"))


def own_meshes(root: Path) -> None:
    for split in ("train", "test"):
        put(root / f"meshes_by_class/a/{split}/x.obj", make.obj_bytes())
        put(root / f"meshes_by_class/b/{split}/y.glb", make.glb_bytes())


def parts(root: Path) -> None:
    folder = root / "shapenetpart/shapenetcore_partanno_segmentation_benchmark_v0_normal"
    for split in ("train", "val", "test"):
        put(folder / f"02954340/{split}.txt", make.part_text())
        put(folder / f"train_test_split/shuffled_{split}_file_list.json", json.dumps([f"shape_data/02954340/{split}"]))


def offices(root: Path) -> None:
    rng = np.random.default_rng(0)
    for area in ("Area_1", "Area_5"):
        for name, height in (("floor_1", 0), ("table_1", 1), ("stairs_1", 2)):
            rows = np.column_stack(
                [rng.uniform(0, 1.9, (120, 2)), np.full(120, height), rng.integers(0, 256, (120, 3))]
            )
            text = "\n".join(" ".join(f"{x:g}" for x in row) for row in rows)
            put(root / f"Stanford3dDataset_v1.2_Aligned_Version/{area}/office_1/Annotations/{name}.txt", text + "\n")


def scenes(root: Path) -> None:
    for split, name in (("train", "scene0000_00"), ("val", "scene0011_00")):
        put(root / f"scannet/scannetv2_{split}.txt", f"{name}\n")
        put(root / f"scannet/scans/{name}/{name}_vh_clean_2.ply", make.scannet_mesh())
        put(root / f"scannet/scans/{name}/{name}_vh_clean_2.labels.ply", make.scannet_bytes())


def streets(root: Path) -> None:
    for sequence in ("00", "08"):
        folder = root / f"semantickitti/dataset/sequences/{sequence}"
        put(folder / "velodyne/000000.bin", make.velodyne_bytes())
        put(folder / "labels/000000.label", np.array([10, 40, 0, 70], "<u4").tobytes())


def shapenet(root: Path) -> None:
    put(root / "ShapeNetCore.v2/all.csv", make._csv())
    put(root / "ShapeNetCore.v2/03001627/aa/models/model_normalized.obj", make.obj_bytes())
    put(root / "ShapeNetCore.v2/02691156/bb/models/model_normalized.obj", make.obj_bytes())


def objaverse(root: Path) -> None:
    names = {f"{index:032x}": f"glbs/000-000/{index:032x}.glb" for index in range(30)}
    put(root / "hf-objaverse-v1/object-paths.json.gz", make._gz({**names, "not-downloaded": "glbs/000-000/no.glb"}))
    put(root / "hf-objaverse-v1/lvis-annotations.json.gz", make._gz({"mug": [f"{3:032x}"]}))
    for name in names.values():
        put(root / "hf-objaverse-v1" / name, make.glb_bytes())


def houses(root: Path) -> None:
    for name in ("one", "two"):
        put(root / f"3D-FRONT/{name}.json", json.dumps(make.house()))
    put(root / "3D-FRONT-test.txt", "two\n")
    models = [
        {"model_id": "bed", "category": "King-size Bed", "super-category": "Bed"},
        {"model_id": "lamp", "category": None},
    ]
    put(root / "3D-FUTURE-model/model_info.json", json.dumps(models))
    put(root / "3D-FUTURE-model/lamp/raw_model.obj", make.obj_bytes())


def llff(root: Path) -> None:
    rows = make.llff_rows(9)
    rows[:, 4], rows[:, 9], rows[:, 14] = 240, 320, 280  # of the photographs in full
    put(root / "nerf_llff_data/fern/poses_bounds.npy", make.npy_bytes(rows))
    for index in range(9):
        photograph(root / f"nerf_llff_data/fern/images_8/{index}.png", (40, 30), index)


def colmap(root: Path, folder: str = "scene", images: str = "images", size: tuple[int, int] = (64, 48)) -> None:
    """Ten photographs of two cameras, of which one distorts."""
    files = make.colmap_text()
    lines = "# a comment\n"
    for index in range(10):
        lines += f"{index + 1} 1 0 0 0 0.5 0 4 {7 if index % 2 else 1} p{index}.jpg\n30.5 20.25 11 1.5 2.5 -1 3 4 5\n"
        photograph(root / folder / images / f"p{index}.jpg", size, index)
    for name, content in {**files, "images.txt": lines}.items():
        put(root / folder / "sparse/0" / name, content)


def transforms(root: Path, folder: str = "fox", layout: str = "transforms.json", images: str = "images") -> None:
    content = make.transforms_content()
    content["frames"] = [{"file_path": f"images/{i}.png", "transform_matrix": make.POSE} for i in range(9)]
    content["frames"][3]["transform_matrix"] = [[0.0, 0, 1, 4], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]]
    path = root / folder / layout
    put(path, json.dumps(content))
    for index in range(9):
        photograph(path.parent / images / f"{index}.png", (40, 30) if images == "images" else (20, 15), index)


def dnerf(root: Path) -> None:
    for split in ("train", "test"):
        frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": make.POSE, "time": i / 2} for i in range(3)]
        put(root / f"dnerf/lego/transforms_{split}.json", json.dumps({"camera_angle_x": 0.7, "frames": frames}))
        for index in range(3):
            photograph(root / f"dnerf/lego/{split}/r_{index}.png", (8, 8), index, "RGBA")


def srn(root: Path) -> None:
    for split, views in (("train", 2), ("test", 3)):
        for index in range(2):
            folder = root / f"shapenet_srn/cars_{split}/object{index}"
            put(folder / "intrinsics.txt", "16. 4. 4. 0.\n0. 0. 0.\n1.\n8 8\n")
            for view in range(views):
                put(folder / f"pose/{view:06}.txt", make.SRN["pose/0.txt"])
                photograph(folder / f"rgb/{view:06}.png", (8, 8), view, "RGBA")


def ava(root: Path) -> None:
    folder = root / "ava256/20210810--1306--FXN596/decoder"
    matrices = {"K": [[7000, 0, 0], [0, 7000, 0], [1300, 2000, 1]]}
    cameras = []
    for index in range(9):
        angle = 0.1 * index
        rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        pose = np.column_stack([rotation, [0, 0, 1000]])
        cameras.append({"cameraId": 400900 + index, **matrices, "T": pose.T.tolist()})
        (folder / "image").mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / f"image/cam{400900 + index}.zip", "w") as archive:
            photograph(folder / "picture.png", (667, 1024), index)
            archive.write(folder / "picture.png", f"cam{400900 + index}/000012.avif")
    put(folder / "camera_calibration.json", json.dumps({"KRT": cameras}))
    put(folder / "frame_list.csv", "seg_id,frame_id\nEXP_neutral_peak,12\n")


LAYOUTS: dict[str, tuple[Callable[[Path], None], dict[str, object], tuple[int, int], Modality]] = {
    "modelnet10": (modelnet, {"classes": ["bathtub", "toilet"]}, (4, 2), Modality.POINTS),
    "mesh_folder": (own_meshes, {}, (2, 2), Modality.POINTS),
    "shapenetpart": (parts, {"num_points": 2}, (1, 1), Modality.POINTS),
    "s3dis": (offices, {"min_points": 20}, (4, 4), Modality.POINTS),
    "scannet": (scenes, {"num_points": 8}, (1, 1), Modality.POINTS),
    "semantickitti": (streets, {"num_points": 5}, (1, 1), Modality.POINTS),
    "shapenet": (shapenet, {}, (1, 1), Modality.POINTS),
    "objaverse_xl": (objaverse, {"representation": "mesh"}, (27, 3), Modality.MESH),
    "threed_front": (houses, {"kinds": ["bedroom"]}, (1, 1), Modality.LAYOUT),
    "llff": (llff, {}, (7, 2), Modality.POSED_IMAGES),
    "colmap": (colmap, {}, (8, 2), Modality.POSED_IMAGES),
    "mip_nerf_360": (
        lambda root: colmap(root, "mipnerf360/garden", "images_4", (16, 12)),
        {},
        (8, 2),
        Modality.POSED_IMAGES,
    ),
    "tanks_and_temples": (lambda root: colmap(root, "tandt/truck"), {"downscale": 2}, (8, 2), Modality.POSED_IMAGES),
    "instant_ngp": (transforms, {}, (7, 2), Modality.POSED_IMAGES),
    "dl3dv": (
        lambda root: transforms(root, "DL3DV-Benchmark/abc", "nerfstudio/transforms.json", "images_4"),
        *({}, (7, 2), Modality.POSED_IMAGES),
    ),
    "dnerf": (dnerf, {}, (3, 3), Modality.POSED_IMAGES),
    "shapenet_srn": (srn, {}, (2, 2), Modality.SCENE_COLLECTION),
    "ava256": (ava, {"downscale": 8}, (7, 2), Modality.POSED_IMAGES),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_published_layout_loads_as_its_schema_says(name: str, root: Path) -> None:
    write, parameters, counts, modality = LAYOUTS[name]
    data = dataset(name, **parameters)
    assert data.missing() is not None
    write(root)
    assert data.missing() is None
    for instance in data.instances():
        schema = data.schema(instance)
        assert schema.modality is modality
        assert (schema.num_train, schema.num_test) == counts
        for split, count in zip(("train", "test"), counts):
            items = data.load(instance, split)
            check_split(items, split)
            assert len(items) == count
            batch = items.batch(np.arange(count))
            assert set(batch) == set(schema.fields)
            for field, value in batch.items():
                assert len(value) == count
                assert not value.is_floating_point() or bool(value.isfinite().all())
                if field == "image" and modality is Modality.POSED_IMAGES:
                    assert tuple(value.shape[1:]) == (*schema.image_size, 3)
                if field == "points" and modality is Modality.POINTS:
                    assert tuple(value.shape[1:]) == (schema.num_points, 3)
                if field in {"label", "furniture_label"}:
                    assert value.max() < len(schema.classes)
                if field == "point_label":
                    assert 0 <= value.min() <= value.max() < len(schema.parts)
    sources = getattr(data, "sources", tuple)()
    assert all(path.is_file() for path in sources)


@pytest.mark.parametrize("name", YAMLS)
def test_what_is_missing_is_said_in_one_line(name: str, root: Path) -> None:
    data = dataset(name)
    line = data.missing()
    assert line is not None
    assert "\n" not in line
    assert str(root) in line
    spec = Catalog().spec("dataset", name)
    assert spec.licence
    assert spec.citation or name == "mesh_folder"
    assert spec.size
    assert "<data root>" in spec.how_to_get or "data root" in spec.how_to_get
    with pytest.raises(DataError):
        data.load(data.instances()[0], "train")


def test_modelnet_in_points(root: Path) -> None:
    pytest.importorskip("h5py")
    points = np.random.default_rng(0).normal(size=(2, 2048, 3)).astype("f4")
    for split in ("train", "test"):
        put(
            root / f"modelnet40_ply_hdf5_2048/{split}_files.txt",
            f"data/modelnet40_ply_hdf5_2048/ply_data_{split}0.h5\n",
        )
        put(root / f"modelnet40_ply_hdf5_2048/ply_data_{split}0.h5", make.h5_bytes(points))
    loaded = dataset("modelnet40").load("all", "train").all()
    np.testing.assert_array_equal(loaded["points"], points[:, :1024])  # the first ones, as the papers take them
    assert loaded["label"].tolist() == [3, 39]
    for split in ("train", "test"):
        put(root / f"modelnet40_normal_resampled/modelnet10_{split}.txt", "bathtub_0001\n")
    put(root / "modelnet40_normal_resampled/bathtub/bathtub_0001.txt", make._resampled())
    ten = dataset("modelnet10", num_points=3)
    assert set(ten.load("all", "test").all()) == {"points", "normals", "label"}
    with pytest.raises(DataError, match="fewer than 4 points"):
        dataset("modelnet10", num_points=4).load("all", "test")


def test_a_changed_mesh_is_sampled_again(root: Path) -> None:
    modelnet(root)
    data = dataset("modelnet10", classes=["bathtub", "toilet"])
    before = data.fingerprint()
    assert data.fingerprint() == before
    put(root / "ModelNet10/bathtub/train/bathtub_0000.off", make.off_bytes().replace("1 0 0\n", "1.5 0 0\n"))
    assert data.fingerprint() != before


def test_test_shapes_are_never_trained_on(root: Path) -> None:
    parts(root)
    folder = root / "shapenetpart/shapenetcore_partanno_segmentation_benchmark_v0_normal"
    put(folder / "train_test_split/shuffled_train_file_list.json", json.dumps(["shape_data/02954340/test"]))
    with pytest.raises(DataError, match="is for training and for testing"):
        dataset("shapenetpart").load("all", "train")
    put(folder / "02954340/test.txt", make.part_text().replace("7.000000", "8.000000"))
    with pytest.raises(DataError, match=r"part 8 is none of a Cap's \(6\.\.7\)"):
        dataset("shapenetpart").load("all", "test")


def test_furniture_stands_where_the_house_says(root: Path) -> None:
    houses(root)
    data = dataset("threed_front", kinds=["bedroom"])
    room = data.load("bedroom", "train").batch([0])
    classes = data.schema("bedroom").classes
    assert [classes[label] for label in room["furniture_label"][0, :2]] == ["king-size bed", "unknown"]
    # the bed stands on its origin and is turned by a quarter; the floor's centre is (2, 0, 1.5)
    np.testing.assert_allclose(room["furniture"][0, 0], [1 - 2, 0.5, 2 - 1.5, 2, 1, 3, np.pi / 2], atol=1e-6)
    # the lamp's size is that of its model, a unit tetrahedron with its corner at the origin
    np.testing.assert_allclose(room["furniture"][0, 1], [3.5 - 2, 1, 1.5 - 1.5, 1, 1, 1, 0], atol=1e-6)


def test_every_eighth_photograph_is_for_testing(root: Path) -> None:
    colmap(root)
    data = dataset("colmap")
    first = data.load("scene", "test").batch([0, 1])["image"].numpy()
    for index, name in enumerate(("p0.jpg", "p8.jpg")):
        np.testing.assert_array_equal(first[index], np.asarray(Image.open(root / "scene/images" / name)))
    with pytest.raises(DataError, match="did you mean 'scene'"):
        data.schema("scine")


def test_smaller_copies_have_smaller_cameras(root: Path) -> None:
    colmap(root, "mipnerf360/garden", "images_4", (16, 12))
    views = dataset("mip_nerf_360").load("garden", "test").all()
    np.testing.assert_allclose(views["intrinsics"][0], [[12.5, 0, 8], [0, 12.75, 6], [0, 0, 1]], atol=1e-5)
    photograph(root / "mipnerf360/garden/images_4/p0.jpg", (16, 16))
    with pytest.raises(DataError, match=r"p0\.jpg is 16x16 and its camera 64x48: another shape"):
        dataset("mip_nerf_360").schema("garden")


def test_views_downscale_by_means(root: Path) -> None:
    transforms(root)
    content = json.loads((root / "fox/transforms.json").read_text())
    for key in ("k1", "k2", "p1"):
        content[key] = 0.0
    put(root / "fox/transforms.json", json.dumps(content))
    full, half = (dataset("instant_ngp", downscale=scale).load("fox", "test").all() for scale in (1, 2))
    mean = full["image"].double().reshape(2, 15, 2, 20, 2, 3).mean((2, 4))
    assert (half["image"] - mean).abs().max() <= 0.5
    np.testing.assert_allclose(half["intrinsics"][:, :2], full["intrinsics"][:, :2] / 2)


def test_a_photograph_that_is_not_there_is_named(root: Path) -> None:
    transforms(root)
    (root / "fox/images/0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png does not exist"):
        dataset("instant_ngp").load("fox", "test")
    photograph(root / "fox/images/0.png", (41, 30))
    with pytest.raises(DataError, match=r"0\.png is 41x30 and its camera 40x30"):
        dataset("instant_ngp").load("fox", "test")
    put(root / "fox/images/0.png", (root / "fox/images/1.png").read_bytes()[:300])
    with pytest.raises(DataError, match=r"0\.png cannot be decoded"):
        dataset("instant_ngp").load("fox", "test")


def test_own_lists_of_a_capture_are_kept(root: Path) -> None:
    transforms(root)
    content = json.loads((root / "fox/transforms.json").read_text())
    content["train_filenames"] = [f"images/{i}.png" for i in range(4)]
    content["test_filenames"] = [f"./images/{i}.png" for i in (5, 7)]
    put(root / "fox/transforms.json", json.dumps(content))
    schema = dataset("instant_ngp").schema("fox")
    assert (schema.num_train, schema.num_test) == (4, 2)


def test_times_of_moving_scenes(root: Path) -> None:
    dnerf(root)
    data = dataset("dnerf")
    assert data.load("lego", "train").all()["time"].tolist() == [0.0, 0.5, 1.0]
    assert "time" in data.schema("lego").fields


def test_meshes_are_filled_up_in_a_batch(root: Path) -> None:
    shapenet(root)
    put(root / "ShapeNetCore.v2/all.csv", make._csv() + "3,04379243,04379243,cc,train\n")
    put(root / "ShapeNetCore.v2/04379243/cc/model.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    batch = dataset("shapenet", representation="mesh").load("all", "train").batch([0, 1])
    assert batch["vertices"].shape == (2, 4, 3)
    assert batch["faces"][1].tolist() == [[0, 1, 2], [-1] * 3, [-1] * 3, [-1] * 3]
    assert batch["label"].tolist() == [4, 10]
