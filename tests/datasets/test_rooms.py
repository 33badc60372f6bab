"""Generated rooms: where things stand, and that points, pictures, boxes, sentences and 3D-FRONT files agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from adlbench.datasets.captioning.room_captions import RoomCaptions
from adlbench.datasets.detection.room_objects import RoomObjects
from adlbench.datasets.generated.front import MESH_TYPES, write_front
from adlbench.datasets.generated.rooms import FURNITURE, HEIGHT, KINDS, LABELS, STRUCTURE, make_room
from adlbench.datasets.layouts.room_layouts import RoomLayouts
from adlbench.datasets.segmentation.rooms import Rooms, RoomViews

ROOMS = [make_room("train", number) for number in range(8)]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def test_furniture_stands_on_the_floor_apart_from_each_other() -> None:
    for room in ROOMS:
        assert room.pieces
        assert {piece.name for piece in room.pieces} <= {name for name, *_ in KINDS[room.kind]}
        prints = [piece.footprint for piece in room.pieces]
        for number, (low, high) in enumerate(prints):
            assert (np.abs([low, high]) <= np.array([room.width, room.depth]) / 2).all()
            for other_low, other_high in prints[:number]:
                assert ((low >= other_high) | (high <= other_low)).any()
        for number, piece in enumerate(room.pieces, start=len(room.panels)):
            faces = room.model.faces[room.model.instance == number]
            vertices = room.model.vertices[faces.ravel()]
            low, high = piece.footprint
            np.testing.assert_allclose(vertices.min(0), [low[0], 0, low[1]], atol=1e-9)
            np.testing.assert_allclose(vertices.max(0), [high[0], piece.size[1], high[1]], atol=1e-9)
    assert len({room.kind for room in ROOMS}) > 1


def test_walls_close_the_room_and_face_inwards() -> None:
    for room in ROOMS:
        for panel in room.panels:
            middle = panel.corner + (panel.side + panel.other) / 2
            assert panel.normal @ (np.array([0, HEIGHT / 2, 0]) - middle) > 0
        plain = [panel for panel in room.panels if panel.name in ("floor", "ceiling", "wall")]
        volume = sum(panel.area * abs(panel.normal @ panel.corner) for panel in plain) / 3  # pyramids to the origin
        assert volume == pytest.approx(room.width * room.depth * HEIGHT)
        assert sum(panel.name == "door" for panel in room.panels) == 1


def test_rooms_depend_on_their_number_and_nothing_else() -> None:
    again, other = make_room("train", 3), make_room("test", 3)
    np.testing.assert_array_equal(ROOMS[3].model.vertices, again.model.vertices)
    assert (again.width, again.depth) != (other.width, other.depth)


def test_points_pictures_and_labels_agree() -> None:
    """Points that a view sees lie at its depth, and have the label, the instance and the colour of their pixel."""
    dataset = RoomViews(num_train=3, num_test=1, num_points=6000)
    schema, items = dataset.schema(), dataset.load("all", "train").all()
    assert set(items) == set(schema.fields)
    assert items["image"].shape == (3, 3, 64, 80, 3)
    matched, labels, instances, colours = 0, [], [], []
    for room in range(3):
        points = items["points"][room].double().numpy()
        for view in range(3):
            camera = items["world_to_camera"][room, view].double().numpy()
            rotation = camera[:3, :3]
            np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
            local = points @ rotation.T + camera[:3, 3]
            pixel = local @ items["intrinsics"][room, view].double().numpy().T
            with np.errstate(divide="ignore", invalid="ignore"):
                column, row = np.floor(pixel[:, :2] / pixel[:, 2:]).T
            inside = (local[:, 2] > 0.1) & (column >= 0) & (column < 80) & (row >= 0) & (row < 64)
            column, row = column[inside].astype(int), row[inside].astype(int)
            depth = items["depth"][room, view].numpy()[row, column]
            assert depth.max() < schema.far
            # nothing is before the first surface, but for points of thin things beside their pixel's centre
            assert (local[inside, 2] - depth < -0.3).mean() < 0.06
            seen = np.abs(local[inside, 2] - depth) < 0.006  # doors and windows lie 1 cm before the wall
            matched += seen.sum()
            labels.append(
                (items["mask"][room, view].numpy()[row, column] == items["point_label"][room][inside].numpy())[seen]
            )
            number = items["instance"][room, view].numpy()[row, column] - 1
            instances.append((number == items["point_instance"][room][inside].numpy())[seen])
            image = items["image"][room, view].numpy()[row, column] / 255
            colours.append(np.abs(image - items["colours"][room][inside].numpy()).max(1)[seen])
    assert matched > 1000
    assert np.concatenate(labels).mean() > 0.9
    assert np.concatenate(instances).mean() > 0.9
    assert np.median(np.concatenate(colours)) < 0.03


def test_room_points_fit_their_schema() -> None:
    dataset = Rooms(num_train=3, num_test=2, num_points=500)
    schema = dataset.schema()
    for split, count in (("train", 3), ("test", 2)):
        items = dataset.load("all", split).all()
        assert items["points"].shape == items["colours"].shape == (count, 500, 3)
        assert int(items["point_label"].max()) < len(schema.parts) == len(LABELS)
        assert 0 <= float(items["colours"].min()) <= float(items["colours"].max()) <= 1
        assert {LABELS.index(name) for name in ("floor", "wall", "ceiling")} <= set(items["point_label"][0].tolist())
        np.testing.assert_allclose(items["normals"].norm(dim=-1), 1, atol=1e-5)


def test_boxes_are_tight_around_what_is_seen_and_sentences_are_true() -> None:
    size = {"num_train": 3, "num_test": 1}
    dataset = RoomObjects(**size)
    schema, items = dataset.schema(), dataset.load("all", "train").all()
    assert set(items) == set(schema.fields)
    assert items["image"].shape == (schema.num_train, 3, 64, 80)
    captions = RoomCaptions(**size).load("all", "train").all()
    assert (captions["image"] == items["image"]).all()
    boxes = 0
    for row in range(len(items["image"])):
        number, mask = items["instance"][row].numpy(), items["mask"][row].numpy()
        names, around = [], []
        for value in np.unique(number[number > 0]):
            rows, columns = np.nonzero(number == value)
            extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            around.append((extent, int(mask[rows[0], columns[0]])))
        for box, label in zip(items["boxes"][row].numpy(), items["box_label"][row].tolist()):
            if label < 0:
                assert (box == 0).all()
                continue
            left, top, right, bottom = box.astype(int)
            assert ((left, top, right, bottom), label) in around
            names.append(FURNITURE[label].replace("_", " "))
            boxes += 1
        first, largest, beside = (bytes(text.tolist()).rstrip(b"\0").decode() for text in captions["captions"][row])
        if names:
            assert names[0] in largest
            assert names[0] in first or f"{names[0][:-1]}" in first
        if " is left of a " in beside:
            left_name, right_name = beside.removeprefix("a ").split(" is left of a ")
            assert {left_name, right_name} <= set(names)
    assert boxes > 5


def test_layouts_say_where_the_pieces_stand() -> None:
    dataset = RoomLayouts(num_train=4, num_test=2, max_pieces=16)
    items = dataset.load("all", "train").all()
    for row in range(4):
        room = make_room("train", row)
        labels = items["furniture_label"][row]
        assert (labels >= 0).sum() == len(room.pieces)
        for piece, box, label in zip(room.pieces, items["furniture"][row].numpy(), labels.tolist()):
            assert FURNITURE[label] == piece.name
            np.testing.assert_allclose(
                box, [*piece.position[[0]], piece.size[1] / 2, piece.position[2], *piece.size, piece.yaw], rtol=1e-5
            )


def test_3d_front_files_rebuild_the_room(tmp_path: Path) -> None:
    """Models placed as their transforms say give the vertices of the room, to what the text of an OBJ keeps."""
    room = ROOMS[1]
    write_front(tmp_path, {"room": room})
    (path,) = (tmp_path / "3D-FRONT").iterdir()
    scene = json.loads(path.read_text())
    assert path.stem == scene["uid"]
    children = {child["ref"]: child for child in scene["scene"]["room"][0]["children"]}
    assert len(children) == len(room.panels) + len(room.pieces)
    information = json.loads((tmp_path / "3D-FUTURE-model" / "model_info.json").read_text())
    assert [entry["super-category"] for entry in information] == [piece.name for piece in room.pieces]
    for number, entry in enumerate(scene["furniture"], start=len(room.panels)):
        path = tmp_path / "3D-FUTURE-model" / entry["jid"] / "raw_model.obj"
        model = trimesh.load(path, process=False, force="mesh")
        child = children[entry["uid"]]
        x, y, z, w = child["rot"]
        turn = trimesh.transformations.quaternion_matrix([w, x, y, z])[:3, :3]
        placed = (np.asarray(model.triangles).reshape(-1, 3) * child["scale"]) @ turn.T + child["pos"]
        own = room.model.vertices[room.model.faces[room.model.instance == number]].reshape(-1, 3)
        np.testing.assert_allclose(np.sort(placed, 0), np.sort(own, 0), atol=2e-6)
    floor = next(mesh for mesh in scene["mesh"] if mesh["type"] == "Floor")
    corners = np.reshape(floor["xyz"], (-1, 3))
    np.testing.assert_allclose(corners.max(0) - corners.min(0), [room.width, 0, room.depth])
    assert set(MESH_TYPES) == set(STRUCTURE)
