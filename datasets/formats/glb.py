"""glb, binary glTF 2.0, through trimesh: the geometry of the whole scene in world coordinates (metres, y up)."""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, read_bytes
from adlbench.datasets.formats.meshes import Mesh, checked


def read_glb(path: Path) -> Mesh:
    """All triangles of the default scene, placed by its nodes. Nothing but the file itself is read: no textures beside it."""
    import trimesh

    content = read_bytes(path)
    if len(content) < 12 or content[:4] != b"glTF":
        raise DataError(f"{path} does not begin with 'glTF'; it is cut off or no glb: {AGAIN}")
    version, length = struct.unpack("<II", content[4:12])
    if version != 2 or length != len(content):
        raise DataError(f"{path} is of version {version} and announces {length:,} bytes of {len(content):,}; {AGAIN}")
    quiet = logging.getLogger("trimesh")
    disabled, quiet.disabled = quiet.disabled, True  # it logs what is raised below
    try:
        loaded = trimesh.load_scene(io.BytesIO(content), file_type="glb", process=False, skip_materials=True)
        mesh = loaded.to_mesh()
        vertices, faces = mesh.vertices, mesh.faces
    except Exception as error:  # trimesh lets through whatever numpy and json raise on damaged bytes
        raise DataError(f"{path} is a damaged glb ({type(error).__name__}: {str(error)[:120]}); {AGAIN}") from None
    finally:
        quiet.disabled = disabled
    return checked(vertices, faces, path)
