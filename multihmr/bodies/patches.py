"""The mesh of a body in patches: few directions and few bones move a piece of skin, so most zeros go."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PATCH = 256  # vertices posed at once on a CPU: few bones move them, and they stay in its cache


class Patch(nn.Module):
    """Some vertices, with only the directions and the bones that move them. People come last in memory."""

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
        self.register_buffer("mean", mean_V3.reshape(-1, 1), persistent=False)
        self.register_buffer("basis", basis_KV3[moving].flatten(1).T.contiguous(), persistent=False)
        self.register_buffer("weights", weights_VJ[:, bones].contiguous(), persistent=False)

    def rest(self, coefficients_KP: Tensor) -> Tensor:
        return torch.addmm(self.mean, self.basis, coefficients_KP.index_select(0, self.moving)).unflatten(
            0, (-1, 3)
        )

    def forward(self, coefficients_KP: Tensor, transforms_J12P: Tensor) -> Tensor:
        """(V, 3, P) posed vertices: linear blend skinning."""
        rest_V3P = self.rest(coefficients_KP)
        blend = self.weights @ transforms_J12P.index_select(0, self.bones).flatten(1)
        x, y, z, translation = blend.view(len(self.weights), 3, 4, -1).unbind(2)
        moved = torch.addcmul(translation, x, rest_V3P[:, :1])
        moved = torch.addcmul(moved, y, rest_V3P[:, 1:2])
        return torch.addcmul(moved, z, rest_V3P[:, 2:])


def cut(
    mean_V3: Tensor, basis_KV3: Tensor, weights_VJ: Tensor, kept: Tensor, *, size: int = PATCH
) -> nn.ModuleList:
    """Patches of the vertices `kept`, in this order. One after the other: the tables are large."""
    chunks = kept.split(size)
    return nn.ModuleList(Patch(mean_V3[part], basis_KV3[:, part], weights_VJ[part]) for part in chunks)


def joined(patches: nn.ModuleList) -> tuple[Tensor, Tensor, Tensor]:
    """What the patches were cut from, with its zeros."""
    tables: list[tuple[Tensor, Tensor, Tensor]] = []
    for patch in patches:
        assert isinstance(patch, Patch)
        vertices = len(patch.weights)
        basis = patch.basis.new_zeros(patch.counts[0], vertices * 3)
        basis[patch.moving] = patch.basis.T
        weights = patch.weights.new_zeros(vertices, patch.counts[1])
        weights[:, patch.bones] = patch.weights
        tables.append((patch.mean.view(-1, 3), basis.unflatten(1, (-1, 3)), weights))
    means, bases, weights_of_all = zip(*tables, strict=True)
    return torch.cat(means), torch.cat(bases, 1), torch.cat(weights_of_all)
