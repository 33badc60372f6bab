"""The scan of Mamba-2, state space duality (Dao & Gu 2024): linear in the length of the sequence.

For every head, with a state h of [head features P, state features N]:
    h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t^T        y_t = h_t C_t + D x_t
The sequence is cut into chunks. Within one, outputs are a masked product of matrices, as in attention; from one to the
next only the state is passed on, by a loop (a masked product over chunks, too, would grow with the square of the length).
"""

from __future__ import annotations

import torch
from torch import Tensor

from adlbench.benchmark.api import DataError

_SEGMENT = 1024  # steps at a time on a CPU


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor | None = None,
    *,
    chunk: int = 64,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs y [B, L, H, P] and the state after the last step [B, H, P, N].

    Computed in at least float32, whatever autocast says: decays are exponentials of sums. y has the type of x, the state is
    float32 (float64 for float64). float32 is right to 1e-5 of the largest output. Steps are counted in 64 bits.
    Raises DataError for shapes that do not belong together, and for a chunk of no step.

    Args:
        x: [B, L, H, P] with H heads of P features.
        dt: [B, L, H] step sizes, at least 0. A step of 0 leaves the state as it is: that is how to pad.
        a: [H] at most 0.
        b, c: [B, L, G, N]; each of the G groups serves H / G successive heads.
        d: [H], or [H, P].
        chunk: steps at a time; does not change the result.
        state: [B, H, P, N] before the first step; zeros by default.
    """
    with torch.autocast(x.device.type, enabled=False):
        kind = torch.promote_types(x.dtype, torch.float32)
        batch, length, heads, width = x.shape
        groups, features = b.shape[2:]
        if not groups or heads % groups:
            raise DataError(
                f"{heads} heads cannot share {groups} groups of B and C; heads must be a multiple of groups"
            )
        if (
            b.shape != c.shape
            or b.shape[:2] != x.shape[:2]
            or dt.shape != x.shape[:3]
            or a.shape != (heads,)
            or chunk < 1
        ):
            raise DataError(
                f"a scan of x {list(x.shape)}, dt {list(dt.shape)}, a {list(a.shape)}, b {list(b.shape)}, c {list(c.shape)} in "
                f"chunks of {chunk}; wanted: [B, L, H, P], [B, L, H], [H], twice [B, L, G, N], and at least one step a chunk"
            )
        own, sizes = x.to(kind), dt.to(kind)
        carried = own.new_zeros(batch, heads, width, features) if state is None else state.to(kind)
        if x.numel() == 0:
            return x.new_empty(x.shape), carried
        # On a CPU what belongs to some hundred steps fits into the cache, and memory that was used before is used again.
        segment = chunk * max(1, _SEGMENT // chunk) if x.device.type == "cpu" else length
        whole = (own, sizes, b.to(kind), c.to(kind))
        parts = []
        for inputs, steps, keys, queries in zip(*(values.split(segment, dim=1) for values in whole), strict=True):
            outputs, carried = _scan(inputs, steps, keys, queries, a.to(kind), carried, chunk)
            parts.append(outputs)
        result = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        if d is not None:
            result = result + own * (d.to(kind).unsqueeze(-1) if d.ndim == 1 else d.to(kind))
        return result.to(x.dtype), carried


def _scan(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, a: Tensor, state: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Some steps [B, L, ...] and the ``state`` [B, H, P, N] before them to the outputs and the state after them."""
    batch, length, heads, width = x.shape
    groups, features = b.shape[2:]
    padding = -length % chunk
    shape = (batch, (length + padding) // chunk, chunk, groups, heads // groups)

    def cut(values: Tensor, *end: int) -> Tensor:
        padded = torch.nn.functional.pad(values, (0, 0) * (values.ndim - 2) + (0, padding))
        return padded.reshape(*shape[:3], *end)

    inputs = cut(x * dt.unsqueeze(-1), *shape[3:], width)  # [B, K, T, G, R, P]
    keys, queries = cut(b, groups, features), cut(c, groups, features)
    # [B, K, T, G, R]: log of the decay since the chunk began. In double precision: behind a step that forgets nearly all,
    # differences of these sums in float32 have lost the digits of small steps.
    logs = cut((dt * a).double(), *shape[3:]).cumsum(2)
    logs = logs.movedim(2, -1)  # [B, K, G, R, T]

    # Within a chunk: step t sees step s <= t through exp(logs_t - logs_s).
    apart = logs.unsqueeze(-1) - logs.unsqueeze(-2)  # [B, K, G, R, T, S]
    future = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).triu(1)
    decay = apart.to(x.dtype).masked_fill(future, -torch.inf).exp()
    scores = torch.einsum("bktgn,bksgn->bkgts", queries, keys).unsqueeze(3) * decay
    values = inputs.permute(0, 1, 3, 4, 2, 5)  # [B, K, G, R, S, P]
    outputs = scores @ values

    # What a chunk adds to the state, and the state in front of every chunk.
    left = (logs[..., -1:] - logs).exp().to(x.dtype)  # decay from a step to the chunk's end
    added = (values * left.unsqueeze(-1)).transpose(-1, -2) @ keys.permute(0, 1, 3, 2, 4).unsqueeze(3)
    whole = logs[..., -1].exp().to(x.dtype)[..., None, None]  # [B, K, G, R, 1, 1]
    carried = state.view(batch, groups, heads // groups, width, features)
    fronts = []
    for decayed, new in zip(whole.unbind(1), added.unbind(1), strict=True):
        fronts.append(carried)
        carried = decayed * carried + new
    front = torch.stack(fronts, dim=1)  # [B, K, G, R, P, N]
    seen = queries.permute(0, 1, 3, 2, 4).unsqueeze(3) @ front.transpose(-1, -2)  # [B, K, G, R, T, P]
    outputs = outputs + seen * logs.exp().to(x.dtype).unsqueeze(-1)
    result = outputs.permute(0, 1, 4, 2, 3, 5).reshape(batch, -1, heads, width)[:, :length]
    return result, carried.reshape(batch, heads, width, features)


def bidirectional_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None = None, *, chunk: int = 64
) -> Tensor:
    """The sum of a scan from the front and one from the back over the same projections (Ziwen et al. 2024, Long-LRM)."""
    forward, _ = ssd_scan(x, dt, a, b, c, d, chunk=chunk)
    turned = [values.flip(1) for values in (x, dt, b, c)]
    backward, _ = ssd_scan(turned[0], turned[1], a, turned[2], turned[3], d, chunk=chunk)
    return forward + backward.flip(1)
