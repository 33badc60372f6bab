"""A small valid file of every 3D format, with its reader: what the damage tests and the fuzzing start from."""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from adlbench.datasets.formats import (
    ava256,
    binvox,
    blender,
    body_parts,
    camera_models,
    colmap,
    glb,
    llff,
    middlebury,
    modelnet,
    obj,
    objaverse,
    off,
    pcd,
    ply,
    point_bin,
    s3dis,
    scannet,
    semantickitti,
    shapenet,
    shapenetpart,
    srn,
    threed_front,
    transforms,
)

NONE: frozenset[str] = frozenset()
LAST = frozenset({"cut by a byte"})  # a newline or a digit less
TWICE = frozenset({"twice"})
LINES = frozenset({"cut by a byte", "twice", "cut in half", "cut to nine bytes"})  # any lines will do
POINTS = frozenset({"zeros", "twice", "cut in half"})


class Sample(NamedTuple):
    name: str
    file: str  # relative to a folder of its own
    content: bytes
    read: Callable[[Path], Any]  # of the file's path
    beside: Mapping[str, bytes] = MappingProxyType({})  # other files that the reader opens
    binary: bool = False
    accepts: frozenset[str] = NONE  # damages of ``test_damage_3d`` that leave a file which is right, only different

    def place(self, folder: Path, content: bytes | None = None) -> Path:
        """Write the sample, or ``content`` in its place, and return the path to be read."""
        for name, other in {**self.beside, self.file: self.content if content is None else content}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(other)
        return folder / self.file


SRN = {
    "rgb/0.png": b"",
    "pose/0.txt": b"1 0 0 0.5 0 1 0 0 0 0 1 -1.3 0 0 0 1\n",
    "intrinsics.txt": b"131.25 64. 64. 0.\n0. 0. 0.\n1.\n128 128\n",
}
VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
POSE = [[1.0, 0, 0, 0.5], [0, 1.0, 0, 0], [0, 0, 1.0, 4.0], [0, 0, 0, 1.0]]


def samples() -> list[Sample]:
    text = LAST | TWICE
    return [
        Sample("off", "a.off", off_bytes().encode(), off.read_off, accepts=LAST),
        Sample("obj", "a.obj", obj_bytes().encode(), obj.read_obj, accepts=text | {"cut in half", "reversed"}),
        Sample("ply ascii", "a.ply", ply_bytes("ascii"), ply.read_mesh, accepts=text),
        Sample("ply little", "a.ply", ply_bytes("binary_little_endian"), ply.read_mesh, binary=True, accepts=text),
        Sample("ply big", "a.ply", ply_bytes("binary_big_endian"), ply.read_mesh, binary=True, accepts=text),
        Sample("glb", "a.glb", glb_bytes(), glb.read_glb, binary=True),
        Sample("pcd ascii", "a.pcd", pcd_bytes("ascii"), pcd.read_pcd, accepts=LAST),
        Sample("pcd binary", "a.pcd", pcd_bytes("binary"), pcd.read_pcd, binary=True, accepts=TWICE),
        Sample("pcd compressed", "a.pcd", pcd_bytes("binary_compressed"), pcd.read_pcd, binary=True, accepts=TWICE),
        Sample("binvox", "a.binvox", binvox_bytes(), binvox.read_binvox, binary=True),
        Sample("voxel array", "a.npy.gz", voxel_bytes(), binvox.read_voxel_array, binary=True),
        Sample("velodyne", "a.bin", velodyne_bytes(), _velodyne, binary=True, accepts=POINTS),
        Sample("mmdet3d", "b.bin", mmdet_bytes(), _mmdet, binary=True, accepts=POINTS),
        Sample(
            *("semantickitti", "labels/0.label", np.array([10, 0, 2 << 16 | 40, 70], "<u4").tobytes(), _scan),
            {"velodyne/0.bin": velodyne_bytes()},
            binary=True,
            accepts=frozenset({"zeros"}),
        ),
        Sample("shapenetpart", "a.txt", part_text().encode(), shapenetpart.read_part_cloud, accepts=text | {"cut in half"}),
        Sample("shapenetpart split", "s.json", b'["shape_data/02954340/a", "shape_data/02954340/b"]', shapenetpart.read_split),
        Sample("s3dis", "chair_1.txt", b"1.5 2.5 0.5 10 20 30\n1.25 2.0 0.75 255 0 3\n1 2 3 4 5 6\n", s3dis.read_object, accepts=text),
        Sample("scannet", "a.labels.ply", scannet_bytes(), _scannet, {"a.ply": scannet_mesh()}, binary=True, accepts=text),
        Sample("scannet split", "v.txt", b"scene0000_00\nscene0001_00\n", scannet.read_split, accepts=text | {"cut in half"}),
        Sample("modelnet list", "train_files.txt", b"data/x/a.h5\ndata/x/b.h5\n", modelnet.read_list, accepts=LINES),
        Sample("modelnet resampled", "a.txt", _resampled().encode(), modelnet.read_resampled, accepts=text),
        Sample("modelnet shapes", "l.txt", b"chair_0001\ntable_0002\n", _shapes, accepts=LINES),
        Sample("body parts", "p.json", json.dumps({"arm": [0, 1, 2], "leg": [2, 3]}).encode(), _body),
        *_colmap_samples(),
        Sample("transforms", "transforms.json", transforms_bytes(), transforms.read_transforms),
        Sample("blender", "transforms_train.json", blender_bytes(), blender.read_frames),
        Sample("llff", "poses_bounds.npy", llff_bytes(), llff.read_poses_bounds, binary=True),
        Sample("middlebury", "a_par.txt", par_text().encode(), middlebury.read_par, accepts=LAST),
        Sample("shapenet csv", "all.csv", _csv().encode(), shapenet.read_split_csv, accepts=LINES),
        Sample("shapenet json", "s.json", b'{"ShapeNetV2": {"03001627": ["aa", "bb"]}}', shapenet.read_split_json),
        Sample("objaverse", "object-paths.json.gz", _gz({"u": "glbs/0/u.glb"}), _objects, binary=True),
        Sample("objaverse annotations", "0.json.gz", _gz({"u": {"name": "x"}}), objaverse.read_annotations, binary=True),
        Sample("3d-front", "house.json", json.dumps(house()).encode(), threed_front.read_house),
        Sample("3d-future", "model_info.json", b'[{"model_id": "m", "category": "Bed"}]', threed_front.read_categories),
        Sample("srn", "intrinsics.txt", SRN["intrinsics.txt"], _srn, SRN, accepts=text),
        Sample("srn pose", "pose/0.txt", SRN["pose/0.txt"], _srn_pose, SRN, accepts=LAST),
        Sample("ava256", "camera_calibration.json", calibration_bytes(), ava256.read_calibration),
        Sample("ava256 frames", "frame_list.csv", b"seg_id,frame_id\nEXP_a,12\nEXP_a,15\n", ava256.read_frames, accepts=LINES),
    ]  # fmt: skip


def hdf5_samples() -> list[Sample]:
    """Apart, because h5py may be absent."""
    return [
        Sample("modelnet h5", "a.h5", h5_bytes(), lambda path: modelnet.read_h5(path, 40), binary=True, accepts=TWICE)
    ]


# -------------------------------------------------------------------------------------------------------------- writers
def off_bytes(header: str = "OFF\n4 4 6\n") -> str:
    rows = [" ".join(f"{x:g}" for x in row) for row in VERTICES] + ["3 " + " ".join(map(str, face)) for face in FACES]
    return header + "\n".join(rows) + "\n"


def obj_bytes() -> str:
    rows = ["mtllib ../../secret.mtl"] + ["v " + " ".join(f"{x:g}" for x in row) for row in VERTICES]
    return "\n".join([*rows, "vt 0 0", "f 1/1 3/1 2/1", "f -4 -3 -1", "f 1 4 3", "f 2//1 3//1 4//1"]) + "\n"


def ply_bytes(
    form: str, vertices: np.ndarray = VERTICES, faces: np.ndarray | list = FACES, **labels: np.ndarray
) -> bytes:
    order = ">" if "big" in form else "<"
    kinds = {"f4": "float", "u2": "ushort", "u1": "uchar"}
    header = f"ply\nformat {form} 1.0\ncomment made by a test\nelement vertex {len(vertices)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += "".join(f"property {kinds[value.dtype.str[1:]]} {name}\n" for name, value in labels.items())
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    out = io.BytesIO()
    for row, extra in zip(vertices, zip(*labels.values()) if labels else [()] * len(vertices)):
        if form == "ascii":
            out.write((" ".join(repr(float(x)) for x in row) + "".join(f" {x}" for x in extra) + "\n").encode())
        else:
            out.write(np.asarray(row, order + "f4").tobytes())
            out.write(b"".join(np.asarray(x, x.dtype.newbyteorder(order)).tobytes() for x in extra))
    for face in faces:
        if form == "ascii":
            out.write((" ".join(map(str, [len(face), *face])) + "\n").encode())
        else:
            out.write(bytes([len(face)]) + np.asarray(face, order + "i4").tobytes())
    return header.encode() + out.getvalue()


def glb_bytes() -> bytes:
    import trimesh

    content: bytes = trimesh.Trimesh(VERTICES, FACES, process=False).export(file_type="glb")
    return content


CLOUD = {
    "x": np.array([0.5, 1.5, np.nan, 2.5], "<f4"),
    "y": np.array([-1, 0, 1, 2], "<f4"),
    "z": np.array([3, 4, 5, 6], "<f4"),
    "rgb": np.array([0x112233, 0xFF0000, 0, 0xFF], "<u4"),
    "label": np.array([7, 0, 65535, 1], "<u2"),
}


def pcd_bytes(form: str, cloud: dict[str, np.ndarray] | None = None, height: int = 1) -> bytes:
    cloud = CLOUD if cloud is None else cloud
    count = len(next(iter(cloud.values())))
    kinds = {name: values.dtype for name, values in cloud.items()}
    header = "# .PCD v0.7\nVERSION 0.7\nFIELDS " + " ".join(cloud)
    header += "\nSIZE " + " ".join(str(kind.itemsize) for kind in kinds.values())
    header += "\nTYPE " + " ".join(kind.kind.upper() for kind in kinds.values())
    header += "\nCOUNT " + " ".join("1" for _ in cloud)
    header += f"\nWIDTH {count // height}\nHEIGHT {height}\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA {form}\n"
    if form == "ascii":
        rows = zip(*(values.tolist() for values in cloud.values()))
        return (header + "\n".join(" ".join(map(repr, row)) for row in rows) + "\n").encode()
    if form == "binary":
        table = np.empty(count, dtype=list(kinds.items()))
        for name, values in cloud.items():
            table[name] = values
        return header.encode() + table.tobytes()
    body = b"".join(values.tobytes() for values in cloud.values())
    packed = lzf(body)
    return header.encode() + struct.pack("<II", len(packed), len(body)) + packed


def lzf(content: bytes) -> bytes:
    """A plain compressor: runs of one byte become copies that overlap themselves, everything else literals."""
    out, position = bytearray(), 0
    while position < len(content):
        run = 1
        while position + run < len(content) and run < 264 and content[position + run] == content[position]:
            run += 1
        if run >= 4:
            out += bytes([0, content[position]])
            length = run - 1 - 2
            out += bytes([length << 5, 0]) if length < 7 else bytes([7 << 5, length - 7, 0])
            position += run
        else:
            piece = content[position : position + 1]
            out += bytes([len(piece) - 1]) + piece
            position += 1
    return bytes(out)


GRID = np.arange(3 * 4 * 5).reshape(3, 4, 5) % 7 < 3


def binvox_bytes(grid: np.ndarray = GRID) -> bytes:
    x, y, z = grid.shape
    flat = grid.transpose(0, 2, 1).ravel().astype(np.uint8)
    out = bytearray()
    start = 0
    while start < len(flat):
        end = start
        while end < len(flat) and flat[end] == flat[start] and end - start < 255:
            end += 1
        out += bytes([flat[start], end - start])
        start = end
    return f"#binvox 1\ndim {x} {z} {y}\ntranslate -0.5 0.25 1\nscale 2.5\ndata\n".encode() + bytes(out)


def npy_bytes(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def voxel_bytes() -> bytes:
    return gzip.compress(npy_bytes((np.arange(2 * 64).reshape(2, 1, 4, 4, 4) % 3 == 0).astype(np.float64)), mtime=0)


def velodyne_bytes() -> bytes:
    return np.array([[1, 2, -1.5, 0.25], [10.5, -3, 0, 0.5], [0, 0, 0, 0], [-70, 60, 2, 1]], "<f4").tobytes()


def mmdet_bytes() -> bytes:
    return np.array([[1, 2, 0.5, 255, 128, 0], [3, 4, 1, 10, 20, 30]], "<f4").tobytes()


def part_text() -> str:
    return "0.1 0.2 0.3 0.0 1.0 0.0 6.000000\n-0.1 0.5 -0.25 1.0 0.0 0.0 7.000000\n"


def _resampled() -> str:
    return "0.1,0.2,0.3,0,1,0\n-0.5,0.25,0,1,0,0\n0.5,0.5,0.5,0,0,1\n"


def scannet_mesh() -> bytes:
    colours = {name: np.array([1, 2, 3, 250], "u1") for name in ("red", "green", "blue")}
    return ply_bytes("binary_little_endian", **colours)


def scannet_bytes() -> bytes:
    return ply_bytes("binary_little_endian", label=np.array([1, 39, 40, 0], "<u2"))


def h5_bytes(points: np.ndarray | None = None, labels: np.ndarray | None = None, **more: np.ndarray) -> bytes:
    import h5py

    points = np.linspace(-1, 1, 2 * 6 * 3, dtype="f4").reshape(2, 6, 3) if points is None else points
    labels = np.array([[3], [39]], dtype=np.uint8) if labels is None else labels
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.create_dataset("data", data=points, compression="gzip")
        file.create_dataset("label", data=labels)
        for name, value in more.items():
            file.create_dataset(name, data=value)
    return out.getvalue()


def colmap_binary() -> dict[str, bytes]:
    """Two cameras, two images, three points."""
    cameras = struct.pack("<QIiQQ", 2, 1, 1, 64, 48) + struct.pack("<4d", 50, 51, 32, 24)
    cameras += struct.pack("<IiQQ", 7, 2, 64, 48) + struct.pack("<4d", 50, 32, 24, 0.01)
    images = struct.pack("<Q", 2)
    for key, camera, name in ((1, 1, b"b.jpg"), (2, 7, b"sub/a.jpg")):
        images += struct.pack("<I7dI", key, 1, 0, 0, 0, 0.5, 0, 4, camera) + name + b"\0"
        images += struct.pack("<Q", 2) + struct.pack("<ddq", 30.5, 20.25, 11) + struct.pack("<ddq", 1.5, 2.5, -1)
    points = struct.pack("<Q", 3)
    for key in (11, 5, 900):
        points += (
            struct.pack("<Q3d3Bd", key, 0.1 * key, 1, 2, 1, 2, 3, 0.5) + struct.pack("<Q", 1) + struct.pack("<II", 1, 0)
        )
    return {"cameras.bin": cameras, "images.bin": images, "points3D.bin": points}


def colmap_text() -> dict[str, bytes]:
    """The same as ``colmap_binary``."""
    cameras = "# a comment\n1 PINHOLE 64 48 50 51 32 24\n7 SIMPLE_RADIAL 64 48 50 32 24 0.01\n"
    images = "# a comment\n"
    for key, camera, name in ((1, 1, "b.jpg"), (2, 7, "sub/a.jpg")):
        images += f"{key} 1 0 0 0 0.5 0 4 {camera} {name}\n30.5 20.25 11 1.5 2.5 -1\n"
    points = "".join(f"{key} {0.1 * key} 1 2 1 2 3 0.5 1 0\n" for key in (11, 5, 900))
    return {"cameras.txt": cameras.encode(), "images.txt": images.encode(), "points3D.txt": points.encode()}


def _colmap_samples() -> list[Sample]:
    found = []
    for files, binary in ((colmap_binary(), True), (colmap_text(), False)):
        for name, content in files.items():
            accepts = frozenset() if binary else LAST
            if name == "cameras.txt":
                accepts |= {"twice"}
            if name == "points3D.txt":
                accepts |= {"twice"}
            beside = {other: value for other, value in files.items() if other != name}
            found.append(Sample(f"colmap {name}", name, content, _colmap, beside, binary, accepts))
    return found


def transforms_content() -> dict[str, Any]:
    frames = [{"file_path": f"images/{name}.jpg", "transform_matrix": POSE, "time": 0.5} for name in ("b", "a")]
    camera = {
        "w": 40,
        "h": 30,
        "fl_x": 35.0,
        "fl_y": 36.0,
        "cx": 20.0,
        "cy": 15.0,
        "k1": 0.05,
        "k2": -0.01,
        "p1": 0.001,
    }
    return {**camera, "aabb_scale": 4, "frames": frames}


def transforms_bytes() -> bytes:
    return json.dumps(transforms_content()).encode()


def blender_bytes() -> bytes:
    frames = [{"file_path": f"./train/r_{i}", "transform_matrix": POSE, "time": i / 2} for i in range(3)]
    return json.dumps({"camera_angle_x": 0.7, "frames": frames}).encode()


def llff_rows(count: int = 3) -> np.ndarray:
    rows = np.zeros((count, 17))
    for index in range(count):
        # down, right, backwards of a camera that looks along -z with y up
        matrix = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
        place = [[0.1 * index], [0.2], [0.3]]
        rows[index, :15] = np.concatenate([matrix, place, [[30], [40], [35]]], axis=1).ravel()
        rows[index, 15:] = [1.5, 20 + index]
    return rows


def llff_bytes() -> bytes:
    return npy_bytes(llff_rows())


def par_text() -> str:
    row = "1520.4 0 302.32 0 1525.9 246.87 0 0 1 1 0 0 0 1 0 0 0 1 0.1 0.2 0.6"
    return f"2\na0001.png {row}\na0002.png {row}\n"


def _csv() -> str:
    return "id,synsetId,subSynsetId,modelId,split\n1,03001627,03001627,aa,train\n2,02691156,02691156,bb,test\n"


def _gz(content: object) -> bytes:
    return gzip.compress(json.dumps(content).encode(), mtime=0)


def house() -> dict[str, Any]:
    half = float(np.sqrt(0.5))
    furniture = [
        {"uid": "1/model", "jid": "bed", "category": "Bed", "size": [2.0, 1.0, 1.5], "valid": True},
        {"uid": "2/model", "jid": "lamp", "size": None, "valid": True},
        {"uid": "3/model", "jid": "broken", "valid": False},
    ]
    floor = {
        "uid": "f",
        "jid": "",
        "type": "Floor",
        "xyz": [0, 0, 0, 4, 0, 0, 4, 0, 3, 0, 0, 3],
        "faces": [0, 1, 2, 0, 2, 3],
    }
    children = [
        {"ref": "1/model", "pos": [1.0, 0.0, 2.0], "rot": [0.0, half, 0.0, half], "scale": [1.0, 1.0, 2.0]},
        {"ref": "2/model", "pos": [3.0, 0.5, 1.0], "rot": [0.0, 0.0, 0.0, 1.0], "scale": [1.0, 1.0, 1.0]},
        {"ref": "3/model", "pos": [0.0, 0.0, 0.0], "rot": [0.0, 0.0, 0.0, 1.0], "scale": [1.0, 1.0, 1.0]},
        {"ref": "f", "pos": [0, 0, 0], "rot": [0, 0, 0, 1], "scale": [1, 1, 1]},
    ]
    room = {"instanceid": "MasterBedroom-1", "type": "MasterBedroom", "children": children}
    return {"uid": "house", "furniture": furniture, "mesh": [floor], "scene": {"room": [room]}}


def calibration_bytes() -> bytes:
    matrices = {"K": [[7000, 0, 0], [0, 7001, 0], [1300, 2000, 1]], "T": np.array(POSE).T.tolist()}
    return json.dumps({"KRT": [{"cameraId": 400944, **matrices}, {"cameraId": 400945, **matrices}]}).encode()


# -------------------------------------------------------------------------------------------------------------- readers
def _velodyne(path: Path) -> np.ndarray:
    return point_bin.read_points(path, 4)


def _mmdet(path: Path) -> np.ndarray:
    return point_bin.read_points(path, 6)


def _scan(path: Path) -> semantickitti.Scan:
    return semantickitti.read_scan(path.parent.parent / "velodyne" / "0.bin", path)


def _scannet(path: Path) -> scannet.Scene:
    return scannet.read_scene(path.parent / "a.ply", path)


def _shapes(path: Path) -> list[tuple[int, Path]]:
    return modelnet.read_resampled_list(path, ("chair", "table"))


def _body(path: Path) -> body_parts.BodyParts:
    return body_parts.read_body_parts(path, 4)


def _colmap(path: Path) -> colmap.Reconstruction:
    model = colmap.read_reconstruction(path.parent)
    for camera in model.cameras.values():
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            camera_models.Camera.project(camera, np.zeros((1, 2)))
    return model


def _objects(path: Path) -> objaverse.Objects:
    return objaverse.read_objects(path.parent)


def _srn(path: Path) -> srn.Views:
    return srn.read_views(path.parent)


def _srn_pose(path: Path) -> srn.Views:
    return srn.read_views(path.parent.parent)


# ------------------------------------------------------------------------------------------------------------- fuzzing
class Format(NamedTuple):
    """As ``tests/fuzz_formats.py`` takes them: files for an empty folder, one of which is damaged, and how they are read."""

    name: str
    files: dict[str, bytes]
    read: Callable[[Path], Any]  # of the folder


def whole(sample: Sample) -> Format:
    return Format(
        sample.name, {**sample.beside, sample.file: sample.content}, lambda folder: sample.read(folder / sample.file)
    )


FORMATS = [whole(sample) for sample in samples() + (hdf5_samples() if find_spec("h5py") else [])]
