"""Volume rendering along rays by quadrature (Max 1995; Mildenhall et al. 2020, section 4 and 5.2).

Depths are z-depths t [..., S], ascending; lengths are in world units. All of it is in float32, whatever the precision of
the network: exp(-sum of density) and the cumulative sums lose the picture in bfloat16.

Packed functions take the samples of all rays as one list [M], ``ray`` [M] (ascending) saying whose each is: rays may have
any number of them, also none. Rays and samples are counted in 64 bits. float32 weights are right to 1e-6.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from adlbench.methods.nn.sparse_tensor import compiled

INFINITE = 1e10  # length of the last interval: what has not been stopped by then is stopped if there is any density


class Compositing(NamedTuple):
    """How much each sample contributes, and what is left for the background."""

    weights: Tensor  # [..., S], the probability that the ray ends in interval i
    transmittance: Tensor  # [..., S], the probability that it reaches interval i
    opacity: Tensor  # [...], the probability that it ends at all


def stratified_depths(near: Tensor, far: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """One depth in each of ``n`` equal bins between near and far [...]: [..., n].

    Uniform within its bin with a generator (eq. 2). Without one: n depths evenly spread from near to far, both included.
    """
    steps = torch.linspace(0, 1, n, device=near.device)
    depths = near[..., None] + (far - near)[..., None] * steps
    if generator is None:
        return depths
    middle = 0.5 * (depths[..., 1:] + depths[..., :-1])
    upper = torch.cat([middle, depths[..., -1:]], dim=-1)
    lower = torch.cat([depths[..., :1], middle], dim=-1)
    uniform = torch.rand(depths.shape, device=near.device, generator=generator)
    return lower + (upper - lower) * uniform


def sample_pdf(edges: Tensor, weights: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """``n`` depths [..., n] from the piecewise constant density that has mass ``weights`` [..., B] between ``edges``
    [..., B + 1], by inversion of its distribution function. Evenly spread quantiles without a generator."""
    mass = weights + 1e-5  # a ray that meets nothing is sampled evenly
    mass = mass / mass.sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(mass[..., :1]), mass.cumsum(-1)], dim=-1)
    if generator is None:
        u = torch.linspace(0, 1, n, device=cdf.device).expand(*cdf.shape[:-1], n).contiguous()
    else:
        u = torch.rand(*cdf.shape[:-1], n, device=cdf.device, generator=generator)
    above = torch.searchsorted(cdf, u, right=True).clamp_max(cdf.shape[-1] - 1)
    below = (above - 1).clamp_min(0)
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    edge_below, edge_above = edges.gather(-1, below), edges.gather(-1, above)
    span = cdf_above - cdf_below
    share = (u - cdf_below) / torch.where(span < 1e-5, torch.ones_like(span), span)
    return edge_below + share * (edge_above - edge_below)


def interval_lengths(depths: Tensor, directions: Tensor, end: Tensor | None = None) -> Tensor:
    """World length of the interval after each sample, [..., S]. The last one reaches to z-depth ``end`` [...], or is
    endless. Differences of z-depth are multiplied by |d|, since directions are not normalised."""
    final = torch.full_like(depths[..., :1], INFINITE) if end is None else end[..., None] - depths[..., -1:]
    return torch.cat([depths.diff(dim=-1), final], dim=-1) * directions.norm(dim=-1, keepdim=True)


def composite(density: Tensor, lengths: Tensor, stop_below: float = 0.0) -> Compositing:
    """Weights T_i (1 - exp(-sigma_i delta_i)), eq. 3, for densities and lengths [..., S].

    T_i is the exponential of a sum, not a product of (1 - alpha): the gradient stays finite behind an opaque sample.
    Samples with T_i below ``stop_below`` have no weight: the ray was terminated early. float64 stays float64.
    """
    optical = _at_least_float32(density) * lengths
    return Compositing(*_Composite.apply(optical, stop_below))  # type: ignore[no-untyped-call]


class _Composite(torch.autograd.Function):
    """With its gradient in closed form: what is in front of a sample scales it, so that sums from the back are all it takes."""

    @staticmethod
    def forward(ctx: Any, optical: Tensor, stop_below: float) -> Compositing:
        if compiled(optical):
            result = Compositing(*_numba().composite_dense(optical, stop_below))
        else:
            before = torch.cat([torch.zeros_like(optical[..., :1]), optical[..., :-1].cumsum(-1)], dim=-1)
            result = _weigh(torch.exp(-before), optical, stop_below)
        ctx.save_for_backward(*result[:2])
        ctx.stop_below = stop_below
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_weights: Tensor, to_transmittance: Tensor, to_opacity: Tensor) -> tuple[Tensor, None]:
        weights, transmittance = ctx.saved_tensors
        if compiled(weights):
            pulls = to_weights, to_transmittance, to_opacity
            return _numba().composite_dense_gradient(weights, transmittance, ctx.stop_below, *pulls), None
        pull = to_weights + to_opacity[..., None]
        if ctx.stop_below > 0:
            pull = torch.where(transmittance >= ctx.stop_below, pull, 0.0)
        lost = pull * weights + to_transmittance * transmittance  # by an obstacle in front
        behind = lost.flip(-1).cumsum(-1).flip(-1) - lost
        return pull * (transmittance - weights) - behind, None  # what passes a sample is T less its weight


def composite_packed(
    density: Tensor, lengths: Tensor, ray: Tensor, num_rays: int, stop_below: float = 0.0
) -> Compositing:
    """``composite`` for packed densities and lengths [M]: weights and transmittance [M], opacity [num_rays]."""
    optical = _at_least_float32(density) * lengths
    if compiled(optical):
        return Compositing(*_numba().composite(optical, ray, num_rays, stop_below))
    # One sum over all rays, less what it was where a ray starts; in double precision, and bounded: exp(-100) is 0.
    optical = optical.clamp(max=100)
    before = torch.cat([optical.new_zeros(1, dtype=torch.float64), optical.double().cumsum(0)])
    counts = torch.bincount(ray, minlength=num_rays)
    first = before.index_select(0, counts.cumsum(0) - counts)  # what was before a ray's own samples
    transmittance = torch.exp(first.index_select(0, ray) - before[:-1]).to(optical.dtype)
    weights, transmittance, _ = _weigh(transmittance, optical, stop_below)
    return Compositing(weights, transmittance, accumulate_packed(weights, None, ray, num_rays)[:, 0])


def _weigh(transmittance: Tensor, optical: Tensor, stop_below: float) -> Compositing:
    weights = transmittance * -torch.expm1(-optical)
    if stop_below > 0:
        weights = torch.where(transmittance >= stop_below, weights, 0.0)
    return Compositing(weights, transmittance, weights.sum(-1))


def accumulate_packed(weights: Tensor, values: Tensor | None, ray: Tensor, num_rays: int) -> Tensor:
    """Sum of w_i v_i over the samples of each ray: [M], [M, C] -> [num_rays, C]; without values the sum of weights [R, 1]."""
    if values is not None and compiled(weights):
        total: Tensor = _numba().accumulate(weights, values.to(weights.dtype), ray, num_rays)
        return total
    parts = weights.unsqueeze(1) if values is None else weights.unsqueeze(1) * values.to(weights.dtype)
    return parts.new_zeros(num_rays, parts.shape[1]).index_add(0, ray, parts)


def distortion(weights: Tensor, edges: Tensor) -> Tensor:
    """Distortion loss (Barron et al. 2022, eq. 15) of weights [..., S] on intervals between ``edges`` [..., S + 1]: [...].

    Sum over pairs of w_i w_j |m_i - m_j| for the intervals' middles m, and a third of w_i^2 times their lengths. With
    ascending middles the first is twice a sum over what is in front, so this is linear in S.
    """
    middle, lengths = 0.5 * (edges[..., 1:] + edges[..., :-1]), edges.diff(dim=-1)
    mass, moment = weights.cumsum(-1) - weights, (weights * middle).cumsum(-1) - weights * middle
    between = 2 * (weights * (middle * mass - moment)).sum(-1)
    return between + (weights.square() * lengths).sum(-1) / 3


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def accumulate(weights: Tensor, values: Tensor) -> Tensor:
    """Sum of w_i v_i: [..., S], [..., S, C] -> [..., C]."""
    if compiled(weights):
        total: Tensor = _numba().accumulate_dense(weights, values.to(weights.dtype))
        return total
    return (weights[..., None, :] @ values.to(weights.dtype))[..., 0, :]


def expected_depth(weights: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [...] of the depth where a ray ends, given that it ends. Both are 0 where nothing stops it.

    The variance is that of the discrete distribution over samples: the uncertainty that the weights themselves express.
    """
    total = weights.sum(-1)
    probability = weights / total.clamp_min(1e-10)[..., None]
    mean = (probability * depths).sum(-1)
    variance = (probability * (depths - mean[..., None]).square()).sum(-1)
    return mean, variance


@cache
def _numba() -> Any:
    """The compiled functions, imported when they are needed: numba takes a second."""
    return importlib.import_module("adlbench.methods.nn.volume_rendering_numba")
