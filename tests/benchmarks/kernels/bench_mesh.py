"""Mesh geometry beside potpourri3d (C++ of geometry-central) and robust-laplacian; edge collapse has no peer."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import numpy as np
import torch
import trimesh
from measure import Kernel, Run, installed

from adlbench.methods.nn.mesh_edges import EdgeMesh, pool_edges
from adlbench.methods.nn.mesh_geometry import HeatGeodesics, PolarPatches, TriangleMesh

SUBDIVISIONS = {642: 3, 2_562: 4, 10_242: 5}
SIZES = tuple(SUBDIVISIONS)


def sphere(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A bumpy one: a regular sphere would make all patches and factorisations alike."""
    mesh = trimesh.creation.icosphere(SUBDIVISIONS[size])
    vertices = np.asarray(mesh.vertices)
    return vertices * (1 + 0.2 * np.sin(5 * vertices[:, :1])), np.asarray(mesh.faces, dtype=np.int64)


def laplacian(size: int) -> Mapping[str, Run]:
    vertices, faces = sphere(size)
    runs: dict[str, Run] = {
        "own": lambda: (TriangleMesh(vertices, faces).laplacian, TriangleMesh(vertices, faces).mass)
    }
    if installed("potpourri3d"):
        peer = importlib.import_module("potpourri3d")
        runs["potpourri3d"] = lambda: (peer.cotan_laplacian(vertices, faces), peer.vertex_areas(vertices, faces))
    if installed("robust_laplacian"):
        robust = importlib.import_module("robust_laplacian")
        runs["robust-laplacian"] = lambda: robust.mesh_laplacian(vertices, faces)
    return runs


def geodesics(size: int) -> Mapping[str, Run]:
    """Ten sources: the factorisation counts, as it does in use."""
    vertices, faces = sphere(size)

    def own() -> object:
        heat = HeatGeodesics(TriangleMesh(vertices, faces))
        return [heat.distance(source) for source in range(10)]

    runs: dict[str, Run] = {"own": own}
    if installed("potpourri3d"):
        solver = importlib.import_module("potpourri3d").MeshHeatMethodDistanceSolver

        def theirs() -> object:
            heat = solver(vertices, faces, use_robust=False)
            return [heat.compute_distance(source) for source in range(10)]

        runs["potpourri3d"] = theirs
    return runs


def patches(size: int) -> Mapping[str, Run]:
    vertices, faces = sphere(size)
    patch = PolarPatches(TriangleMesh(vertices, faces))
    return {"own": lambda: [patch.patch(centre, 0.3) for centre in range(0, size, size // 20)]}


def collapse(size: int) -> Mapping[str, Run]:
    mesh = EdgeMesh.from_faces(sphere(size)[1])
    features = torch.randn(len(mesh.ends), 32, generator=torch.Generator().manual_seed(0))
    return {"own": lambda: pool_edges(features, mesh, len(mesh.ends) // 2)}


KERNELS = [
    Kernel(
        "cotangent Laplacian and areas", SIZES, "vertices", laplacian, {"potpourri3d": 1.0, "robust-laplacian": 1.0}
    ),
    Kernel("heat geodesics, 10 sources, factorisation included", SIZES, "vertices", geodesics, {"potpourri3d": 1.0}),
    Kernel("geodesic polar patches, 20 of radius 0.3", SIZES, "vertices", patches),
    Kernel("edge collapse to half, 32 channels", SIZES, "vertices", collapse),
]
