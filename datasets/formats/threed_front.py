"""3D-FRONT (Fu et al. 2021): furnished rooms as json, whose furniture are models of 3D-FUTURE.

Metres, y up. A piece stands at ``R (scale * X) + position`` for the model's own vertices X; rotations are quaternions (x, y, z, w).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, inside, read_json
from adlbench.datasets.formats.meshes import Mesh, checked
from adlbench.datasets.formats.obj import read_obj


class Piece(NamedTuple):
    model: str  # of 3D-FUTURE ("jid")
    category: str  # as the scene has it, perhaps empty; 3D-FUTURE's model_info.json has the official one
    size: np.ndarray  # float64 [3], the model's extent before scaling; zeros where the scene does not tell
    position: np.ndarray  # float64 [3]
    rotation: np.ndarray  # float64 [3, 3]
    scale: np.ndarray  # float64 [3]

    @property
    def angle(self) -> float:
        """About the y axis, in (-pi, pi]."""
        return float(np.arctan2(self.rotation[0, 2], self.rotation[0, 0]))


class Room(NamedTuple):
    name: str  # instanceid
    kind: str  # such as MasterBedroom
    pieces: tuple[Piece, ...]
    floor: Mesh | None  # of all meshes of type Floor in the room


def read_house(path: Path) -> tuple[Room, ...]:
    """The rooms of one house, in the order of the file; pieces that 3D-FRONT marks as not valid are left out."""
    content = read_json(path)
    try:
        furniture = {entry["uid"]: entry for entry in content["furniture"] if entry.get("valid", True)}
        meshes = {entry["uid"]: entry for entry in content.get("mesh", []) if entry.get("type") == "Floor"}
        rooms = content["scene"]["room"]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no house of 3D-FRONT ({type(error).__name__}: {error}); {AGAIN}") from None
    found = []
    for number, room in enumerate(rooms if isinstance(rooms, list) else []):
        where = f"{path}, room {number}"
        try:
            children = [(child["ref"], child) for child in room["children"]]
            pieces = tuple(_piece(furniture[ref], child, where) for ref, child in children if ref in furniture)
            floors = [_floor(meshes[ref], path, where) for ref, _ in children if ref in meshes]
            found.append(Room(str(room["instanceid"]), str(room["type"]), pieces, _joined(floors)))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{where} is no room of 3D-FRONT ({type(error).__name__}: {error}); {AGAIN}") from None
    if not found:
        raise DataError(f"{path} has no rooms; {AGAIN}")
    return tuple(found)


def _piece(entry: dict[str, Any], child: dict[str, Any], where: str) -> Piece:
    position, scale = np.array(child["pos"], dtype=np.float64), np.array(child["scale"], dtype=np.float64)
    quaternion = np.array(child["rot"], dtype=np.float64)
    size = np.array(entry.get("size") or [0, 0, 0], dtype=np.float64)
    shapes = [values.shape for values in (position, scale, size, quaternion)]
    finite = all((np.abs(values) < 1e9).all() for values in (position, scale, size, quaternion))
    norm = np.linalg.norm(quaternion) if finite else 0.0
    if shapes != [(3,), (3,), (3,), (4,)] or not finite or not 0.5 < norm < 2 or (size < 0).any():
        raise DataError(f"{where}: the piece {str(entry.get('uid'))[:60]} has no place, scale or size; {AGAIN}")
    x, y, z, w = quaternion / norm
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return Piece(str(entry["jid"]), str(entry.get("category") or ""), size, position, rotation, scale)


def _floor(entry: dict[str, Any], path: Path, where: str) -> Mesh:
    vertices, faces = np.array(entry["xyz"], dtype=np.float64), np.array(entry["faces"], dtype=np.int64)
    if vertices.size % 3 or faces.size % 3:
        raise DataError(
            f"{where}: a floor has {vertices.size} coordinates and {faces.size} corners, not triples; {AGAIN}"
        )
    return checked(vertices, faces, path)


def _joined(meshes: list[Mesh]) -> Mesh | None:
    if not meshes:
        return None
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + offset for mesh, offset in zip(meshes, offsets)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def read_categories(path: Path) -> dict[str, tuple[str, str]]:
    """3D-FUTURE's ``model_info.json``: model -> (category, super-category), lower case, "unknown" where there is none."""
    content = read_json(path)
    try:
        return {
            str(entry["model_id"]): (_plain(entry.get("category")), _plain(entry.get("super-category")))
            for entry in content
        }
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is no list of models with model_id and category; {AGAIN}") from None


def _plain(name: str | None) -> str:
    return name.lower().replace(" / ", "/") if name else "unknown"


def read_model(root: Path, model: str, source: Path) -> Mesh:
    """``<root>/<model>/raw_model.obj`` of 3D-FUTURE."""
    return read_obj(inside(root, f"{model}/raw_model.obj", source))
