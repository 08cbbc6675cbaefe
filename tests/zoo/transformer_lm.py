"""A decoder-only language model with pre-norm blocks (Radford et al., 2019) and tied embeddings
(Press & Wolf, 2017, arXiv 1608.05859).
"""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Self-attention and a feed-forward network, each after a norm and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(x)
        attended, _ = self.attention(normed, normed, normed, attn_mask=mask, need_weights=False)
        x = x + attended
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))


class TransformerLM(nn.Module):
    """Token ids (B, T) with T <= context to logits (B, T, vocabulary)."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, context: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        future = torch.ones(context, context, dtype=torch.bool).triu(1)
        self.register_buffer("mask", future, persistent=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1]
        x = self.tokens(ids) + self.positions[:length]
        mask = self.mask[:length, :length]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


def transformer_lm(
    vocabulary: int = 1000, width: int = 256, depth: int = 4, heads: int = 4, context: int = 64
) -> TransformerLM:
    return TransformerLM(vocabulary, width, depth, heads, context)


def example_inputs() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 64, dtype=torch.int64),)
