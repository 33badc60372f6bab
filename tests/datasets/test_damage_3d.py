"""Damaged files of every 3D format: a DataError that names the file, and never anything else, nor much memory."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import formats_3d as make
import numpy as np
import pytest
from formats_3d import Sample, samples

from adlbench.benchmark.api import DataError

SAMPLES = {sample.name: sample for sample in samples()}
MAX_MEMORY = 32 << 20  # bytes; the files themselves are below a kilobyte


def noise(content: bytes) -> bytes:
    return random.Random(0).randbytes(len(content))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "cut to nine bytes": lambda content: content[:9],
    "cut in half": lambda content: content[: len(content) // 2 - 1],
    "cut by a byte": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "ones": lambda content: b"\xff" * len(content),
    "noise": noise,
    "reversed": lambda content: content[::-1],
    "twice": lambda content: content + content,
}


def read_within_limits(sample: Sample, path: Path) -> Any:
    tracemalloc.start()
    try:
        return sample.read(path)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MAX_MEMORY


@pytest.mark.parametrize("name", SAMPLES)
def test_the_sample_itself_is_read(name: str, tmp_path: Path) -> None:
    assert SAMPLES[name].read(SAMPLES[name].place(tmp_path)) is not None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", SAMPLES)
def test_damage_is_refused_and_the_file_named(name: str, damage: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    path = sample.place(tmp_path, DAMAGES[damage](sample.content))
    if damage in sample.accepts:
        with contextlib.suppress(DataError):
            assert read_within_limits(sample, path) is not None
        return
    with pytest.raises(DataError) as error:
        read_within_limits(sample, path)
    message = str(error.value)
    assert str(tmp_path) in message
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 700


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    path = sample.place(tmp_path)
    for put in (lambda: None, path.mkdir, lambda: path.symlink_to("nowhere"), lambda: path.symlink_to(path.name)):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        put()
        with pytest.raises(DataError, match=re.escape(path.stem.split(".")[0])):
            sample.read(path)


def edit_json(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **changes}).encode()


def edit_frame(**changes: Any) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        data = json.loads(content)
        data["frames"][1].update(changes)
        return json.dumps(data).encode()

    return edit


def swap(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return edit


def put(position: int, layout: str, *values: Any) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        piece = struct.pack(layout, *values)
        return content[:position] + piece + content[position + len(piece) :]

    return edit


def llff(row: int, column: int, value: float) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        rows = make.llff_rows()
        rows[row, column] = value
        return make.npy_bytes(rows)

    return edit


def piece(**changes: Any) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        data = json.loads(content)
        data["scene"]["room"][0]["children"][0].update(changes)
        return json.dumps(data).encode()

    return edit


HUGE = 2**62
SPECIFIC = {
    "off": [
        (swap(b"4 4 6", b"-4 4 6"), "-4 vertices"),
        (swap(b"4 4 6", b"5 4 6"), "announces 5 vertices"),
        (swap(b"4 4 6", b"999999999999 4 6"), "announces 999,999,999,999"),
        (swap(b"0 1 0", b"nan 1 0"), "vertex 2 is NaN"),
        (swap(b"0 1 0", b"1e999 1 0"), "vertex 2 is NaN or infinite"),
        (swap(b"0 1 0", b"x 1 0"), "line 5: 'x' is no number"),
        (swap(b"0 1 0", b"1 0"), "line 5: 2 columns"),
        (swap(b"3 0 2 1", b"3 0 2 4"), "face 0 holds"),
        (swap(b"3 0 2 1", b"3 0 2 -1"), "face 0 holds"),
        (swap(b"3 0 2 1", b"4 0 2 1"), "line 7: .* is no face"),
        (swap(b"3 0 2 1", b"99999999999999999999 0 2 1"), "line 7: .* is no face"),
        (swap(b"OFF", b"OBJ"), "does not begin with OFF"),
    ],
    "obj": [
        (swap(b"v 1 0 0", b"v 1 0"), "2 columns"),
        (swap(b"v 1 0 0", b"v 1 inf 0"), "vertex 1 is NaN or infinite"),
        (swap(b"v 1 0 0", b"v 1 o 0"), "'o' is no number"),
        (swap(b"f 1 4 3", b"f 1 4 5"), "face 2 holds"),
        (swap(b"f 1 4 3", b"f 0 4 3"), "line 9: .* counted from 1"),
        (swap(b"f 1 4 3", b"f 1 4"), "line 9: .* three corners"),
        (swap(b"f -4 -3 -1", b"f -5 -3 -1"), "line 8"),
        (swap(b"f 1 4 3", b"f 1 x 3"), "line 9: .* is no face"),
        (swap(b"f 1 4 3", b"f 1 99999999999999999999 3"), "line 9: .* corners"),
        (lambda content: content.replace(b"v ", b"# ").replace(b"f ", b"# "), "has no line 'v x y z'"),
    ],
    "ply little": [
        (swap(b"vertex 4", b"vertex 999999999999"), "announces 11,999,999,999,"),
        (swap(b"vertex 4", b"vertex -4"), "no element or property"),
        (swap(b"vertex 4", b"vertex 5"), "announces|damaged|0 corners"),
        (swap(b"face 4", b"face 4000000000"), "announces"),
        (swap(b"float y", b"quad y"), "no element or property"),
        (swap(b"float y", b"float q"), "lacks y"),
        (swap(b"element vertex", b"element corner"), "lacks x, y, z"),
        (swap(b"end_header", b"end_hedder"), "PLY header"),
        (swap(b"binary_little", b"binary_middle"), "damaged|header"),
        (swap(b"little", b"big"), "NaN|face|damaged"),
        (swap(b"uchar int", b"uchar float"), "whole numbers"),
        (swap(struct.pack("<f", 1), struct.pack("<f", np.nan)), "vertex 1 is NaN"),
        (swap(struct.pack("<3i", 0, 2, 1), struct.pack("<3i", 0, 2, 4)), "face 0 holds"),
        (swap(b"\x03" + struct.pack("<3i", 0, 2, 1), b"\xff" + struct.pack("<3i", 0, 2, 1)), "damaged"),
    ],
    "ply ascii": [
        (swap(b"vertex 4", b"vertex 3"), "damaged|face"),
        (swap(b"1.0 0.0 0.0", b"1.0 nan 0.0"), "vertex 1 is NaN"),
        (swap(b"1.0 0.0 0.0", b"1.0 zero 0.0"), "damaged"),
        (swap(b"3 0 2 1", b"3 0 2 9"), "face 0 holds"),
        (swap(b"3 0 2 1", b"99999 0 2 1"), "damaged"),
    ],
    "glb": [
        (put(4, "<I", 1), "version 1"),
        (put(8, "<I", 1 << 31), "announces 2,147,483,648"),
        (put(12, "<I", 1 << 31), "damaged glb"),
        (put(16, "<I", 7), "damaged glb"),
        (swap(b'"count":12', b'"count":99'), "damaged glb|face|vertices"),
        (swap(b'"POSITION"', b'"position"'), "damaged glb|vertices"),
    ],
    "pcd binary": [
        (swap(b"WIDTH 4", b"WIDTH -4"), "WIDTH -4"),
        (swap(b"WIDTH 4", b"WIDTH 5"), "WIDTH 5 x HEIGHT 1 must be its POINTS, 4"),
        (lambda c: c.replace(b" 4\n", b" 99999999999\n"), "announced|header|different"),
        (swap(b"TYPE F F F", b"TYPE Q F F"), "no PCD header"),
        (swap(b"SIZE 4 4 4", b"SIZE 3 4 4"), "no PCD header"),
        (swap(b"COUNT 1 1", b"COUNT 99999999999999 1"), "announced"),
        (swap(b"COUNT 1 1", b"COUNT -1 1"), "must be its POINTS"),
        (swap(b"FIELDS x y", b"FIELDS x x"), "different fields"),
        (swap(b"FIELDS x y", b"FIELDS y"), "no PCD header|equally many"),
        (swap(b"DATA binary", b"DATA zipped"), "its DATA is 'zipped'"),
        (swap(b"DATA binary\n", b""), "without DATA|no PCD"),
    ],
    "pcd ascii": [
        (swap(b"3.0", b"three"), "'three' is no number"),
        (swap(b"65535", b"65536"), "not of its type"),
        (swap(b"65535", b"nan"), "not of its type"),
        (swap(b"POINTS 4", b"POINTS 3"), "must be its POINTS"),
    ],
    "pcd compressed": [
        (lambda c: c[: c.index(b"compressed\n") + 11] + struct.pack("<I", 1 << 31) + c[c.index(b"compressed\n") + 15 :], "announced"),
        (lambda c: c[: c.index(b"compressed\n") + 15] + struct.pack("<I", 1 << 31) + c[c.index(b"compressed\n") + 19 :], "announced"),
        (lambda c: c[: c.index(b"compressed\n") + 19] + b"\xe0\xff\xff" + c[c.index(b"compressed\n") + 22 :], "damaged at byte|gives"),
        (lambda c: c[:-2] + b"\x1f\x00", "damaged at byte"),
        (lambda c: c[: c.index(b"compressed\n") + 13], "cut off"),
    ],
    "binvox": [
        (swap(b"dim 3 5 4", b"dim 3 5 5"), "voxels and 3x5x5"),
        (swap(b"dim 3 5 4", b"dim -3 -5 4"), "are no grid"),
        (swap(b"dim 3 5 4", b"dim 999999 999999 999999"), "999999x999999x999999"),
        (swap(b"dim 3 5 4", b"dim 3 5"), "dim, translate or scale"),
        (swap(b"scale 2.5", b"scale nan"), "are no grid"),
        (swap(b"scale 2.5", b"scale 0"), "are no grid"),
        (swap(b"data\n\x01", b"data\n\x07"), "neither 0 nor 1"),
        (swap(b"#binvox 1", b"#binvox 2"), "does not begin with a binvox header"),
        (lambda content: content[:-2], "voxels"),
    ],
    "voxel array": [
        (lambda content: make.gzip.compress(make.npy_bytes(np.full((1, 4, 4, 4), 0.5))), "neither 0 nor 1"),
        (lambda content: make.gzip.compress(make.npy_bytes(np.zeros((4, 4, 5)))), "must hold grids"),
        (lambda content: make.gzip.compress(make.npy_bytes(np.zeros((1, 4, 4, 5)))), "must hold grids"),
        (lambda content: make.gzip.compress(b"\x93NUMPY\x01\x00\xff\xff{"), "no .npy array"),
        (lambda content: make.gzip.compress(make.npy_bytes(np.zeros((1, 4, 4, 4)))[:-8]), "512 bytes, and 504 follow"),
    ],
    "velodyne": [
        (put(0, "<f", np.nan), "point 0 is NaN"),
        (put(16, "<f", np.inf), "point 1 is NaN or infinite"),
        (put(16, "<f", 1e9), "point 1 .* no position in metres"),
        (lambda content: np.frombuffer(content, "<f4").astype(">f4").tobytes(), "byte order"),
        (lambda content: content[:-4], "no whole number of points"),
    ],
    "semantickitti": [
        (put(0, "<I", 12), "point 0 is of class 12"),
        (lambda content: content[:-4], "3 labels and .* 4 points"),
        (lambda content: content * 2, "8 labels and .* 4 points"),
        (lambda content: np.frombuffer(content, "<u4").astype(">u4").tobytes(), "byte order is wrong|of class 512"),
    ],
    "shapenetpart": [
        (swap(b"6.000000", b"50.0"), "part of point 0"),
        (swap(b"6.000000", b"-1.0"), "part of point 0"),
        (swap(b"6.000000", b"6.5"), "no whole number"),
        (swap(b"6.000000", b"nan"), "point 0 is NaN"),
        (swap(b" 6.000000", b""), "6 columns where 7"),
        (swap(b"0.2", b"0,2"), "'0,2' is no number"),
    ],
    "shapenetpart split": [
        (lambda content: b'["shape_data/02954340/../../../etc/passwd"]', "entry 0"),
        (lambda content: b'["shape_data/02954340/.."]', "entry 0"),
        (lambda content: b'["shape_data/99999999/a"]', "entry 0"),
        (lambda content: b"[7]", "entry 0"),
        (lambda content: b"{}", "no list of shapes"),
        (lambda content: b"[" * 100_000, "no JSON"),
    ],
    "s3dis": [
        (swap(b"255", b"256"), "line 2: .* no colour"),
        (swap(b"255", b"-1"), "line 2: .* no colour"),
        (swap(b"255", b"2.5"), "line 2: .* no colour"),
        (swap(b"1.25", b"nan"), "point 1 is NaN"),
        (swap(b"1.25", b"1.2.5"), "line 2: '1.2.5' is no number"),
        (swap(b"1.25 ", b""), "line 2: 5 columns"),
    ],
    "scannet": [
        (swap(struct.pack("<H", 39), struct.pack("<H", 41)), "nyu40 label of vertex 1"),
        (swap(b"property ushort label", b"property ushort lavel"), "lacks label"),
        (lambda content: make.ply_bytes("ascii", make.VERTICES[:3], [], label=np.array([1, 2, 3], "<u2")), "3 labels .* 4 vertices"),
    ],
    "scannet split": [(lambda content: b"../../etc/passwd\n", "no list of scenes"), (lambda content: b"\n", "no list of scenes")],
    "modelnet resampled": [(swap(b"0.1,", b""), "5 columns"), (swap(b"0.1", b"inf"), "point 0 is NaN or infinite")],
    "modelnet shapes": [
        (swap(b"chair", b"../../chair"), "is of no known class"),
        (lambda content: b"chair_/../../x", "not a path inside|no known class"),
    ],
    "modelnet list": [(lambda content: b"data/x/..", "no .h5 file"), (lambda content: b" \n", "names no files")],
    "body parts": [
        (edit_json(arm=[0, 4]), "part 'arm', entry 1"),
        (edit_json(arm=[0, -1]), "part 'arm', entry 1"),
        (edit_json(arm=[0, 10**30]), "part 'arm', entry 1"),
        (edit_json(arm=[0, 1.5]), "no list of whole numbers"),
        (edit_json(arm=[0]), "vertex 1 belongs to no part"),
        (lambda content: b"[]", "no mapping"),
    ],
    "colmap cameras.bin": [
        (put(0, "<Q", HUGE), "cameras are announced"),
        (put(12, "<i", 99), "camera model is 'number 99'"),
        (put(12, "<i", -1), "camera model is 'number -1'"),
        (put(12, "<i", 17), "a panorama"),
        (put(16, "<Q", 0), "0x48 pixels"),
        (put(16, "<Q", HUGE), "are no camera"),
        (put(32, "<d", np.nan), "4 finite parameters"),
        (put(32, "<d", -5), "focal length"),
        (put(8, "<I", 3), "camera 1, which cameras.bin lacks"),
        (lambda content: content + b"x", "1 bytes follow its last record"),
        (put(0, "<Q", 1), "bytes follow its last record"),
    ],
    "colmap images.bin": [
        (put(0, "<Q", HUGE), "images are announced"),
        (put(12, "<d", np.nan), "image 1: rotation"),
        (put(12, "<d", 0), "image 1: rotation"),
        (put(44, "<d", np.inf), "image 1: rotation"),
        (put(68, "<I", 55), "camera 55"),
        (lambda c: c.replace(b"b.jpg\0", b"b.jpgx"), "no UTF-8|does not end|announced|takes|left|no pose"),
        (lambda c: c.replace(b"b.jpg", b"\xff.jpg"), "no UTF-8"),
        (put(78, "<Q", HUGE), "observations are announced"),
        (put(86, "<d", np.nan), "observation of 'b.jpg' 0 is NaN"),
        (put(102, "<q", 12), "observes point 12"),
        (put(102, "<q", -2), "observes point -2"),
        (lambda c: c.replace(b"sub/a.jpg", b"b.jpg\0\0\0\0"), "announced|takes|left|different"),
    ],
    "colmap points3D.bin": [
        (put(0, "<Q", HUGE), "points are announced"),
        (put(16, "<d", np.nan), "point 0 is NaN"),
        (put(51, "<Q", HUGE), "views of a point are announced"),
        (put(8, "<Q", 12), "observes point 11"),
    ],
    "colmap cameras.txt": [
        (swap(b"PINHOLE", b"PIHNOLE"), "line 2: its camera model is 'PIHNOLE'"),
        (swap(b"PINHOLE 64 48 50", b"PINHOLE 64 48"), "line 2: PINHOLE needs 4"),
        (swap(b"64 48", b"64 -48"), "line 2: 64x-48"),
        (swap(b"64 48 50", b"64 48 nan"), "line 2: PINHOLE needs 4 finite"),
        (swap(b"1 PINHOLE", b"one PINHOLE"), "line 2: "),
    ],
    "colmap images.txt": [
        (swap(b"1 1 0 0 0", b"1 0 0 0 0"), "line 2: rotation"),
        (swap(b"1 1 0 0 0", b"1 x 0 0 0"), "line 2: "),
        (swap(b" b.jpg", b""), "line 2: "),
        (swap(b"1.5 2.5 -1", b"1.5 2.5"), "line 3: "),
        (swap(b"2.5 -1", b"2.5 -1.5"), "line 3: "),
        (swap(b"30.5", b"nan"), "line 3: "),
        (swap(b"20.25 11", b"20.25 12"), "observes point 12"),
    ],
    "colmap points3D.txt": [
        (swap(b"1 2 3 0.5", b"1 2 300 0.5"), "line 1"),
        (swap(b"1 2 1", b"x 2 1"), "line 1"),
        (swap(b"0.5 1 0", b"0.5 1"), "line 1"),
        (swap(b"1 2 1", b"nan 2 1"), "point 0 is NaN"),
    ],
    "transforms": [
        (edit_json(frames=[]), "no list of frames"),
        (edit_json(frames={"a": 1}), "no list of frames"),
        (edit_json(w=-40), "the picture's size"),
        (edit_json(w=40.5), "the picture's size"),
        (edit_json(fl_x="wide"), "fl_x is 'wide'"),
        (edit_json(fl_x=0), "focal length"),
        (edit_json(fl_x=10**400), "fl_x is"),
        (edit_json(k1=float("nan")), "k1 is 'nan'"),
        (edit_json(camera_model="SPHERE"), "camera_model is 'SPHERE'"),
        (edit_json(train_filenames=["images/c.jpg"]), "images/c.jpg"),
        (edit_frame(file_path="../../etc/passwd"), "not a path inside"),
        (edit_frame(file_path="/etc/passwd"), "not a path inside"),
        (edit_frame(file_path="images/b.jpg"), "names a picture twice"),
        (edit_frame(file_path=None), "frame 1 has no file_path"),
        (edit_frame(transform_matrix=[[2.0, 0, 0, 0], *make.POSE[1:]]), "frame 1: .* no rigid motion"),
        (edit_frame(transform_matrix=[[-1.0, 0, 0, 0], *make.POSE[1:]]), "frame 1: .* no rigid motion"),
        (edit_frame(transform_matrix=[1, 2, 3]), "frame 1: .* no rigid motion"),
        (edit_frame(transform_matrix=None), "frame 1: .* no rigid motion"),
    ],
    "blender": [
        (edit_frame(file_path="../../etc/passwd"), "not a path inside"),
        (edit_frame(transform_matrix=[*make.POSE[:3], [0, 0, 0, 0]]), "not a rigid motion"),
        (edit_frame(time="late"), "not a Blender transforms file"),
        (edit_frame(time=float("nan")), "have a time"),
    ],
    "llff": [
        (llff(1, 0, np.nan), "row 1 is NaN"),
        (llff(1, 0, 0.5), "row 1 holds no rotation"),
        (llff(1, 4, 31), "must have one size"),
        (llff(1, 14, -35), "must be positive"),
        (llff(1, 15, 0), "near depths"),
        (llff(1, 16, 1), "near depths"),
        (lambda content: make.npy_bytes(make.llff_rows()[:, :15]), r"shape \(3, 15\)"),
        (lambda content: make.npy_bytes(make.llff_rows()[:0]), r"shape \(0, 17\)"),
        (lambda content: make.npy_bytes(make.llff_rows().astype(int)), "int64"),
        (swap(b"(3, 17)", b"(9, 17)"), "1,224 bytes, and 408 follow"),
        (swap(b"(3, 17)", b"(3,-17)"), "announces shape"),
        (swap(b"'<f8'", b"'|O' "), "pickled objects"),
    ],
    "middlebury": [
        (swap(b"2\n", b"3\n"), "announces 3 pictures"),
        (swap(b"2\n", b"-2\n"), "announces -2 pictures"),
        (swap(b"1520.4", b"nan"), "picture 0 is NaN"),
        (swap(b"1520.4", b"-1520.4"), "line 2: K or R"),
        (swap(b"1 1 0 0 0 1", b"1 2 0 0 0 1"), "line 2: K or R"),
        (swap(b"0.6\na", b"\na"), "line 2: 20 columns"),
        (swap(b"a0001.png", b"../a0001.png"), "not a path inside"),
    ],
    "shapenet csv": [
        (swap(b"train", b"trian"), "line 2"),
        (swap(b"aa", b"../../aa"), "no model of ShapeNet"),
        (swap(b",aa,train", b",bb,test\n9,02691156,02691156,bb,train"), "each must be in one split"),
        (swap(b"synsetId", b"sinsetId"), "line 2"),
    ],
    "shapenet json": [
        (swap(b"aa", b".."), "no model of ShapeNet"),
        (swap(b"aa", b"bb"), "each must be in one split"),
        (lambda content: b'{"ShapeNetV2": []}', "is not"),
    ],
    "objaverse": [
        (lambda content: make._gz({"u": "../../etc/passwd"}), "not a path inside"),
        (lambda content: make._gz({"u": 7}), "no mapping"),
        (lambda content: make._gz([1]), "no mapping"),
    ],
    "3d-front": [
        (piece(pos=[1, 2]), "room 0: the piece"),
        (piece(pos=None), "room 0"),
        (piece(rot=[0, 0, 0, 0]), "room 0: the piece"),
        (piece(scale=[1, 1, float("nan")]), "room 0: the piece"),
        (edit_json(scene={"room": []}), "has no rooms"),
        (edit_json(scene=None), "no house of 3D-FRONT"),
        (edit_json(mesh=[{"uid": "f", "type": "Floor", "xyz": [0, 1], "faces": []}]), "room 0: a floor"),
        (edit_json(mesh=[{"uid": "f", "type": "Floor", "xyz": [0, 0, 0], "faces": [0, 1, 2]}]), "face 0 holds"),
    ],
    "srn": [
        (swap(b"131.25", b"-131.25"), "are no camera"),
        (swap(b"131.25", b"nan"), "are no camera"),
        (swap(b"128 128", b"128 0"), "are no camera"),
        (swap(b"128 128", b"128"), "to end with"),
        (swap(b"131.25 64.", b"131.25"), "are no camera|to begin with|0."),
    ][:4],
    "srn pose": [
        (swap(b"1 0 0 0.5", b"2 0 0 0.5"), "no rigid motion"),
        (swap(b"0.5", b"nan"), "no rigid motion"),
        (swap(b"0 0 0 1\n", b"0 0 0 0\n"), "no rigid motion"),
        (swap(b"0.5 ", b""), "no 4x4 matrix"),
    ],
    "ava256": [
        (swap(b"400945", b"400944"), "twice"),
        (swap(b"7000", b"-7000"), "no calibration"),
        (edit_json(KRT={}), "no list KRT"),
        (edit_json(KRT=[{"cameraId": 1, "K": [[1]], "T": []}]), "camera 0 has no"),
        (edit_json(KRT=[7]), "camera 0 has no"),
    ],
    "ava256 frames": [(swap(b"12", b"x"), "no table"), (swap(b"12", b"-12"), "negative"), (swap(b"frame_id", b"frame"), "no table")],
}  # fmt: skip


@pytest.mark.parametrize(("name", "index"), [(name, i) for name, cases in SPECIFIC.items() for i in range(len(cases))])
def test_a_damage_of_its_own_is_explained(name: str, index: int, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    damage, message = SPECIFIC[name][index]
    path = sample.place(tmp_path, damage(sample.content))
    with pytest.raises(DataError, match=message) as error:
        read_within_limits(sample, path)
    assert str(tmp_path) in str(error.value)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    sample = SAMPLES["transforms"]
    path = sample.place(tmp_path / "scene")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"secret")
    os.symlink(tmp_path / "elsewhere", tmp_path / "scene" / "images")
    with pytest.raises(DataError, match=r"images/[ab]\.jpg.* is a link that leads out of"):
        sample.read(path)
    (tmp_path / "scene" / "images").unlink()
    (tmp_path / "scene" / "images").symlink_to("images")
    with pytest.raises(DataError, match=r"cannot be followed|is a link that leads out of"):
        sample.read(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A gzip stream of gigabytes within kilobytes: reading ends at what deflate can honestly hold."""
    import gzip
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    content = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    assert gzip.decompress(content[:0] or gzip.compress(b"x")) == b"x"
    sample = SAMPLES["voxel array"]
    with pytest.raises(DataError, match=r"no \.npy array"):
        sample.read(sample.place(tmp_path, content))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.binary])
def test_random_damage_never_crashes(name: str, seed: int, tmp_path: Path) -> None:
    sample, rng = SAMPLES[name], random.Random(f"{name} {seed}")
    for _ in range(5):
        path = sample.place(tmp_path, corrupt(sample.content, rng))
        with contextlib.suppress(DataError):
            assert read_within_limits(sample, path) is not None


def corrupt(content: bytes, rng: random.Random) -> bytes:
    """Flipped bits, cut and repeated pieces, and numbers that are often mistaken for sizes."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(damaged) + 1)
        kind = rng.randrange(5)
        if kind == 0 and place < len(damaged):
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del damaged[place : place + rng.randint(1, 16)]
        elif kind == 2:
            damaged[place:place] = damaged[max(0, place - rng.randint(1, 32)) : place]
        elif kind == 3:
            value = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
            size = rng.choice([1, 2, 4, 8])
            damaged[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
        else:
            damaged[place:] = b""
    return bytes(damaged)
