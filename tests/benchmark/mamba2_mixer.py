"""transformers' Mamba-2 mixer, and the same weights around our scan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adlbench.methods.nn.ssd import ssd_scan


def small_mixer(hidden: int, state: int, head: int, groups: int = 1, chunk: int = 64) -> Any:
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    torch.manual_seed(0)
    config = Mamba2Config(
        hidden_size=hidden,
        state_size=state,
        head_dim=head,
        num_heads=2 * hidden // head,
        expand=2,
        n_groups=groups,
        chunk_size=chunk,
    )
    return Mamba2Mixer(config, layer_idx=0)


def mixer_with_own_scan(mixer: Any, x: Tensor) -> Tensor:
    """[B, L, hidden] -> [B, L, hidden]: Dao & Gu 2024, section 7, with the parameters of ``mixer``."""
    inner, shared = mixer.intermediate_size, mixer.n_groups * mixer.ssm_state_size
    gate, mixed, dt = mixer.in_proj(x).split([inner, inner + 2 * shared, mixer.num_heads], dim=-1)
    mixed = functional.silu(mixer.conv1d(mixed.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
    values, b, c = mixed.split([inner, shared, shared], dim=-1)
    groups = (*x.shape[:2], mixer.n_groups, mixer.ssm_state_size)
    y, _ = ssd_scan(
        values.reshape(*x.shape[:2], mixer.num_heads, mixer.head_dim),
        functional.softplus(dt + mixer.dt_bias),
        -mixer.A_log.exp(),
        b.reshape(groups),
        c.reshape(groups),
        mixer.D,
    )
    out: Tensor = mixer.out_proj(mixer.norm(y.flatten(2), gate))
    return out
