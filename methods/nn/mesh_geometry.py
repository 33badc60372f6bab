"""Geometry of triangle meshes: the cotangent Laplacian, its spectrum, geodesic distances and polar patches.

- U. Pinkall and K. Polthier, Computing Discrete Minimal Surfaces and Their Conjugates, 1993: the cotangent weights.
- K. Crane, C. Weischedel and M. Wardetzky, Geodesics in Heat, 2013: distances from two sparse solves.
- E. L. Melvær and M. Reimers, Geodesic Polar Coordinates on Polygonal Meshes, 2012: the polar patches that the geodesic
  CNN of Masci et al. (2015) and MoNet gather features on.

Meshes are ``vertices`` float64 [V, 3] and ``faces`` int64 [F, 3]; what is computed here is input to a network, once for each
mesh, in float64, and has no gradient. Sparse matrices are factorised by SciPy, which counts their entries in 32 bits: meshes
of 2^31 vertices and half edges are refused. A vertex of no face is a part of its own: infinitely far, and 0 in each eigenvector.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph, linalg

from adlbench.benchmark.api import DataError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_ENTRIES = 2**31


@dataclass(frozen=True)
class TriangleMesh:
    """Vertices, faces, and what follows from them. Raises DataError for faces that are none."""

    vertices: Floats  # [V, 3]
    faces: Integers  # [F, 3]

    def __post_init__(self) -> None:
        vertices, faces = self.vertices, self.faces
        if vertices.ndim != 2 or vertices.shape[1] != 3:
            raise DataError(f"vertices of shape {vertices.shape}; [V, 3] is wanted")
        if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
            raise DataError(f"faces of shape {faces.shape}; [F, 3] with at least one face is wanted")
        if len(vertices) + 6 * len(faces) >= MAX_ENTRIES:
            raise DataError(
                f"{len(vertices):,} vertices and {len(faces):,} faces; their matrix has 2^31 entries or more: decimate"
            )
        if not np.issubdtype(faces.dtype, np.integer):
            raise DataError(f"faces of {faces.dtype}; integers are wanted")
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise DataError(f"faces name vertices {faces.min()}..{faces.max()} of {len(vertices)}")
        if not np.isfinite(vertices).all():
            raise DataError("a vertex is not finite; remove or repair it")
        if (self.areas <= 0).any():
            raise DataError(f"{int((self.areas <= 0).sum())} faces have no area; remove them")

    @cached_property
    def corners(self) -> Floats:
        """[F, 3 (corner), 3]"""
        return self.vertices[self.faces]

    @cached_property
    def normals(self) -> Floats:
        """[F, 3], twice as long as the face is large."""
        a, b, c = self.corners.swapaxes(0, 1)
        return np.cross(b - a, c - a)

    @cached_property
    def areas(self) -> Floats:
        return np.linalg.norm(self.normals, axis=1) / 2

    @cached_property
    def cotangents(self) -> Floats:
        """[F, 3]: of the angle at each corner."""
        turned = [np.roll(self.corners, -step, axis=1) for step in (0, 1, 2)]
        u, v = turned[1] - turned[0], turned[2] - turned[0]
        return (u * v).sum(-1) / (2 * self.areas[:, None])

    @cached_property
    def mass(self) -> Floats:
        """[V]: a third of the area around each vertex."""
        total: Floats = np.bincount(self.faces.ravel(), np.repeat(self.areas / 3, 3), len(self.vertices)).astype(float)
        return total

    @cached_property
    def laplacian(self) -> sparse.csc_matrix:
        """[V, V], positive semi-definite: (L f)_i = sum over neighbours j of (cot a + cot b) / 2 (f_i - f_j), where a and
        b are the angles opposite to the edge. Obtuse angles give negative weights, as they should."""
        count = len(self.vertices)
        rows, columns = (
            np.roll(self.faces, -1, 1).ravel(),
            np.roll(self.faces, -2, 1).ravel(),
        )  # opposite to each corner
        weights = sparse.coo_matrix((self.cotangents.ravel() / 2, (rows, columns)), (count, count)).tocsc()
        weights = weights + weights.T
        return (sparse.diags(np.asarray(weights.sum(1)).ravel()) - weights).tocsc()

    def spectrum(self, count: int) -> tuple[Floats, Floats]:
        """The ``count`` smallest eigenvalues [k] of L x = lambda M x, and eigenvectors [V, k] with x^T M x = 1.

        An eigenvector's sign, and the basis of a multiple eigenvalue, are arbitrary: networks must not depend on them.
        """
        used = np.flatnonzero(self.mass)  # a vertex of no face has neither weight nor neighbours
        if not 0 < count < len(used):
            raise DataError(f"{count} eigenvectors wanted of a mesh with {len(used)} vertices in faces")
        mass = sparse.diags(self.mass[used]).tocsc()
        matrix = self.laplacian if len(used) == len(self.vertices) else self.laplacian[used][:, used]
        start = np.random.default_rng(0).standard_normal(len(used))  # ARPACK's own would differ each time
        shift = -1e-4 * matrix.diagonal().mean() / self.mass[used].mean()  # L itself is singular
        values, found = linalg.eigsh(matrix, count, mass, sigma=shift, v0=start)
        order = values.argsort()
        vectors = np.zeros((len(self.vertices), count))
        vectors[used] = found[:, order]
        return values[order].clip(min=0), vectors

    @cached_property
    def edges(self) -> Integers:
        """[E, 2], each once, the smaller vertex first, in lexicographic order."""
        pairs = np.stack([self.faces, np.roll(self.faces, -1, 1)], axis=-1).reshape(-1, 2)
        return np.unique(np.sort(pairs, axis=1), axis=0)

    @cached_property
    def mean_edge(self) -> float:
        ends = self.vertices[self.edges]
        return float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).mean())

    def gradient(self, values: Floats) -> Floats:
        """[F, 3]: of the function that is linear on each face and has ``values`` [V] at the vertices."""
        against = np.roll(self.corners, -2, 1) - np.roll(self.corners, -1, 1)  # the edge opposite to each corner
        unit = self.normals / (2 * self.areas[:, None])
        turned = np.cross(unit[:, None], against)
        return (turned * values[self.faces][..., None]).sum(1) / (2 * self.areas[:, None])

    def divergence(self, field: Floats) -> Floats:
        """[V]: integrated, of a ``field`` [F, 3] that is constant on each face; L f = -divergence(gradient(f))."""
        to_next = np.roll(self.corners, -1, 1) - self.corners
        to_last = np.roll(self.corners, -2, 1) - self.corners
        along = (
            np.roll(self.cotangents, -2, 1)[..., None] * to_next + np.roll(self.cotangents, -1, 1)[..., None] * to_last
        )
        share = (along * field[:, None]).sum(-1).ravel() / 2
        total: Floats = np.bincount(self.faces.ravel(), share, len(self.vertices)).astype(float)
        return total


class HeatGeodesics:
    """Geodesic distances by the heat method. Both matrices are factorised once, for any number of sources."""

    def __init__(self, mesh: TriangleMesh, smoothing: float = 1.0):
        """Heat flows for ``smoothing`` times the square of the mean edge."""
        self.mesh = mesh
        alone = sparse.diags((mesh.mass == 0) * mesh.mass.mean())  # vertices of no face have no row of their own
        flow = sparse.diags(mesh.mass) + smoothing * mesh.mean_edge**2 * mesh.laplacian + alone
        self._flow = linalg.splu(flow.tocsc(), "MMD_AT_PLUS_A", 0.0, options={"SymmetricMode": True})
        scale = 1e-10 * mesh.laplacian.diagonal().mean()  # L is singular: constants
        poisson = mesh.laplacian + scale * sparse.diags(mesh.mass / mesh.mass.mean()) + alone
        self._poisson = linalg.splu(poisson.tocsc(), "MMD_AT_PLUS_A", 0.0, options={"SymmetricMode": True})

    def distance(self, *sources: int) -> Floats:
        """[V]: from the nearest of the ``sources``. In parts of the mesh without a source, not a number."""
        mesh = self.mesh
        if not sources or min(sources) < 0 or max(sources) >= len(mesh.vertices):
            raise DataError(f"sources {sources} in a mesh of {len(mesh.vertices)} vertices")
        start = np.zeros(len(mesh.vertices))
        start[list(sources)] = 1.0
        slope = mesh.gradient(self._flow.solve(start))
        steep = np.linalg.norm(slope, axis=1, keepdims=True)
        towards = np.divide(-slope, steep, out=np.zeros_like(slope), where=steep > 0)
        distance = -self._poisson.solve(mesh.divergence(towards))
        reached = np.isin(self._parts, self._parts[list(sources)])
        distance[~reached] = np.nan
        for part in np.unique(self._parts[list(sources)]):
            inside = self._parts == part
            distance[inside] -= distance[[s for s in sources if inside[s]]].min()
        return distance

    @cached_property
    def _parts(self) -> Integers:
        """[V]: the connected part of each vertex."""
        count, edges = len(self.mesh.vertices), self.mesh.edges
        neighbours = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
        return csgraph.connected_components(neighbours, directed=False)[1].astype(np.int64)


# -------------------------------------------------------------------------------------------------------- polar patches
@dataclass(frozen=True)
class PolarPatch:
    """The vertices around ``centre`` within a radius, by rising distance."""

    centre: int
    vertices: Integers  # [n], the centre first
    distance: Floats  # [n]
    angle: Floats  # [n] in [0, 2 pi), from the first edge of the centre, counter-clockwise seen from outside


class PolarPatches:
    """Geodesic polar coordinates around any vertex of a mesh whose faces are oriented alike. Raises DataError for others."""

    def __init__(self, mesh: TriangleMesh):
        self.mesh = mesh
        halves, counts = np.unique(
            np.stack([mesh.faces, np.roll(mesh.faces, -1, 1)], axis=-1).reshape(-1, 2), axis=0, return_counts=True
        )
        if counts.max() > 1:
            twice = halves[counts.argmax()].tolist()
            raise DataError(
                f"two faces have edge {twice} in the same direction; orient the faces alike, and drop duplicates"
            )
        self._around: list[list[tuple[int, int]]] = [[] for _ in mesh.vertices]  # the other two corners, in order
        for a, b, c in mesh.faces.tolist():
            self._around[a].append((b, c))
            self._around[b].append((c, a))
            self._around[c].append((a, b))
        ends = mesh.vertices[mesh.edges]
        self._longest_edge = float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).max())

    def patch(self, centre: int, radius: float) -> PolarPatch:
        """A front moves outwards from ``centre``: a vertex gets its distance by unfolding the triangles at it whose other
        two corners have theirs, and its angle between the angles of those; both again when a triangle that comes late,
        as behind an obtuse angle, shows a shorter way. Exact on a plane, where each straight line stays in the mesh. The front
        goes over edges: what hangs on a single vertex is not reached. Raises DataError for a centre that joins two such parts,
        or is none, and for a negative radius."""
        points = self.mesh.vertices
        if not 0 <= centre < len(points) or not radius >= 0:
            raise DataError(
                f"a patch of radius {radius} around vertex {centre} of {len(points)}; radius 0 or more is wanted"
            )
        distance, angle = {centre: 0.0}, {centre: 0.0}
        front: list[tuple[float, int]] = []
        for vertex, theta in self._first_ring(centre):
            distance[vertex] = math.dist(points[centre], points[vertex])
            angle[vertex] = theta
            heapq.heappush(front, (distance[vertex], vertex))
        while front and front[0][0] <= radius + self._longest_edge:  # the way to a vertex may pass farther ones
            best, vertex = heapq.heappop(front)
            if best > distance[vertex]:
                continue
            for one, other in self._around[vertex]:
                for wanted, second in ((one, other), (other, one)):
                    if second not in distance or centre in (wanted, second):
                        continue
                    found, theta = self._unfold(wanted, vertex, second, distance, angle)
                    if found < distance.get(wanted, math.inf) * (1 - 1e-9):
                        distance[wanted], angle[wanted] = found, theta
                        heapq.heappush(front, (found, wanted))
        order = sorted((vertex for vertex in distance if distance[vertex] <= radius), key=lambda v: (distance[v], v))
        return PolarPatch(
            centre, np.array(order), np.array([distance[v] for v in order]),
            np.array([angle[v] % (2 * math.pi) for v in order]),
        )  # fmt: skip

    def _first_ring(self, centre: int) -> list[tuple[int, float]]:
        """The neighbours of ``centre`` and their angles, scaled to 2 pi in sum; at a border as they are."""
        after = dict(self._around[centre])
        if not after:
            return []
        border = set(after) - set(after.values())
        start = min(border) if border else min(after)
        ring, angles, total = [start], [0.0], 0.0
        while ring[-1] in after and len(angles) <= len(after):
            u, v = (self.mesh.vertices[x] - self.mesh.vertices[centre] for x in (ring[-1], after[ring[-1]]))
            total += math.atan2(float(np.linalg.norm(np.cross(u, v))), float(u @ v))
            ring.append(after[ring[-1]])
            angles.append(total)
        if len(set(ring)) < len(set(after) | set(after.values())):
            raise DataError(f"vertex {centre} joins parts of the mesh that share no edge there; split it")
        if border:
            return list(zip(ring, angles, strict=True))
        return [(vertex, theta * 2 * math.pi / total) for vertex, theta in zip(ring[:-1], angles[:-1], strict=True)]

    def _unfold(
        self, wanted: int, j: int, k: int, distance: dict[int, float], angle: dict[int, float]
    ) -> tuple[float, float]:
        """Distance and angle of ``wanted`` seen over the edge (j, k): the triangle and the centre laid into one plane."""
        points = self.mesh.vertices
        u, v = points[j] - points[wanted], points[k] - points[wanted]
        length_j, length_k = float(np.linalg.norm(u)), float(np.linalg.norm(v))
        along_j, along_k = (distance[j] + length_j, angle[j]), (distance[k] + length_k, angle[k])
        edge = math.dist(points[j], points[k])
        foot = (distance[j] ** 2 - distance[k] ** 2 + edge**2) / (2 * edge)  # of the centre on the line from j to k
        height = distance[j] ** 2 - foot**2
        own_foot = (length_j**2 - length_k**2 + edge**2) / (2 * edge)
        own_height = length_j**2 - own_foot**2
        if height <= 0 or own_height <= 0:
            return min(along_j, along_k)
        height, own_height = math.sqrt(height), math.sqrt(own_height)  # on opposite sides of the edge
        crossing = foot + (own_foot - foot) * height / (height + own_height)
        if not 0 <= crossing <= edge:
            return min(along_j, along_k)
        # with j at the origin, k on the x axis and the centre below it: directions from the centre
        to_j, to_k = math.atan2(height, -foot), math.atan2(height, edge - foot)
        to_wanted = math.atan2(own_height + height, own_foot - foot)
        share = (to_j - to_wanted) / (to_j - to_k)
        turn = (angle[k] - angle[j] + math.pi) % (2 * math.pi) - math.pi
        return math.hypot(own_foot - foot, own_height + height), angle[j] + share * turn
