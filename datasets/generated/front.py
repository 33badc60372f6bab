"""Generated rooms written as 3D-FRONT lays out its scenes, with their furniture as 3D-FUTURE lays out its models.

H. Fu et al., 3D-FRONT: 3D Furnished Rooms with layOuts and semaNTics, ICCV 2021; 3D-FUTURE, IJCV 2021. Below a folder:
``3D-FRONT/<uid>.json`` for each room, ``3D-FUTURE-model/<jid>/raw_model.obj`` for each piece and
``3D-FUTURE-model/model_info.json``. Both use metres and y up; a piece's front is +z; ``rot`` is a quaternion (x, y, z, w);
a child's transform is scale, then ``rot``, then ``pos``.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from adlbench.datasets.generated.rooms import Panel, Piece, Room

MESH_TYPES = {"floor": "Floor", "wall": "WallInner", "ceiling": "Ceiling", "door": "Door", "window": "Window"}
ROOM_TYPES = {"bedroom": "Bedroom", "living_room": "LivingRoom", "study": "Study", "bathroom": "Bathroom"}


def write_front(folder: Path, rooms: dict[str, Room]) -> None:
    """Scenes and models of ``rooms``, by name. Files that are there are written over."""
    (folder / "3D-FRONT").mkdir(parents=True, exist_ok=True)
    models = folder / "3D-FUTURE-model"
    information = []
    for name, room in rooms.items():
        scene = front_scene(name, room)
        (folder / "3D-FRONT" / f"{scene['uid']}.json").write_text(json.dumps(scene), encoding="utf-8")
        for entry, piece in zip(scene["furniture"], room.pieces):
            (models / entry["jid"]).mkdir(parents=True, exist_ok=True)
            (models / entry["jid"] / "raw_model.obj").write_text(_obj(piece), encoding="utf-8")
            information.append({"model_id": entry["jid"], "super-category": piece.name, "category": entry["category"]})
    (models / "model_info.json").write_text(json.dumps(information), encoding="utf-8")


def front_scene(name: str, room: Room) -> dict[str, Any]:
    """The json of a house of one room."""
    furniture, children, meshes = [], [], []
    for number, panel in enumerate(room.panels):
        meshes.append(_mesh(_id(name, "mesh", number), panel))
        children.append(_child(meshes[-1]["uid"], f"mesh/{number}"))
    for number, piece in enumerate(room.pieces):
        reference = f"{number}/model"
        furniture.append(
            {
                "uid": reference,
                "jid": _id(name, "model", number),
                "title": f"{piece.name}/{piece.name}",
                "category": piece.name.replace("_", " ").title(),
                "size": piece.size.tolist(),
                "bbox": piece.size.tolist(),
                "valid": True,
            }
        )
        turn = [0.0, float(np.sin(piece.yaw / 2)), 0.0, float(np.cos(piece.yaw / 2))]
        children.append(_child(reference, f"furniture/{number}", piece.position.tolist(), turn))
    kind = ROOM_TYPES[room.kind]
    whole = {
        "type": kind,
        "instanceid": f"{kind}-0",
        "size": room.width * room.depth,
        "empty": 0,
        **_transform([0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]),
        "children": children,
    }
    return {
        "uid": _id(name, "scene", 0),
        "jobid": name,
        "design_version": "generated",
        "code_version": "0.12",
        "north_vector": [0, 0, 1],
        "furniture": furniture,
        "mesh": meshes,
        "material": [],
        "lights": [],
        "extension": {"door": [], "area": [], "snapshots": [], "skybox": {}},
        "scene": {"ref": "scene", **_transform([0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]), "room": [whole]},
        "groups": [],
        "materialList": [],
        "version": "1.0",
    }


def _id(*parts: object) -> str:
    """The same for the same room, as everything generated is."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))))


def _transform(position: list[float], rotation: list[float]) -> dict[str, list[float]]:
    return {"pos": position, "rot": rotation, "scale": [1.0, 1.0, 1.0]}


def _child(
    reference: str, instance: str, position: list[float] | None = None, rotation: list[float] | None = None
) -> dict[str, Any]:
    transform = _transform(position or [0.0, 0.0, 0.0], rotation or [0.0, 0.0, 0.0, 1.0])
    return {"ref": reference, "instanceid": instance, **transform}


def _mesh(uid: str, panel: Panel) -> dict[str, Any]:
    corners = np.stack([panel.corner, panel.corner + panel.side, panel.corner + panel.side + panel.other])
    corners = np.concatenate([corners, [panel.corner + panel.other]])
    return {
        "uid": uid,
        "jid": "",
        "xyz": corners.ravel().tolist(),
        "normal": np.tile(panel.normal, 4).tolist(),
        "uv": [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0],
        "faces": [0, 1, 2, 0, 2, 3],
        "material": "",
        "type": MESH_TYPES[panel.name],
    }


def _obj(piece: Piece) -> str:
    vertices, faces, _ = piece.shape.mesh()
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in faces + 1]
    return "\n".join(lines) + "\n"
