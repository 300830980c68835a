"""One layer of the Human Perception Head: cross-attention to the image, self-attention among people, MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """People (queries) attend to the patches of their own image (context), or to themselves.

    Keys and values are computed once per image and shared by all of its people, so that memory grows with
    people + patches and not with their product.
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        *,
        head_count: int,
        head_width: int,
        few_queries: bool = False,
    ) -> None:
        """few_queries: see `_of_few`; the sums are the same in another order."""
        super().__init__()
        inner = head_count * head_width
        self.head_count = head_count
        self.few_queries = few_queries
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(context_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width)

    def forward(self, x_BQD: Tensor, context_BND: Tensor, mask_BQN: Tensor | None = None) -> Tensor:
        """(B, Q, D) queries, (B, N, C) context -> (B, Q, D); mask (B, Q, N) is true where it may attend."""
        q = self._split(self.to_q(x_BQD))
        if self.few_queries and mask_BQN is None and q.shape[2] <= q.shape[3] // 2:
            return self.to_out(self._of_few(q, context_BND))
        k, v = (self._split(t) for t in self.to_kv(context_BND).chunk(2, dim=-1))
        mask = None if mask_BQN is None else mask_BQN[:, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(rearrange(out, "b heads q d -> b q (heads d)"))

    def _of_few(self, q: Tensor, context_BND: Tensor) -> Tensor:
        """(B, heads, Q, d) queries -> (B, Q, heads * d), without keys and values of each patch.

        q . (W_k c) is (W_k^T q) . c, and the mean of W_v c is W_v of the mean of c. With fewer queries than
        channels of a head that is less to compute: 5 times less for one to six people.
        """
        W_k, W_v = self.to_kv.weight.unflatten(0, (2, self.head_count, -1))  # heads, d, C
        asked_BHQC = (q * q.shape[-1] ** -0.5) @ W_k
        context_B1ND = context_BND[:, None]
        weights_BHQN = (asked_BHQC @ context_B1ND.mT).softmax(-1)
        out = (weights_BHQN @ context_B1ND) @ W_v.mT
        return rearrange(out, "b heads q d -> b q (heads d)")

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (heads d) -> b heads n d", heads=self.head_count)


class PerceptionLayer(nn.Module):
    """Q <- MLP(SA(CA[Q, E])), each with a residual and a norm before it (Multi-HMR, section 3.2).

    `people_first` swaps the two attentions, as in the released checkpoints: MLP(CA[SA(Q), E]). Without
    `people_attention` there is no self-attention among people.
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        *,
        head_count: int,
        head_width: int,
        mlp_width: int,
        people_first: bool = False,
        people_attention: bool = True,
    ) -> None:
        super().__init__()
        self.people_first = people_first
        self.norm_cross = nn.LayerNorm(width)
        self.cross = CrossAttention(
            width, context_width, few_queries=not people_first, head_count=head_count, head_width=head_width
        )
        self.norm_self = nn.LayerNorm(width) if people_attention else None
        self.self_ = (
            CrossAttention(width, width, head_count=head_count, head_width=head_width)
            if people_attention
            else None
        )
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width))

    def forward(self, x_BQD: Tensor, mask_BQ: Tensor, context_BND: Tensor) -> Tensor:
        """mask_BQ is true where there is a person; the other rows of the result are undefined."""
        x = x_BQD
        if self.people_first:
            x = x + self._self_attention(x, mask_BQ)
        x = x + self.cross(self.norm_cross(x), context_BND)
        if not self.people_first:
            x = x + self._self_attention(x, mask_BQ)
        return x + self.mlp(self.norm_mlp(x))

    def _self_attention(self, x_BQD: Tensor, mask_BQ: Tensor) -> Tensor:
        if self.norm_self is None or self.self_ is None:
            return x_BQD.new_zeros(())
        # Padding attends to itself only, because a softmax over nothing would be NaN.
        itself = torch.eye(mask_BQ.shape[1], dtype=torch.bool, device=mask_BQ.device)
        normed = self.norm_self(x_BQD)
        return self.self_(normed, normed, mask_BQ[:, None, :] | itself)
