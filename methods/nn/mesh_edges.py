"""Edges of triangle meshes: MeshCNN's features, convolution and pooling by edge collapse.

R. Hanocka, A. Hertz, N. Fish, R. Giryes, S. Fleishman and D. Cohen-Or, MeshCNN: A Network with an Edge, SIGGRAPH 2019.

An edge has four neighbours: a, b in one of its faces and c, d in the other, in the order of the faces. Which face comes
first is arbitrary, so that a convolution sees (e, |a - c|, a + c, |b - d|, b + d), which does not depend on it. At a border
the neighbours that are missing read zero. Vertices, edges and faces are numbered in 64 bits.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.mesh_geometry import TriangleMesh

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class EdgeMesh:
    """The edges of a mesh in which each is in at most two faces."""

    ends: Integers  # [E, 2], the smaller vertex first
    face_edges: Integers  # [F, 3]: the edges (v0, v1), (v1, v2), (v2, v0) of each face
    neighbours: Integers  # [E, 4]: a, b, c, d; -1 beyond a border

    @staticmethod
    def from_faces(faces: Integers) -> EdgeMesh:
        """``faces`` int64 [F, 3]. Raises DataError for edges in more than two faces, and faces without three vertices."""
        if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
            raise DataError(f"faces of shape {faces.shape}; [F, 3] with at least one face is wanted")
        if faces.min() < 0 or (faces == np.roll(faces, 1, 1)).any():
            raise DataError("a face names a vertex twice, or one below 0; remove it")
        pairs = np.sort(np.stack([faces, np.roll(faces, -1, 1)], axis=-1).reshape(-1, 2), axis=1)
        ends, edge = np.unique(pairs, axis=0, return_inverse=True)
        edge = edge.reshape(-1)
        counts = np.bincount(edge)
        if counts.max() > 2:
            worst = ends[counts.argmax()].tolist()
            raise DataError(f"edge {worst} is in {counts.max()} faces; at most two are possible: repair the mesh")
        face_edges = edge.reshape(-1, 3)
        neighbours = np.full((len(ends), 4), -1)
        order = np.argsort(edge, kind="stable")
        second = np.concatenate([[False], edge[order][1:] == edge[order][:-1]])
        face, corner = order // 3, order % 3
        for step in (1, 2):
            neighbours[edge[order], 2 * second + step - 1] = face_edges[face, (corner + step) % 3]
        return EdgeMesh(ends, face_edges, neighbours)


def edge_features(vertices: NDArray[np.float64], faces: Integers) -> NDArray[np.float64]:
    """[E, 5]: dihedral angle in [0, pi] (pi is flat), both opposite angles, smaller first, and both ratios of height to edge.

    They do not change when the mesh is moved, turned or scaled. At a border the angles and ratios of the one face count
    twice and the dihedral angle is pi. Networks normalise them by the mean and deviation of the training set. Faces are
    oriented alike. Raises DataError as ``TriangleMesh`` and ``EdgeMesh`` do: for faces without area, say.
    """
    TriangleMesh(vertices, faces)
    mesh = EdgeMesh.from_faces(faces)
    edge = mesh.face_edges.ravel()
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    start, end = corners.reshape(-1, 3), np.roll(corners, -1, 1).reshape(-1, 3)
    apex = np.roll(corners, -2, 1).reshape(-1, 3)
    u, v = start - apex, end - apex
    double_area = np.linalg.norm(np.cross(u, v), axis=1)
    angle = np.arctan2(double_area, (u * v).sum(1))
    ratio = double_area / ((end - start) ** 2).sum(1)
    order = np.argsort(edge, kind="stable")
    last = np.concatenate([edge[order][1:] != edge[order][:-1], [True]])
    first = np.concatenate([[True], edge[order][1:] != edge[order][:-1]])
    one, two = order[first], order[last]  # the half edges of each edge, the same at a border
    cosine = (normal[one // 3] * normal[two // 3]).sum(1).clip(-1, 1)
    pairs = [np.sort(np.stack([values[one], values[two]], 1), axis=1) for values in (angle, ratio)]
    return np.concatenate([(np.pi - np.arccos(cosine))[:, None], *pairs], axis=1)


class MeshConv(nn.Module):
    """[E, inputs] to [E, outputs] for ``neighbours`` int64 [E, 4], -1 where there is none. Under autocast in its type."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(5 * inputs, outputs)

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        if neighbours.shape != (len(features), 4):
            raise DataError(
                f"neighbours of shape {tuple(neighbours.shape)} for {len(features)} edges; [E, 4] is wanted"
            )
        padded = torch.cat([features, features.new_zeros(1, features.shape[1])])  # index -1 reads the last row
        around = padded.index_select(0, (neighbours % len(padded)).flatten())
        a, b, c, d = around.view(len(features), 4, features.shape[1]).unbind(1)
        return self.linear(torch.cat([features, (a - c).abs(), a + c, (b - d).abs(), b + d], dim=1))


# --------------------------------------------------------------------------------------------------------------- pooling
@dataclass(frozen=True)
class Pooled:
    """A mesh after collapses."""

    mesh: EdgeMesh
    features: Tensor  # [E', C]: means over the edges that each came from
    origin: Tensor  # int64 [E]: for each edge before the new one that its feature went to, to unpool with


def pool_edges(features: Tensor, mesh: EdgeMesh, target: int) -> Pooled:
    """Collapses edges, those with the smallest squared feature norm first, until at most ``target`` are left.

    A collapse takes three edges away: the edge itself, and in each of its two faces the remaining two become one, whose
    feature is the mean of all that went into both of them and into the collapsed edge. An edge at a border, or one whose
    collapse would leave no manifold (its ends have more than two neighbours in common), is kept, so that more than
    ``target`` may be left. Gradients flow to all edges, through the means. Means are found in at least float32, and have the
    type of the features.
    """
    if target < 1:
        raise DataError(f"pooling to {target} edges; at least one must be left")
    if len(features) != len(mesh.ends):
        raise DataError(f"features of {len(features)} edges for a mesh of {len(mesh.ends)}")
    collapse = _Collapse(mesh)
    strength = features.detach().float().square().sum(1).tolist()
    queue = [(value, edge) for edge, value in enumerate(strength)]
    heapq.heapify(queue)
    while queue and collapse.count > target:
        edge = heapq.heappop(queue)[1]
        if collapse.alive[edge]:
            collapse.try_edge(edge)
    kept = np.flatnonzero(collapse.alive)
    place = np.full(len(mesh.ends), -1)
    place[kept] = np.arange(len(kept))
    member = np.array([(edge, place[home]) for home in kept for edge in collapse.members[home]]).reshape(-1, 2)
    rows, homes = (torch.from_numpy(column).to(features.device) for column in member.T.copy())
    members = features.index_select(0, rows).to(torch.promote_types(features.dtype, torch.float32))
    sums = members.new_zeros(len(kept), features.shape[1]).index_add(0, homes, members)
    means = (sums / torch.bincount(homes, minlength=len(kept))[:, None]).to(features.dtype)
    origin = torch.from_numpy(place[[collapse.home(edge) for edge in range(len(mesh.ends))]]).to(features.device)
    return Pooled(collapse.mesh(place), means, origin)


class _Collapse:
    """A mesh that edges are taken from: per vertex its edges, per edge its ends and faces, per face its edges."""

    def __init__(self, mesh: EdgeMesh):
        self.ends = [set(pair) for pair in mesh.ends.tolist()]
        self.face_edges: list[list[int]] = mesh.face_edges.tolist()
        self.faces_of: list[set[int]] = [set() for _ in self.ends]
        self.edges_of: dict[int, set[int]] = {}
        for edge, pair in enumerate(self.ends):
            for vertex in pair:
                self.edges_of.setdefault(vertex, set()).add(edge)
        for face, edges in enumerate(self.face_edges):
            for edge in edges:
                self.faces_of[edge].add(face)
        self.alive = [True] * len(self.ends)
        self.face_alive = [True] * len(self.face_edges)
        self.members: list[list[int]] = [[edge] for edge in range(len(self.ends))]
        self.went_to: dict[int, int] = {}
        self.count = len(self.ends)

    def home(self, edge: int) -> int:
        """The living edge that ``edge`` went into, in the end."""
        while edge in self.went_to:
            edge = self.went_to[edge]
        return edge

    def try_edge(self, edge: int) -> bool:
        faces = sorted(self.faces_of[edge])
        if len(faces) != 2:
            return False
        kept, lost = sorted(self.ends[edge])
        if len(self._around(kept) & self._around(lost)) != 2 or (self._at_border(kept) and self._at_border(lost)):
            return False
        sides = [[other for other in self.face_edges[face] if other != edge] for face in faces]
        if any(len(self.faces_of[a] | self.faces_of[b]) < 2 for a, b in sides) or set(sides[0]) & set(sides[1]):
            return False
        for face, (one, other) in zip(faces, sides, strict=True):
            stays, goes = (one, other) if kept in self.ends[one] else (other, one)
            self.face_alive[face] = False
            for each in (one, other, edge):
                self.faces_of[each].discard(face)
            for beyond in self.faces_of[goes]:
                self.face_edges[beyond] = [stays if each == goes else each for each in self.face_edges[beyond]]
            self.faces_of[stays] |= self.faces_of[goes]
            self.members[stays] += self.members[goes] + self.members[edge]
            self._remove(goes, stays)
        self._remove(edge, stays)
        for each in list(self.edges_of.pop(lost)):
            self.ends[each] = (self.ends[each] - {lost}) | {kept}
            self.edges_of[kept].add(each)
        return True

    def _around(self, vertex: int) -> set[int]:
        return set().union(*(self.ends[edge] for edge in self.edges_of[vertex])) - {vertex}

    def _at_border(self, vertex: int) -> bool:
        return any(len(self.faces_of[edge]) < 2 for edge in self.edges_of[vertex])

    def _remove(self, edge: int, into: int) -> None:
        self.alive[edge] = False
        self.went_to[edge] = into
        self.count -= 1
        for vertex in self.ends[edge]:
            self.edges_of[vertex].discard(edge)

    def mesh(self, place: Integers) -> EdgeMesh:
        """What is left, with the edges renumbered by ``place``."""
        ends = np.array([sorted(pair) for pair, alive in zip(self.ends, self.alive, strict=True) if alive])
        faces = [edges for edges, alive in zip(self.face_edges, self.face_alive, strict=True) if alive]
        face_edges = place[np.array(faces, dtype=np.int64).reshape(-1, 3)]
        neighbours = np.full((len(ends), 4), -1)
        filled = [0] * len(ends)
        for edges in face_edges.tolist():
            for corner, edge in enumerate(edges):
                neighbours[edge, filled[edge]] = edges[(corner + 1) % 3]
                neighbours[edge, filled[edge] + 1] = edges[(corner + 2) % 3]
                filled[edge] += 2
        return EdgeMesh(ends, face_edges, neighbours)


def unpool_edges(features: Tensor, levels: Sequence[Pooled]) -> Tensor:
    """Features [E', C] of the last of ``levels`` back on the edges before the first: each gets those of where it went."""
    for level in reversed(levels):
        features = features.index_select(0, level.origin)
    return features
