"""Cross-attention of the heads: fewer operations for few people, the same results."""

import pytest
import torch

from multihmr.networks.attention import CrossAttention


@pytest.mark.parametrize("queries", [1, 4, 5])
@torch.no_grad()
def test_attention_of_few_queries_is_attention(queries):
    torch.manual_seed(0)
    sizes = {"head_count": 2, "head_width": 8}
    few, usual = CrossAttention(12, 10, **sizes, few_queries=True), CrossAttention(12, 10, **sizes)
    usual.load_state_dict(few.state_dict())
    x_BQD, context_BND = torch.randn(3, queries, 12), torch.randn(3, 20, 10)
    torch.testing.assert_close(few(x_BQD, context_BND), usual(x_BQD, context_BND), atol=1e-6, rtol=1e-5)
    assert torch.equal(few(x_BQD, context_BND), usual(x_BQD, context_BND)) == (queries > 4)
