"""Products of 8-bit floats, for GPUs that multiply them at twice the rate of 16 bits (Hopper and later)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0  # that it holds
MULTIPLE = 16  # of which the kernels want both sides of a matrix
CAPABILITY = (8, 9)  # of the first NVIDIA GPUs that have such products


class Float8Linear(nn.Module):
    """nn.Linear with weights stored, and inputs rounded as they come, as 8-bit floats.

    Each output's weights and each token have a scale of their own, so that the largest of them is the largest
    that the format holds. Sums and what comes out are of more bits: bfloat16, for float16 cannot come out of
    scales by row.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        weight, scale = rounded(source.weight.detach())
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        bias = None if source.bias is None else source.bias.detach().to(torch.bfloat16)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = rounded(x.flatten(0, -2))
        product = torch._scaled_mm(  # what torch.nn.functional.scaled_mm of torch >= 2.10 calls
            rows, self.weight.T, scale_a=scale, scale_b=self.scale.T, bias=self.bias, out_dtype=torch.bfloat16
        )
        return product.unflatten(0, x.shape[:-1])


def rounded(x_NK: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) 8-bit floats and the (N, 1) float32 by which to multiply the rows."""
    scale_N1 = x_NK.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (x_NK.float() / scale_N1).clamp(-LARGEST, LARGEST).to(FLOAT8), scale_N1


def with_float8(network: nn.Module) -> int:
    """Let linear layers of `network` compute with 8-bit floats, where sizes allow it, and return how many."""
    count = 0
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.Linear) and not any(side % MULTIPLE for side in child.weight.shape):
                setattr(part, name, Float8Linear(child))
                count += 1
    return count
