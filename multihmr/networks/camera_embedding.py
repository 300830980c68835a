"""Camera embedding: the ray through each patch, Fourier-encoded (Multi-HMR, section 3.3)."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from ..geometry import pixel_rays


class RayEmbedding(nn.Module):
    """[r, sin(pi r f), cos(pi r f)] of the rays r = K^-1 (u, v, 1), `bands` frequencies f from 1 to 32.

    kind: "linear" gives r alone, for the linear layer that reads it, and "none" nothing.

    `swapped`: with (v, u, 1) instead, as the released checkpoints were trained; for a principal point off the
    diagonal that is no mere permutation, so that weights cannot compensate for it.
    """

    frequencies: Tensor

    def __init__(
        self, bands: int = 16, kind: str = "fourier", *, max_frequency: float = 32.0, swapped: bool = False
    ) -> None:
        super().__init__()
        self.swapped = swapped
        self.width = {"fourier": 3 + 6 * bands, "linear": 3, "none": 0}[kind]
        self.register_buffer("frequencies", torch.linspace(1, max_frequency, bands), persistent=False)

    def forward(self, K_B33: Tensor, height: int, width: int, patch: int) -> Tensor:
        """(B, self.width, height, width) for a grid of height x width patches of `patch` pixels."""
        rows = (torch.arange(height, device=K_B33.device, dtype=torch.float32) + 0.5) * patch
        cols = (torch.arange(width, device=K_B33.device, dtype=torch.float32) + 0.5) * patch
        v, u = torch.meshgrid(rows, cols, indexing="ij")
        centers_N2 = torch.stack([v, u] if self.swapped else [u, v], dim=-1).flatten(0, 1).to(K_B33.dtype)
        rays_BN2 = pixel_rays(centers_N2.expand(K_B33.shape[0], -1, -1), K_B33)
        rays_BN3 = torch.cat([rays_BN2, torch.ones_like(rays_BN2[..., :1])], dim=-1)
        phases = (math.pi * rays_BN3[..., None] * self.frequencies).flatten(2)
        embedding_BND = torch.cat([rays_BN3, phases.sin(), phases.cos()], dim=-1)
        embedding_BND = embedding_BND[..., : self.width]
        return rearrange(embedding_BND, "b (h w) d -> b d h w", h=height)
